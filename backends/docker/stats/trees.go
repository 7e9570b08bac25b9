package stats

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// controller is one of cgroup v1's controllers.
type controller int

const (
	cpu controller = iota
	cpuacct
	memory
	pids
	blkio
	hugetlb
	controllers
)

var controllerNames = [controllers]string{"cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb"}

// tree is a mounted hierarchy of cgroups.
type tree struct {
	// point is where it is mounted, root which cgroup of it.
	point, root string
}

// dir is the folder of the cgroup path.
func (t tree) dir(path string) string {
	rel, err := filepath.Rel(t.root, path)
	if err != nil || t.point == "" || rel == ".." || strings.HasPrefix(rel, "../") {
		return ""
	}
	return filepath.Join(t.point, rel)
}

// trees are the mounted hierarchies. A controller is in v1, or else in v2.
type trees struct {
	v1 [controllers]tree
	v2 tree
}

// findTrees looks the hierarchies up, once.
func (p *Pass) findTrees() (*trees, error) {
	if p.r.trees != nil {
		return p.r.trees, nil
	}
	b, err := p.read(p.r.root, "proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	mounts, err := mountinfo.GetMountsFromReader(bytes.NewReader(b), mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	if len(mounts) == 0 {
		return nil, fmt.Errorf("find the cgroup hierarchies: none is mounted: mount cgroup2 on /sys/fs/cgroup")
	}
	t := &trees{}
	for _, m := range mounts {
		found := tree{point: filepath.Join(p.r.root, m.Mountpoint), root: m.Root}
		if m.FSType == "cgroup2" {
			t.v2.prefer(found)
			continue
		}
		has := strings.Split(m.VFSOptions, ",")
		for c, name := range controllerNames {
			if slices.Contains(has, name) {
				t.v1[c].prefer(found)
			}
		}
	}
	p.r.trees = t
	return t, nil
}

// prefer takes the mount of a whole hierarchy over one of a part of it.
func (t *tree) prefer(found tree) {
	if t.point == "" || t.root != "/" && found.root == "/" {
		*t = found
	}
}
