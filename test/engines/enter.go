package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// enter makes the job's root this mount namespace's. Everything is private first, so that nothing that is mounted
// or unmounted here is so on the machine; the machine's /sys is let go in one with the old root for the same
// reason.
func (j job) enter() error {
	steps := []struct {
		what           string
		from, to, kind string
		flags          uintptr
	}{
		{"part from the machine's mounts", "", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"make the root a mount", j.Root, j.Root, "", unix.MS_BIND},
		{"mount /proc", "proc", j.at("/proc"), "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"show /sys", "/sys", j.at("/sys"), "", unix.MS_BIND | unix.MS_REC},
		{"show /dev", "/dev", j.at("/dev"), "", unix.MS_BIND | unix.MS_REC},
		{"mount /run", "run", j.at("/run"), "tmpfs", 0},
		{"mount /mnt", "mnt", j.at("/mnt"), "tmpfs", 0},
	}
	for _, s := range steps {
		if err := unix.Mount(s.from, s.to, s.kind, s.flags, ""); err != nil {
			return fmt.Errorf("enter %s: %s: %w", j.Root, s.what, err)
		}
	}
	for to, from := range map[string]string{moduleAt: j.Module, binAt: j.Bin, cacheAt + "/" + filepath.Base(j.LabCache): j.LabCache} {
		if err := j.show(from, to); err != nil {
			return fmt.Errorf("enter %s: show %s: %w", j.Root, from, err)
		}
	}
	if err := j.nameNobody(); err != nil {
		return fmt.Errorf("enter %s: %w", j.Root, err)
	}
	return j.pivot()
}

func (j job) at(path string) string { return filepath.Join(j.Root, path) }

func (j job) show(from, to string) error {
	if err := os.MkdirAll(j.at(to), 0o755); err != nil {
		return err
	}
	return unix.Mount(from, j.at(to), "", unix.MS_BIND, "")
}

// nameNobody has every name looked up at a port where nobody listens: no answer at all would be waited for.
func (j job) nameNobody() error {
	file := j.at("/run/resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		return err
	}
	return unix.Mount(file, j.at("/etc/resolv.conf"), "", unix.MS_BIND, "")
}

// pivot swaps the roots in place: the old one then lies on top of the new, and is let go.
func (j job) pivot() error {
	if err := os.Chdir(j.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("enter %s: %w", j.Root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the machine's root: %w", err)
	}
	return os.Chdir("/")
}

// makeNetwork gives the namespace loopback and an address that is not, which some tests dial. The kernel may have
// no dummy links; both ends of a pair do as well.
func makeNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("make the suite's network: %w", err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "engines0"}, PeerName: "engines1"}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make the suite's network: %w", err)
	}
	peer, err := netlink.LinkByName(veth.PeerName)
	if err != nil {
		return fmt.Errorf("make the suite's network: %w", err)
	}
	// An address that is for documentation, so no machine's.
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 51, 100, 1), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(veth, addr); err != nil {
		return fmt.Errorf("make the suite's network: %w", err)
	}
	for _, l := range []netlink.Link{lo, veth, peer} {
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("make the suite's network: %w", err)
		}
	}
	return nil
}
