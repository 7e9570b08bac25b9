package lab

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// basePrefix begins the name of every lab folder. Folders are short because a unix socket's path has room for
// 108 bytes, and because the folder's name is also the name of the bridge, which has room for 15.
const basePrefix = "cl-"

// labRoot is where lab folders live.
const labRoot = "/tmp"

// site is where a lab lives: all that is needed to find and remove what belongs to it, alive or not.
type site struct {
	dir  string // /tmp/cl-N
	name string // cl-N: also the bridge and the CNI network
}

func siteAt(dir string) site { return site{dir: dir, name: filepath.Base(dir)} }

func (s site) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// newSite makes a lab folder and writes down whose it is.
func newSite() (site, error) {
	dir, err := os.MkdirTemp(labRoot, basePrefix)
	if err != nil {
		return site{}, fmt.Errorf("make the lab folder: %w", err)
	}
	s := siteAt(dir)
	// Containers that run as other users reach their files through this folder.
	if err := os.Chmod(dir, 0o755); err != nil {
		return s, fmt.Errorf("open up the lab folder: %w", err)
	}
	if err := s.writeOwner(); err != nil {
		return s, err
	}
	for _, d := range []string{"logs", "run", "run/cri", "run/docker", "cni/net.d", "cni/ipam", "cni/cache", "certs.d", "docker", "containerd", "opt"} {
		if err := os.MkdirAll(s.path(d), 0o755); err != nil {
			return s, fmt.Errorf("make the lab folder: %w", err)
		}
	}
	return s, nil
}

// ownerStart is when process pid started, in clock ticks since boot: with the pid it names a process for good.
func ownerStart(pid int) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	// The command may hold blanks and parentheses; the fields after its last ")" are plain.
	_, rest, _ := cutLast(string(b), ")")
	f := strings.Fields(rest)
	if len(f) < 20 {
		return "", fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	return f[19], nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (s site) writeOwner() error {
	start, err := ownerStart(os.Getpid())
	if err != nil {
		return fmt.Errorf("note the lab's owner: %w", err)
	}
	return os.WriteFile(s.path("owner"), []byte(fmt.Sprintf("%d %s\n", os.Getpid(), start)), 0o644)
}

// pickSubnet derives a /24 below 10.64.0.0/10 from the lab's name and moves on while the machine has a route
// or an address that overlaps with it.
func (s site) pickSubnet() (netip.Prefix, error) {
	taken, err := takenPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	const slots = 1 << 14
	sum := sha256.Sum256([]byte(s.name))
	first := binary.BigEndian.Uint32(sum[:4])
	for i := range uint32(slots) {
		n := (first + i) % slots
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + n>>8), byte(n), 0}), 24)
		if !overlapsAny(p, taken) {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("no free subnet below 10.64.0.0/10; remove routes to it")
}

func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if t.Overlaps(p) {
			return true
		}
	}
	return false
}

// takenPrefixes are the IPv4 networks the machine reaches other than by its default route.
func takenPrefixes() ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the machine's routes: %w", err)
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		ones, _ := r.Dst.Mask.Size()
		if ok && ones > 0 {
			out = append(out, netip.PrefixFrom(addr, ones))
		}
	}
	return out, nil
}
