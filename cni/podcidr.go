package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// podCIDRFile is where the node's pod CIDR is kept, in the cache directory
// beside what libcni keeps there.
const podCIDRFile = "crimux-pod-cidr"

// maxPodCIDR bounds what is read of that file, and taken from a caller.
const maxPodCIDR = 1024

// podCIDR is the node's pod CIDR. A kubelet tells it once and then only when
// it changes, so it has to outlive the daemon.
type podCIDR struct {
	dir string

	mu     sync.Mutex
	ranges []netip.Prefix
	err    error // why what is kept cannot be read
}

func newPodCIDR(dir string) *podCIDR {
	c := &podCIDR{dir: dir}
	c.ranges, c.err = c.read()
	return c
}

// read reads what is kept; none where nothing is.
func (c *podCIDR) read() ([]netip.Prefix, error) {
	path := filepath.Join(c.dir, podCIDRFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		var ranges []netip.Prefix
		if ranges, err = parsePodCIDR(strings.TrimSuffix(string(b), "\n")); err == nil {
			return ranges, nil
		}
	}
	return nil, fmt.Errorf("the node's pod CIDR in %s cannot be read: restart the kubelet, which tells it again: %w", path, err)
}

// get returns the ranges, none if no kubelet ever told them.
func (c *podCIDR) get() ([]netip.Prefix, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ranges, c.err
}

// set keeps the ranges: they are on disk when it returns.
func (c *podCIDR) set(text string) error {
	ranges, err := parsePodCIDR(text)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && joinCIDR(ranges) == joinCIDR(c.ranges) {
		return nil
	}
	if err := c.write(joinCIDR(ranges) + "\n"); err != nil {
		return fmt.Errorf("keep the pod CIDR: %w", err)
	}
	c.ranges, c.err = ranges, nil
	return nil
}

// write replaces the file as a whole.
func (c *podCIDR) write(text string) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, "."+podCIDRFile+"-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(c.dir, podCIDRFile))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// parsePodCIDR reads "10.1.0.0/24" or, of a dual-stack node,
// "10.1.0.0/24,fd00:1::/64".
func parsePodCIDR(text string) ([]netip.Prefix, error) {
	if len(text) > maxPodCIDR {
		return nil, fmt.Errorf("%w: a pod CIDR of %d bytes", ErrInvalid, len(text))
	}
	var out []netip.Prefix
	for _, part := range strings.Split(text, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%w: pod CIDR %q: want one like 10.1.0.0/24, or two separated by a comma: %w", ErrInvalid, text, err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// joinCIDR is the text of ranges.
func joinCIDR(ranges []netip.Prefix) string {
	var out []string
	for _, r := range ranges {
		out = append(out, r.String())
	}
	return strings.Join(out, ",")
}
