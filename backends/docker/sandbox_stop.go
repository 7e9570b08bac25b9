package docker

import (
	"context"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/cni"
)

// infraGrace is how many seconds the infra process gets to end; it only waits.
const infraGrace = 2

// StopPodSandbox implements the RuntimeService. It may be repeated: what is
// done already, or gone, is as good.
func (s *server) StopPodSandbox(ctx context.Context, r *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	if err := s.onSandbox(ctx, r.GetPodSandboxId(), s.stopSandbox); err != nil {
		return nil, err
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox implements the RuntimeService.
func (s *server) RemovePodSandbox(ctx context.Context, r *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	if err := s.onSandbox(ctx, r.GetPodSandboxId(), s.removeSandbox); err != nil {
		return nil, err
	}
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// onSandbox does something to a sandbox, one thing at a time. That there is no
// such sandbox is as good.
func (s *server) onSandbox(ctx context.Context, id string, do func(context.Context, *found) error) error {
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return s.fail(err, "sandbox %s: wait for another call on it", id)
	}
	defer unlock()
	f, err := s.lookUp(ctx, typeSandbox, "pod_sandbox_id", id)
	if status.Code(err) == codes.NotFound {
		return s.settleGone(ctx, id)
	}
	if err != nil {
		return err
	}
	return do(ctx, f)
}

// stopSandbox ends the containers, takes away the network while its namespace
// is still there, and ends the infra container. Where a DEL fails the sandbox
// is not stopped: the caller tries again.
func (s *server) stopSandbox(ctx context.Context, f *found) error {
	defer s.leaving.begin(f.ID)()
	if err := s.eachContainer(ctx, f.ID, func(ctx context.Context, c listed) error {
		if c.State != container.StateRunning && c.State != container.StatePaused {
			return nil
		}
		return s.stop(ctx, c.ID, 0)
	}); err != nil {
		return err
	}
	if err := s.detach(ctx, f); err != nil {
		return err
	}
	if !f.State.Running {
		return nil
	}
	return s.stop(ctx, f.ID, infraGrace)
}

// removeSandbox removes the sandbox and all that is in it.
func (s *server) removeSandbox(ctx context.Context, f *found) error {
	defer s.leaving.begin(f.ID)()
	if err := s.stopSandbox(ctx, f); err != nil {
		return err
	}
	if err := s.eachContainer(ctx, f.ID, func(ctx context.Context, c listed) error {
		return s.remove(ctx, c.ID, c.object)
	}); err != nil {
		return err
	}
	// Before the container, by which it is found again.
	if err := s.pods.kept.Remove(f.ID); err != nil {
		return s.fail(err, "remove sandbox %s", f.ID)
	}
	if err := s.removeNow(ctx, f.ID); err != nil {
		return s.fail(err, "remove sandbox %s", f.ID)
	}
	s.pods.forget(f.ID)
	return nil
}

// detach carries out the sandbox's DEL, if one is owed.
func (s *server) detach(ctx context.Context, f *found) error {
	if !f.HostConfig.NetworkMode.IsNone() {
		return nil
	}
	done, err := s.pods.detach(ctx, f.ID, f.State.Pid, cni.Attachment{PodNamespace: f.namespace, PodName: f.identity.pod, PodUID: f.uid})
	if err != nil {
		return s.fail(err, "take down the network of sandbox %s", f.ID)
	}
	if done {
		journalIn(ctx).Step(backends.Step{Name: stepDetached, ID: f.ID})
	}
	return nil
}

// eachContainer does something to all containers of a sandbox at once. The
// list is the Engine's, with what is still being made.
func (s *server) eachContainer(ctx context.Context, sandbox string, do func(context.Context, listed) error) error {
	all, err := s.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", labelType+"="+typeContainer), filters.Arg("label", labelSandboxID+"="+sandbox))})
	if err != nil {
		return s.fail(err, "list the containers of sandbox %s", sandbox)
	}
	var group errgroup.Group
	for _, c := range all {
		// Labels of an image do not make a container one of the pod's.
		if o, ok := decodeSummary(c); ok && o.kind == typeContainer && o.sandboxID == sandbox {
			group.Go(func() error {
				return safely(func() error { return do(ctx, listed{Summary: c, object: o}) })
			})
		}
	}
	return group.Wait()
}

// stop stops one container after its grace in seconds.
func (s *server) stop(ctx context.Context, id string, grace int) error {
	err := s.engine.ContainerStop(ctx, id, container.StopOptions{Timeout: &grace})
	s.settled(ctx, id)
	if err := ignoreGone(err); err != nil {
		return s.fail(err, "stop container %s", id)
	}
	return nil
}

// remove removes one container. The file of its log is the kubelet's, and has
// all that the container wrote: the Engine's own goes with the container.
func (s *server) remove(ctx context.Context, id string, o object) error {
	if err := removeLogLink(o); err != nil {
		return s.fail(err, "remove container %s", id)
	}
	if f := s.cache.peek(id); f != nil && f.State.Running {
		if err := s.stop(ctx, id, 0); err != nil {
			return err
		}
	}
	s.logs.last(ctx, id, drainBeforeRemoval)
	if err := s.removeNow(ctx, id); err != nil {
		return s.fail(err, "remove container %s", id)
	}
	return nil
}
