package stats

import (
	"fmt"

	"github.com/crimux/crimux/backends/docker/cgroups"
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

// findTrees looks the mounted hierarchies up, once.
func (p *Pass) findTrees() (*cgroups.Trees, error) {
	if p.r.trees != nil {
		return p.r.trees, nil
	}
	b, err := p.read(p.r.root, "proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	p.r.trees, err = cgroups.Mounted(b, p.r.root)
	return p.r.trees, err
}
