package docker

import (
	"context"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StartContainer implements the RuntimeService. A container starts once: the
// Engine would start an ended one again. So nobody else starts it between the
// look and the start, nor changes its resources before it has those that it was
// made with.
func (s *server) StartContainer(ctx context.Context, r *runtimeapi.StartContainerRequest) (_ *runtimeapi.StartContainerResponse, err error) {
	unlock, err := s.locks.lock(ctx, r.GetContainerId())
	if err != nil {
		return nil, s.fail(err, "start container %s: wait for another call on it", r.GetContainerId())
	}
	defer unlock()
	f, err := s.lookUp(ctx, typeContainer, "container_id", r.GetContainerId())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.late.note(f.ID)
		}
	}()
	switch f.criState() {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		if err := s.engine.ContainerStart(ctx, f.ID, container.StartOptions{}); err != nil {
			s.settled(ctx, f.ID)
			return nil, s.fail(err, "start container %s", f.ID)
		}
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		// An earlier call's start, whose answer did not arrive.
	default:
		return nil, status.Errorf(codes.FailedPrecondition, "container %s has ended: make another", f.ID)
	}
	if err := s.finishStart(ctx, f.ID); err != nil {
		return nil, err
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// finishStart gives a started container all that is not the Engine's. The caller
// holds its lock.
func (s *server) finishStart(ctx context.Context, id string) error {
	// The Engine names the log only now.
	f, err := s.inspect(ctx, typeContainer, id)
	if err != nil {
		return err
	}
	if err := s.stays(f.sandboxID); err != nil {
		return s.startedInVain(ctx, id, err)
	}
	if err := s.applySettings(ctx, f); err != nil {
		return err
	}
	if err := s.logs.follow(f); err != nil {
		return s.fail(err, "log of container %s", id)
	}
	s.late.forget(id)
	return nil
}

// StopContainer implements the RuntimeService. That the container does not run
// or does not exist is as good.
func (s *server) StopContainer(ctx context.Context, r *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	if r.GetTimeout() < 0 {
		return nil, invalid("timeout", "%d is negative", r.GetTimeout())
	}
	f, err := s.lookUp(ctx, typeContainer, "container_id", r.GetContainerId())
	if status.Code(err) == codes.NotFound {
		return &runtimeapi.StopContainerResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if f.State.Running {
		if err := s.stop(ctx, f.ID, int(stopGrace(r.GetTimeout()).Seconds())); err != nil {
			return nil, err
		}
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

// RemoveContainer implements the RuntimeService.
func (s *server) RemoveContainer(ctx context.Context, r *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	f, err := s.lookUp(ctx, typeContainer, "container_id", r.GetContainerId())
	if status.Code(err) == codes.NotFound {
		return &runtimeapi.RemoveContainerResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.remove(ctx, f.ID, f.object); err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}
