// Package cgroups finds where on the node the cgroups of a container are: from
// what the kernel says of its process and of what is mounted. It reads nothing
// by itself.
package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// errNoTree says that the node has no cgroups that can be seen.
var errNoTree = errors.New("no cgroup hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup")

// Trees are the hierarchies of cgroups that are mounted.
type Trees struct {
	v2 tree
	// v1 are those of cgroup v1 by the controllers that are in them.
	v1 map[string]tree
}

// tree is a mounted hierarchy.
type tree struct {
	// point is where it is mounted, root which cgroup of it.
	point, root string
}

// Mounted returns the hierarchies that a mount table tells of, in the form of
// /proc/PID/mountinfo. Their folders begin with root. An error says that there
// are none, or that the table cannot be read.
func Mounted(table []byte, root string) (*Trees, error) {
	mounts, err := mountinfo.GetMountsFromReader(bytes.NewReader(table), mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	if len(mounts) == 0 {
		return nil, errNoTree
	}
	t := &Trees{v1: map[string]tree{}}
	for _, m := range mounts {
		found := tree{point: filepath.Join(root, m.Mountpoint), root: m.Root}
		if m.FSType == "cgroup2" {
			t.v2 = t.v2.or(found)
			continue
		}
		for controller := range strings.SplitSeq(m.VFSOptions, ",") {
			t.v1[controller] = t.v1[controller].or(found)
		}
	}
	return t, nil
}

// or takes the mount of a whole hierarchy over one of a part of it.
func (t tree) or(found tree) tree {
	if t.point == "" || t.root != "/" && found.root == "/" {
		return found
	}
	return t
}

// dir is the folder of a cgroup, "" where the mount does not show it.
func (t tree) dir(path string) string {
	rel, err := filepath.Rel(t.root, path)
	if err != nil || t.point == "" || rel == ".." || strings.HasPrefix(rel, "../") {
		return ""
	}
	return filepath.Join(t.point, rel)
}

// V2 is the folder of a cgroup in the hierarchy of cgroup v2, "" where it
// cannot be seen. That it exists is not looked at.
func (t *Trees) V2(path string) string { return t.v2.dir(path) }

// V1 is the folder of a cgroup in the cgroup v1 hierarchy of a controller.
func (t *Trees) V1(controller, path string) string { return t.v1[controller].dir(path) }

// Each goes through the cgroups of a process, as /proc/PID/cgroup has them. No
// controllers means cgroup v2.
func Each(b []byte, do func(controllers []string, path string)) {
	for line := range bytes.Lines(b) {
		_, rest, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(":"))
		if !ok {
			continue
		}
		names, path, ok := bytes.Cut(rest, []byte(":"))
		if !ok {
			continue
		}
		var controllers []string
		if len(names) > 0 {
			controllers = strings.Split(string(names), ",")
		}
		do(controllers, string(path))
	}
}

// Of cuts a path behind the element that has a container's id in it: what lies
// below, the container made itself. ok is false where no element has it, and
// for paths that lead out of what can be seen.
func Of(path, id string) (cgroup string, ok bool) {
	at := strings.Index(path, id)
	if id == "" || at < 0 || strings.Contains(path+"/", "/../") {
		return "", false
	}
	if end := strings.IndexByte(path[at:], '/'); end >= 0 {
		return path[:at+end], true
	}
	return path, true
}
