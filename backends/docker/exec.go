package docker

import (
	"cmp"
	"context"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ExecSync implements the RuntimeService.
func (s *server) ExecSync(ctx context.Context, r *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	if len(r.GetCmd()) == 0 {
		return nil, invalid("cmd", "is required")
	}
	if r.GetTimeout() < 0 {
		return nil, invalid("timeout", "%d is negative", r.GetTimeout())
	}
	f, err := s.runningContainer(ctx, r.GetContainerId())
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(min(r.GetTimeout(), math.MaxInt32)) * time.Second
	late, inTime := s.whoIsLate(ctx, f.ID, timeout)
	defer inTime()
	out, err := s.streams.ExecSync(ctx, f.ID, r.GetCmd(), timeout)
	switch {
	case err == nil && out.ExitCode == exitNotStarted:
		err = s.reachesContainerd(ctx, f.ID)
	case timeout > 0 && status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil:
		err = cmp.Or(late(), err)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// whoIsLate finds out when a command's time is up whether it is the command's
// fault: late returns an error where it is the Engine that hangs. The Engine is
// asked at that moment, since it may be well again when the command is dealt
// with. inTime saves the question if it comes first.
func (s *server) whoIsLate(ctx context.Context, id string, timeout time.Duration) (late func() error, inTime func()) {
	if timeout <= 0 {
		return func() error { return nil }, func() {}
	}
	answer := make(chan error, 1)
	timer := time.AfterFunc(timeout, func() { answer <- s.reachesContainerd(ctx, id) })
	late = func() error {
		select {
		case err := <-answer:
			return err
		case <-ctx.Done():
			return nil
		}
	}
	return late, func() { timer.Stop() }
}

const (
	// exitNotStarted is the exit code where the Engine could not start a
	// command, whosever fault that is.
	exitNotStarted = 126
	// versionUnknown is what an Engine has for the version of a containerd that
	// does not answer it.
	versionUnknown = "N/A"
	// askBound is how long the Engine may take to tell how it is.
	askBound = time.Second
)

// reachesContainerd is an error while the Engine can start nothing at all: a
// probe must not fail for it, or the kubelet kills what is well.
func (s *server) reachesContainerd(ctx context.Context, id string) error {
	bounded, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	info, err := s.engine.Info(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return status.Errorf(codes.Unavailable, "container %s: the docker engine at %s does not answer: check that dockerd and its containerd do not hang", id, s.endpoint)
	}
	if err != nil {
		return s.fail(err, "find out why no command ran to its end in container %s", id)
	}
	if info.ContainerdCommit.ID != versionUnknown {
		return nil
	}
	return status.Errorf(codes.Unavailable, "container %s: the docker engine does not reach its containerd, and so starts no command: check that containerd runs", id)
}

// Exec implements the RuntimeService: it returns the URL to connect to.
func (s *server) Exec(ctx context.Context, r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if len(r.GetCmd()) == 0 {
		return nil, invalid("cmd", "is required")
	}
	if _, err := s.runningContainer(ctx, r.GetContainerId()); err != nil {
		return nil, err
	}
	return s.streams.Exec(r)
}

// Attach implements the RuntimeService.
func (s *server) Attach(ctx context.Context, r *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if _, err := s.runningContainer(ctx, r.GetContainerId()); err != nil {
		return nil, err
	}
	return s.streams.Attach(r)
}

// PortForward implements the RuntimeService.
func (s *server) PortForward(ctx context.Context, r *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if _, err := s.sandboxPID(ctx, r.GetPodSandboxId()); err != nil {
		return nil, err
	}
	return s.streams.PortForward(r)
}

// runningContainer returns a container that something can be run in.
func (s *server) runningContainer(ctx context.Context, id string) (*found, error) {
	f, err := s.seen(ctx, typeContainer, "container_id", id)
	if err != nil {
		return nil, err
	}
	if !f.State.Running {
		return nil, status.Errorf(codes.FailedPrecondition, "container %s does not run", f.ID)
	}
	return f, nil
}
