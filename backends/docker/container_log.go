package docker

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker/crilog"
)

// containerLogs keeps the followers of container logs in step with the
// containers. A container's end may be seen before its start has returned.
type containerLogs struct {
	copies logs

	mu    sync.Mutex
	state map[string]logState
}

type logState struct{ followed, ended, complete bool }

func newContainerLogs(l logs) *containerLogs {
	return &containerLogs{copies: l, state: map[string]logState{}}
}

// ours reports whether the log is copied by us: another shim's container has
// a link to the Engine's log in its place.
func (f *found) ours() bool { return f.op != "" && f.logPath != "" && f.LogPath != "" }

// follow copies the container's log from now on.
func (l *containerLogs) follow(ctx context.Context, f *found) error {
	if !f.ours() {
		return nil
	}
	file := crilog.File{ContainerID: f.ID, Source: f.LogPath, Target: f.logPath, Running: f.State.Running}
	if err := l.copies.Follow(file); err != nil {
		return err
	}
	st := l.update(f.ID, func(st *logState) {
		st.followed = true
		st.ended = st.ended || !f.State.Running
	})
	if st.ended {
		return l.finish(ctx, f.ID)
	}
	return nil
}

// ended is told that a container has ended.
func (l *containerLogs) ended(ctx context.Context, id string) error {
	if st := l.update(id, func(st *logState) { st.ended = true }); st.followed {
		return l.finish(ctx, id)
	}
	return nil
}

// finish copies what is left and lets go.
func (l *containerLogs) finish(ctx context.Context, id string) error {
	if err := l.copies.Finish(ctx, id); err != nil {
		return err
	}
	l.update(id, func(st *logState) { st.complete = true })
	return nil
}

// complete waits a while until the log of an ended container is all there. It
// has no error: that a log cannot be copied is no reason not to tell how its
// container ended, and the follower has said so already.
func (l *containerLogs) complete(ctx context.Context, f *found, wait time.Duration) {
	if !f.ours() || l.get(f.ID).complete {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_ = l.follow(ctx, f)
}

// forget lets go of a removed container's log.
func (l *containerLogs) forget(id string) {
	l.copies.Forget(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.state, id)
}

func (l *containerLogs) get(id string) logState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state[id]
}

func (l *containerLogs) update(id string, change func(*logState)) logState {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.state[id]
	change(&st)
	l.state[id] = st
	return st
}

// ReopenContainerLog implements the RuntimeService.
func (s *server) ReopenContainerLog(ctx context.Context, r *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	f, err := s.lookUp(ctx, typeContainer, "container_id", r.GetContainerId())
	if err != nil {
		return nil, err
	}
	switch {
	case !f.State.Running:
		return nil, status.Errorf(codes.FailedPrecondition, "container %s does not run: its log is complete", f.ID)
	case f.op == "":
		return nil, status.Errorf(codes.Unimplemented, "container %s was started by another shim: its log is a link and cannot be rotated until it is made anew", f.ID)
	case !f.ours():
		return nil, status.Errorf(codes.FailedPrecondition, "container %s was created without a log path", f.ID)
	}
	if err := errors.Join(s.logs.follow(ctx, f), s.logs.copies.Reopen(ctx, f.ID)); err != nil {
		return nil, s.fail(err, "reopen the log of container %s", f.ID)
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}
