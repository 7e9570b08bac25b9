package cni

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const ranged = `{"cniVersion":"1.0.0","name":"ranged","plugins":[{"type":"bridge","capabilities":{"ipRanges":true}}]}`

// ipRanges is what plugins of the node's network would be told of its ranges.
func (n *node) ipRanges(t *testing.T) string {
	t.Helper()
	p, err := n.Plan(Attachment{ID: "x"})
	must(t, err)
	return string(p.capabilities[capabilityIPRanges])
}

// again is the node after a restart of the daemon.
func (n *node) again(t *testing.T) *node {
	t.Helper()
	m, err := New(Config{ConfDir: n.conf, BinDirs: []string{n.bin, pluginDir}, CacheDir: n.cache})
	must(t, err)
	return &node{conf: n.conf, bin: n.bin, cache: n.cache, Networks: m}
}

func TestPodCIDR(t *testing.T) {
	n := newNode(t)
	n.write(t, "10.conflist", ranged)
	if got := n.ipRanges(t); got != "" {
		t.Errorf("before it was told: %s", got)
	}
	for _, c := range []struct{ told, cidr, ranges string }{
		{"10.1.0.0/24", "10.1.0.0/24", `[[{"subnet":"10.1.0.0/24"}]]`},
		{"10.1.2.3/24, fd00:1::1/64", "10.1.2.0/24,fd00:1::/64", `[[{"subnet":"10.1.2.0/24"}],[{"subnet":"fd00:1::/64"}]]`},
		{"fd00:1::/64", "fd00:1::/64", `[[{"subnet":"fd00:1::/64"}]]`},
	} {
		must(t, n.SetPodCIDR(c.told))
		for _, n := range []*node{n, n.again(t)} {
			if n.PodCIDR() != c.cidr || n.ipRanges(t) != c.ranges {
				t.Errorf("told %q: %q, %s; want %q, %s", c.told, n.PodCIDR(), n.ipRanges(t), c.cidr, c.ranges)
			}
		}
	}
	for _, bad := range []string{"", ",", "10.1.0.0", "10.1.0.0/33", "10.1.0.0/24,", "10.1.0.0/24 fd00::/64", strings.Repeat("10.1.0.0/24,", 100) + "10.1.0.0/24"} {
		if err := n.SetPodCIDR(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if n.PodCIDR() != "fd00:1::/64" {
		t.Errorf("pod CIDR %q after it was refused", n.PodCIDR())
	}
	// A plan that was made before it changed is what it was.
	n.write(t, "10.conflist", named("x"))
	if got := n.ipRanges(t); got != "" {
		t.Errorf("a plugin that declares nothing is told %s", got)
	}
	files, err := os.ReadDir(n.cache)
	must(t, err)
	if st, err := os.Stat(filepath.Join(n.cache, podCIDRFile)); err != nil || st.Mode().Perm() != 0o600 || len(files) != 1 {
		t.Errorf("files %v, %v", files, err)
	}
}

// TestPodCIDRIsDamaged: only a network that needs it is unusable for that.
func TestPodCIDRIsDamaged(t *testing.T) {
	n := newNode(t)
	n.write(t, "10.conflist", ranged)
	must(t, n.SetPodCIDR("10.1.0.0/24"))
	must(t, os.WriteFile(filepath.Join(n.cache, podCIDRFile), []byte("10.1.0"), 0o600))
	n = n.again(t)
	if err := n.Status(t.Context()); !errors.Is(err, ErrNoNetwork) || !strings.Contains(err.Error(), "restart the kubelet") {
		t.Errorf("Status: %v", err)
	}
	n.write(t, "05.conflist", named("x"))
	must(t, n.Status(t.Context()))
	must(t, os.Remove(filepath.Join(n.conf, "05.conflist")))
	must(t, n.SetPodCIDR("10.1.0.0/24"))
	must(t, n.Status(t.Context()))
}

func FuzzPodCIDR(f *testing.F) {
	f.Add("10.1.0.0/24,fd00::/64")
	f.Add("::ffff:10.0.0.0/120")
	f.Fuzz(func(t *testing.T, text string) {
		ranges, err := parsePodCIDR(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error %v is not ErrInvalid", err)
			}
			return
		}
		kept := joinCIDR(ranges)
		again, err := parsePodCIDR(kept)
		if err != nil || joinCIDR(again) != kept {
			t.Fatalf("%q is kept as %q and read back as %q, %v", text, kept, joinCIDR(again), err)
		}
	})
}
