package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends/docker/cgroups"
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
	trees, err := p.cgroupTrees()
	if err != nil {
		return out, err
	}
	named := false
	cgroups.Each(b, func(controllers []string, path string) {
		named = named || id != "" && strings.Contains(path, id)
		if path, ok := cgroups.Of(path, id); ok {
			out.add(trees, controllers, path)
		}
	})
	switch {
	case out.any != "":
		return out, nil
	case named:
		return out, errCgroupUnseen
	}
	return out, errEnded
}

// add notes the container's cgroup in the hierarchy of some controllers, where
// it can be seen.
func (c *containerCgroup) add(trees *cgroups.Trees, controllers []string, path string) {
	dir := ""
	if len(controllers) == 0 {
		dir = trees.V2(path)
	} else {
		dir = trees.V1(controllers[0], path)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return
	}
	c.any = dir
	switch {
	case len(controllers) == 0:
		c.v2 = dir
	case slices.Contains(controllers, "hugetlb"):
		c.hugetlb = dir
	}
}

func (p procFS) cgroupTrees() (*cgroups.Trees, error) {
	b, err := os.ReadFile(p.file("self", "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	return cgroups.Mounted(b, "")
}

// gone reports whether a file is missing because its process is.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}
