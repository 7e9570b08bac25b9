package docker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// procFS is where processes are found: /proc if it is empty, and elsewhere in
// tests.
type procFS string

// file is the name of a process's file.
func (p procFS) file(process, name string) string {
	root := string(p)
	if root == "" {
		root = "/proc"
	}
	return filepath.Join(root, process, name)
}

// errEnded says that a process is gone, or is no longer the container's.
var errEnded = errors.New("the container's process has ended")

// errCgroupUnseen says that a container's cgroup is none that can be reached.
var errCgroupUnseen = status.Error(codes.FailedPrecondition,
	"the container's cgroup cannot be seen from here: run crimux in the node's own cgroup namespace, with the node's /sys/fs/cgroup")

// containerCgroup is where a container's cgroups are.
type containerCgroup struct {
	// v2 is the folder in the cgroup v2 tree, hugetlb that in the v1 tree of
	// that controller, any is one that surely is the container's; empty where
	// there is none.
	v2, hugetlb, any string
}

// cgroupOf finds the cgroups of the container id, to which the process belongs.
func (p procFS) cgroupOf(pid int, id string) (containerCgroup, error) {
	var out containerCgroup
	b, err := os.ReadFile(p.file(strconv.Itoa(pid), "cgroup"))
	if gone(err) {
		return out, errEnded
	}
	if err != nil {
		return out, fmt.Errorf("cgroup of process %d: %w", pid, err)
	}
	mounts, err := p.cgroupMounts()
	if err != nil {
		return out, err
	}
	named := false
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		_, rest, _ := strings.Cut(lines.Text(), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		named = named || ok && id != "" && strings.Contains(path, id)
		if path = upTo(path, id); !ok || path == "" {
			continue
		}
		dir := mounts.dir(controllers, path)
		if dir == "" {
			continue
		}
		out.any = dir
		switch {
		case controllers == "":
			out.v2 = dir
		case slices.Contains(strings.Split(controllers, ","), "hugetlb"):
			out.hugetlb = dir
		}
	}
	switch {
	case out.any != "":
		return out, nil
	case named:
		return out, errCgroupUnseen
	}
	return out, errEnded
}

// upTo cuts a path behind the element that has the container's id in it: what
// lies below, the container made itself. It is "" if there is no such element.
func upTo(path, id string) string {
	at := strings.Index(path, id)
	if id == "" || at < 0 || strings.Contains(path+"/", "/../") {
		return ""
	}
	if end := strings.IndexByte(path[at:], '/'); end >= 0 {
		return path[:at+end]
	}
	return path
}

// gone reports whether a file is missing because its process is.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// cgroupMounts are the cgroup trees of the node.
type cgroupMounts []*mountinfo.Info

func (p procFS) cgroupMounts() (cgroupMounts, error) {
	f, err := os.Open(p.file("self", "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("cgroup trees: %w", err)
	}
	defer f.Close()
	all, err := mountinfo.GetMountsFromReader(f, mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("cgroup trees: %w", err)
	}
	return all, nil
}

// dir is the folder of a cgroup in the tree of its controllers, "" being
// those of cgroup v2; "" if it cannot be seen from here.
func (m cgroupMounts) dir(controllers, path string) string {
	for _, mount := range m {
		if controllers == "" != (mount.FSType == "cgroup2") {
			continue
		}
		if controllers != "" && !sameTree(mount.VFSOptions, controllers) {
			continue
		}
		// A mount may show only part of the tree.
		below, ok := strings.CutPrefix(path, strings.TrimSuffix(mount.Root, "/"))
		if !ok {
			continue
		}
		dir := filepath.Join(mount.Mountpoint, below)
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
	}
	return ""
}

// sameTree reports whether a mount's options name all the controllers.
func sameTree(options, controllers string) bool {
	have := strings.Split(options, ",")
	for c := range strings.SplitSeq(controllers, ",") {
		if !slices.Contains(have, c) {
			return false
		}
	}
	return true
}
