package docker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 and other runtimes keep named network namespaces.
const netnsDir = "/run/netns"

// namespaces keep the pods' network namespaces. A namespace of a process goes
// with the process, and with it what a plugin needs for its DEL: the bridge
// plugin for one then leaves its NAT rules behind. So each namespace is bound
// to a name, by which it outlives an infra container that dies before its pod
// is stopped.
type namespaces interface {
	// pin keeps the namespace of a process under the sandbox's id.
	pin(id string, pid int) (path string, err error)
	// find returns the path of a pinned namespace; "" if there is none.
	find(id string) (path string)
	// unpin lets go of it; that there is none is as good.
	unpin(id string) error
}

// pins are bind mounts in a folder.
type pins struct{ dir string }

func (p pins) file(id string) string { return filepath.Join(p.dir, "crimux-"+id) }

func (p pins) pin(id string, pid int) (string, error) {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return "", fmt.Errorf("keep the network namespace: %w", err)
	}
	file := p.file(id)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return "", fmt.Errorf("keep the network namespace: %w", err)
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("keep the network namespace: %w", err)
	}
	if err := unix.Mount(netnsOf(pid), file, "", unix.MS_BIND, ""); err != nil {
		return "", errors.Join(fmt.Errorf("keep the network namespace: mount %s: %w", file, err), os.Remove(file))
	}
	return file, nil
}

func (p pins) find(id string) string {
	var st unix.Statfs_t
	// Only what is mounted there is a namespace: after a reboot or a crash it
	// may be an empty file.
	if err := unix.Statfs(p.file(id), &st); err != nil || st.Type != unix.NSFS_MAGIC {
		return ""
	}
	return p.file(id)
}

func (p pins) unpin(id string) error {
	file := p.file(id)
	// Until nothing is mounted there: a crash may have led to a second one.
	var err error
	for err == nil {
		err = unix.Unmount(file, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("let go of the network namespace: unmount %s: %w", file, err)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("let go of the network namespace: %w", err)
	}
	return nil
}

// netnsOf is the path of the network namespace of a process; empty for none.
func netnsOf(pid int) string {
	if pid <= 0 {
		return ""
	}
	return fmt.Sprintf("/proc/%d/ns/net", pid)
}
