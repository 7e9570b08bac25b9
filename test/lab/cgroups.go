package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// containerFolders are where engines keep a folder for each container, named by its id.
var containerFolders = []string{
	"docker/containers/*",
	"containerd/io.containerd.grpc.v1.cri/containers/*",
	"containerd/io.containerd.grpc.v1.cri/sandboxes/*",
	"run/cri/io.containerd.runtime.v2.task/*/*",
	"run/docker/containerd/daemon/io.containerd.runtime.v2.task/*/*",
}

// removeCgroups removes the cgroups of containers that were killed: without an engine nobody else does it.
func (s site) removeCgroups() error {
	ids := map[string]bool{}
	for _, pattern := range containerFolders {
		found, err := filepath.Glob(s.path(pattern))
		if err != nil {
			return fmt.Errorf("look for containers' cgroups: %w", err)
		}
		for _, f := range found {
			ids[filepath.Base(f)] = true
		}
	}
	if len(ids) == 0 {
		return nil
	}
	dirs, err := cgroupsNamed(ids)
	if err != nil {
		return fmt.Errorf("look for containers' cgroups: %w", err)
	}
	var errs []error
	// A container's own cgroups lie below its cgroup and come after it.
	for _, d := range slices.Backward(dirs) {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", d, err))
		}
	}
	return errors.Join(errs...)
}

// cgroupsNamed finds the cgroups that have one of the names, and all below them, outermost first.
func cgroupsNamed(names map[string]bool) ([]string, error) {
	var out []string
	inside := func(dir string) bool { return len(out) > 0 && slices.Contains(out, dir) }
	err := filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		// Cgroups come and go while this looks.
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() && (names[d.Name()] || inside(filepath.Dir(p))) {
			out = append(out, p)
		}
		return nil
	})
	return out, err
}
