package lab

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestDiffNamesWhatCameAndWent(t *testing.T) {
	before := Footprint{
		DockerContainers: map[string]string{"aa": "kept", "bb": "removed"},
		Links:            map[string]string{"veth1": ""},
	}
	now := Footprint{
		DockerContainers: map[string]string{"aa": "kept"},
		Links:            map[string]string{"veth1": ""},
		Addresses:        map[string]string{"10.64.0.2": "cc"},
		Netns:            map[string]string{"/run/netns/x": ""},
	}
	want := []string{
		"docker container bb (removed) is gone",
		"IPAM address 10.64.0.2 is still held by cc",
		"network namespace /run/netns/x is still there",
	}
	if got := before.Diff(now); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := now.Diff(now); len(got) != 0 {
		t.Errorf("a footprint differs from itself: %q", got)
	}
}

func TestMountsAreReportedAlikeByFootprintAndStop(t *testing.T) {
	now := Footprint{Netns: map[string]string{"/a": ""}, Mounts: map[string]string{"/b": "overlay"}}
	got := Footprint{}.Diff(now)
	if want := []string{mountLeak("/a", nsfs), mountLeak("/b", "overlay")}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOverlaps(t *testing.T) {
	p := netip.MustParsePrefix("10.70.3.0/24")
	for other, want := range map[string]bool{"10.70.3.128/25": true, "10.0.0.0/8": true, "10.70.4.0/24": false} {
		if got := overlapsAny(p, []netip.Prefix{netip.MustParsePrefix(other)}); got != want {
			t.Errorf("%s: got %v", other, got)
		}
	}
}

func TestStaleIsWhoseOwnerIsDead(t *testing.T) {
	s := siteAt(t.TempDir())
	is := func(want bool, why string) {
		t.Helper()
		if got, err := s.stale(); err != nil || got != want {
			t.Errorf("%s: stale is %v, %v", why, got, err)
		}
	}
	is(false, "just made")
	old := time.Now().Add(-time.Hour)
	check(t, os.Chtimes(s.dir, old, old))
	is(true, "never owned")
	check(t, s.writeOwner())
	is(false, "owned by this process")
	check(t, os.WriteFile(s.path("owner"), []byte(strconv.Itoa(os.Getpid())+" 1\n"), 0o644))
	is(true, "the pid is another process's now")
	check(t, s.remove(true))
	is(false, "kept")
}
