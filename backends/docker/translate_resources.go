package docker

import (
	"github.com/docker/docker/api/types/container"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// translateResources carries over linux resources: what the Engine has words
// for, and what is to be written to the cgroup. oom_score_adj is no resource
// to the Engine: see oomScore.
func translateResources(field string, r *runtimeapi.LinuxContainerResources, f *facts, n nodeOptions) (container.Resources, cgroupSettings, error) {
	settings, err := translateCgroup(field, r, f)
	if err != nil {
		return container.Resources{}, settings, err
	}
	for _, v := range []struct {
		field string
		value int64
	}{
		{"cpu_period", r.GetCpuPeriod()}, {"cpu_shares", r.GetCpuShares()}, {"memory_limit_in_bytes", r.GetMemoryLimitInBytes()},
	} {
		if v.value < 0 {
			return container.Resources{}, settings, invalid(field+"."+v.field, "%d is negative", v.value)
		}
	}
	if err := checkPageSizes(field, r.GetHugepageLimits(), n.pageSizes); err != nil {
		return container.Resources{}, settings, err
	}
	if err := checkLimits(field, r, f); err != nil {
		return container.Resources{}, settings, err
	}
	swap, err := swapLimit(field, r)
	if err != nil {
		return container.Resources{}, settings, err
	}
	return container.Resources{
		CPUPeriod: r.GetCpuPeriod(), CPUQuota: r.GetCpuQuota(), CPUShares: r.GetCpuShares(),
		Memory: r.GetMemoryLimitInBytes(), MemorySwap: swap,
		CpusetCpus: r.GetCpusetCpus(), CpusetMems: r.GetCpusetMems(),
	}, settings, nil
}

// checkLimits refuses limits that the kernel does not know.
func checkLimits(field string, r *runtimeapi.LinuxContainerResources, f *facts) error {
	for _, l := range []struct {
		name  string
		asked bool
	}{
		{"memory_limit_in_bytes", r.GetMemoryLimitInBytes() > 0}, {"memory_swap_limit_in_bytes", r.GetMemorySwapLimitInBytes() > 0},
		{"cpu_quota", r.GetCpuQuota() > 0}, {"cpuset_cpus", r.GetCpusetCpus() != ""}, {"cpuset_mems", r.GetCpusetMems() != ""},
	} {
		if l.asked && f.lacks[l.name] {
			return refused(field+"."+l.name, "the kernel of this node cannot limit that, or its cgroup controller is not mounted")
		}
	}
	return nil
}

// swapLimit is memory and swap together. Where none is asked for, it is the
// memory limit: left alone, the Engine would give as much swap again.
func swapLimit(field string, r *runtimeapi.LinuxContainerResources) (int64, error) {
	memory, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	switch {
	case swap == 0:
		return memory, nil
	case memory == 0 && swap != -1:
		return 0, refused(field+".memory_swap_limit_in_bytes", "the docker engine limits swap only together with memory")
	case swap != -1 && swap < memory:
		return 0, invalid(field+".memory_swap_limit_in_bytes", "%d is less than the memory limit %d, which it includes", swap, memory)
	}
	return swap, nil
}

// oomScore is the oom_score_adj, not below what can be set on this node.
func oomScore(field string, adj int64, floor int) (int, error) {
	if adj < -1000 || adj > 1000 {
		return 0, invalid(field, "%d is not between -1000 and 1000", adj)
	}
	return max(int(adj), floor), nil
}
