package docker

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestUserOf(t *testing.T) {
	n := newV2(t, testID)
	n.write("proc/42/status", "Name:\tsh\nUid:\t1000\t0\t0\t0\nGid:\t2000\t2000\t2000\t2000\nGroups:\t2000 3000 4294967294 \n")
	u, err := n.proc().userOf(42, testID)
	if err != nil || u.Linux.Uid != 1000 || u.Linux.Gid != 2000 || !slices.Equal(u.Linux.SupplementalGroups, []int64{2000, 3000, 4294967294}) {
		t.Errorf("%v, %v", u, err)
	}
	for _, c := range []struct {
		pid int
		id  string
	}{{42, strings.Repeat("d", 64)}, {43, testID}, {0, testID}, {42, ""}} {
		if _, err := n.proc().userOf(c.pid, c.id); !errors.Is(err, errEnded) {
			t.Errorf("process %d of %q: %v", c.pid, c.id, err)
		}
	}
}

func FuzzParseUser(f *testing.F) {
	f.Add("Uid:\t1\t1\t1\t1\nGid:\t1\nGroups:\t1 2\n")
	f.Add("Uid:\nGid:\n")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseUser(text)
		if err != nil {
			return
		}
		for _, id := range append([]int64{u.Uid, u.Gid}, u.SupplementalGroups...) {
			if id < 0 || id > 1<<32-1 {
				t.Errorf("%q: id %d", text, id)
			}
		}
	})
}
