package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

const nsfs = "nsfs"

// mounts are the mount points below the lab's folder, in the order they were made.
func (s site) mounts() ([]*mountinfo.Info, error) {
	out, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(m.Mountpoint, s.dir+"/"), false
	})
	if err != nil {
		return nil, fmt.Errorf("list the lab's mounts: %w", err)
	}
	return out, nil
}

// structural tells the mounts that an engine keeps for itself as long as it lives from those of containers.
func (s site) structural(m *mountinfo.Info) bool {
	return m.Mountpoint == s.path("docker") || m.Mountpoint == s.path("run/docker/netns/default")
}

// unmountAll takes the lab's mounts away one by one, the latest first. It never unmounts recursively: where
// mounts are shared that would take along what others mounted.
func (s site) unmountAll() error {
	mounts, err := s.mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}

// netnsMounts are the named network namespaces of the lab's engines, which are in its folder, and those at the
// place where "ip netns" and others that all share the machine keep theirs.
func netnsMounts(s site) ([]string, error) {
	places := []string{s.dir + "/", "/run/netns/", "/var/run/netns/"}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter(nsfs))
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var out []string
	for _, m := range mounts {
		at := func(place string) bool { return strings.HasPrefix(m.Mountpoint, place) }
		if slices.ContainsFunc(places, at) && !s.structural(m) {
			out = append(out, m.Mountpoint)
		}
	}
	return out, nil
}

// removeShimSockets removes the sockets of the lab's shims that lie outside its folder: containerd 1.x has
// them in /run/containerd/s and notes the path in the container's bundle.
func (s site) removeShimSockets() error {
	var errs []error
	for _, pattern := range []string{"run/cri/*/*/*/address", "run/docker/containerd/*/*/*/*/address", "run/docker/containerd/*/*/*/address"} {
		notes, err := filepath.Glob(s.path(pattern))
		if err != nil {
			return fmt.Errorf("look for shims' sockets: %w", err)
		}
		for _, n := range notes {
			b, err := os.ReadFile(n)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			sock, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "unix://")
			if !ok || filepath.Dir(sock) != "/run/containerd/s" {
				continue
			}
			if err := os.Remove(sock); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
