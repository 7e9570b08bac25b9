package docker

import (
	"context"
	"errors"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdateContainerResources implements the RuntimeService. What is 0 or empty
// stays as it is. annotations change nothing.
func (s *server) UpdateContainerResources(ctx context.Context, r *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	if r.GetWindows() != nil {
		return nil, refused("windows", "this is a Linux node")
	}
	if r.GetLinux() == nil {
		return nil, invalid("linux", "is required")
	}
	facts, err := s.currentFacts(ctx, factsAge)
	if err != nil {
		return nil, err
	}
	// The kubelet resizes pods and moves them between processors independently;
	// what one keeps for the other must not be what it was before the other.
	unlock, err := s.locks.lock(ctx, r.GetContainerId())
	if err != nil {
		return nil, s.fail(err, "container %s: wait for another update", r.GetContainerId())
	}
	defer unlock()
	f, err := s.lookUp(ctx, typeContainer, "container_id", r.GetContainerId())
	if err != nil {
		return nil, err
	}
	u, err := translateUpdate(r.GetLinux(), f, facts, s.node)
	if err != nil {
		return nil, err
	}
	if err := s.update(ctx, f, u); err != nil {
		return nil, err
	}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// update is an UpdateContainerResources in terms of the Engine and the kernel.
type update struct {
	resources container.Resources
	settings  cgroupSettings
	// score is the new oom_score_adj; nil leaves it.
	score *int
}

// translateUpdate is a pure function of its arguments.
func translateUpdate(r *runtimeapi.LinuxContainerResources, f *found, facts *facts, n nodeOptions) (u update, err error) {
	if r.GetMemoryLimitInBytes() == 0 && r.GetMemorySwapLimitInBytes() != 0 {
		// Swap is limited together with memory, whose limit stays.
		r = &runtimeapi.LinuxContainerResources{
			CpuPeriod: r.CpuPeriod, CpuQuota: r.CpuQuota, CpuShares: r.CpuShares, OomScoreAdj: r.OomScoreAdj,
			MemoryLimitInBytes: f.HostConfig.Memory, MemorySwapLimitInBytes: r.MemorySwapLimitInBytes,
			CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems, HugepageLimits: r.HugepageLimits, Unified: r.Unified,
		}
	}
	if u.resources, u.settings, err = translateResources("linux", r, facts, n); err != nil {
		return u, err
	}
	score, err := oomScore("linux.oom_score_adj", r.GetOomScoreAdj(), n.oomFloor)
	if err != nil {
		return u, err
	}
	// Of a container that does not run, nothing but its creation decides.
	if r.GetOomScoreAdj() != 0 && (f.State.Running || score != f.HostConfig.OomScoreAdj) {
		u.score = &score
	}
	return u, nil
}

// beyondEngine reports whether the update asks for what only we can do.
func (u update) beyondEngine(f *found) bool {
	return u.settings.asked() || u.score != nil && *u.score != f.HostConfig.OomScoreAdj
}

// update carries it out. The Engine comes first: it is the one that refuses.
func (s *server) update(ctx context.Context, f *found, u update) error {
	if !f.State.Running {
		if u.score != nil {
			return status.Errorf(codes.FailedPrecondition, "linux.oom_score_adj: container %s does not run, and only running processes have one", f.ID)
		}
		if u.settings.asked() {
			return status.Errorf(codes.FailedPrecondition, "linux.unified and linux.hugepage_limits: container %s does not run and has no cgroup", f.ID)
		}
		return s.updateEngine(ctx, f, u)
	}
	remembered, err := decodeCgroupSettings(f.cgroup)
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	c, err := s.node.proc.cgroupOf(f.State.Pid, f.ID)
	if errors.Is(err, errEnded) || errors.Is(err, errCgroupUnseen) && !u.beyondEngine(f) {
		return s.updateEngine(ctx, f, u)
	}
	if err != nil {
		return s.fail(err, "update container %s", f.ID)
	}
	kept, err := remembered.save(c, u.settings)
	if err != nil {
		return s.fail(err, "update container %s", f.ID)
	}
	if err := s.updateEngine(ctx, f, u); err != nil {
		return err
	}
	errs := []error{kept.restore(c), u.settings.write(c)}
	if u.score != nil {
		errs = append(errs, s.node.proc.setOOMScore(c, *u.score))
	}
	for _, err := range errs {
		if err != nil && !errors.Is(err, errEnded) {
			return s.fail(err, "update container %s", f.ID)
		}
	}
	return nil
}

func (s *server) updateEngine(ctx context.Context, f *found, u update) error {
	_, err := s.engine.ContainerUpdate(ctx, f.ID, container.UpdateConfig{Resources: u.resources})
	s.settled(ctx, f.ID)
	if err != nil {
		return s.fail(err, "update container %s", f.ID)
	}
	return nil
}
