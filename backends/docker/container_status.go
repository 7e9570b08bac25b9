package docker

import (
	"context"
	"time"

	"github.com/docker/docker/api/types/container"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Why a container is not running, in the kubelet's words.
const (
	reasonCompleted   = "Completed"
	reasonError       = "Error"
	reasonOOMKilled   = "OOMKilled"
	reasonCannotRun   = "ContainerCannotRun"
	containerIDLen    = 64
	drainBeforeStatus = 2 * time.Second
)

// ContainerStatus implements the RuntimeService.
func (s *server) ContainerStatus(ctx context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	f, err := s.seen(ctx, typeContainer, "container_id", r.GetContainerId())
	if err != nil {
		return nil, err
	}
	if f.criState() == runtimeapi.ContainerState_CONTAINER_EXITED {
		// Who is told that a container has ended reads its log next.
		s.logs.complete(ctx, f, drainBeforeStatus)
	}
	out := &runtimeapi.ContainerStatusResponse{Status: f.criStatus()}
	if r.GetVerbose() {
		info, err := verboseContainer(f)
		if err != nil {
			return nil, err
		}
		out.Info = info
	}
	return out, nil
}

// criStatus is the container as the CRI sees it.
func (f *found) criStatus() *runtimeapi.ContainerStatus {
	st := &runtimeapi.ContainerStatus{
		Id: f.ID, Metadata: &runtimeapi.ContainerMetadata{Name: f.container, Attempt: f.attempt},
		State: f.criState(), CreatedAt: f.createdAtNanos(),
		Image: f.imageSpec(f.Config.Image), ImageRef: f.Image, ImageId: f.Image,
		Labels: f.labels, Annotations: f.annotations, LogPath: f.logPath,
		Mounts: criMounts(f.HostConfig), Resources: f.resources(),
		StopSignal: stopSignal(f.Config.StopSignal), User: f.user,
	}
	started, finished := engineTime(f.State.StartedAt), engineTime(f.State.FinishedAt)
	switch st.State {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		st.StartedAt = nanos(started)
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		st.ExitCode, st.Message = int32(f.State.ExitCode), f.State.Error
		st.Reason = f.reason()
		st.StartedAt, st.FinishedAt = nanos(started), nanos(finished)
		if finished.IsZero() {
			// It never ran; the kubelet needs times to go by.
			st.StartedAt, st.FinishedAt = st.CreatedAt, st.CreatedAt
		}
	}
	return st
}

// criState is the state. The Engine shows a container whose start failed as
// created, with an exit code; to the CRI it has ended.
func (f *found) criState() runtimeapi.ContainerState {
	switch {
	case f.State.Running:
		return runtimeapi.ContainerState_CONTAINER_RUNNING
	case f.State.Status == container.StateCreated && f.State.ExitCode == 0 && engineTime(f.State.StartedAt).IsZero():
		return runtimeapi.ContainerState_CONTAINER_CREATED
	}
	return runtimeapi.ContainerState_CONTAINER_EXITED
}

// reason is why an ended container has ended.
func (f *found) reason() string {
	switch {
	case f.State.OOMKilled:
		return reasonOOMKilled
	case engineTime(f.State.StartedAt).IsZero():
		return reasonCannotRun
	case f.State.ExitCode == 0:
		return reasonCompleted
	}
	return reasonError
}

// imageSpec is the image as it was asked for; engine is what the Engine says,
// for containers that are not ours.
func (o object) imageSpec(engine string) *runtimeapi.ImageSpec {
	if o.image != "" {
		return &runtimeapi.ImageSpec{Image: o.image}
	}
	return &runtimeapi.ImageSpec{Image: engine}
}

// resources are the limits that the container has now.
func (f *found) resources() *runtimeapi.ContainerResources {
	r := f.HostConfig.Resources
	return &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{
		CpuPeriod: r.CPUPeriod, CpuQuota: r.CPUQuota, CpuShares: r.CPUShares,
		MemoryLimitInBytes: r.Memory, MemorySwapLimitInBytes: r.MemorySwap,
		CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems, OomScoreAdj: int64(f.HostConfig.OomScoreAdj),
	}}
}
