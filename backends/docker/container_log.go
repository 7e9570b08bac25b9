package docker

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker/crilog"
)

// drainBeforeRemoval is how long a removal waits for the rest of a log.
const drainBeforeRemoval = 10 * time.Second

// containerLogs keeps the followers of container logs in step with the
// containers. A container's end may be seen before its start has returned.
type containerLogs struct {
	copies logs
	// gone tells of a container that was removed. It is said before forget is
	// called, so whoever still has an old look at it takes nothing on for good.
	gone func(id string) bool

	mu    sync.Mutex
	state map[string]logState
}

// logState is what is known of one log.
type logState struct {
	followed, ended, complete bool
	// late is true when its end was waited for in vain.
	late bool
}

func newContainerLogs(l logs, gone func(id string) bool) *containerLogs {
	return &containerLogs{copies: l, gone: gone, state: map[string]logState{}}
}

// logFile is the container's log as it is copied; ok is false where there is
// nothing to copy: no path was asked for, or the Engine writes no file.
func (f *found) logFile() (file crilog.File, ok bool) {
	file = crilog.File{ContainerID: f.ID, Source: f.LogPath, Target: f.logPath, Running: f.State.Running}
	return file, f.logPath != "" && f.LogPath != ""
}

// copied reports whether the log is copied by us. Another shim's container has
// a link to the Engine's log in its place, until it is reopened: what lies
// there decides, and not who made the container, since labels cannot change and
// a node may go to and fro. Where nothing lies there, a log is made, but not for
// another shim's container that has ended: the kubelet is done with it.
func (f *found) copied() (bool, error) {
	if _, ok := f.logFile(); !ok {
		return false, nil
	}
	_, linked, err := crilog.Linked(f.logPath)
	if linked || err != nil || f.op != "" || f.State.Running {
		return !linked && err == nil, err
	}
	_, err = os.Lstat(f.logPath)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// follow copies the container's log from now on. It does not wait for the log's
// disk: neither a start nor the other logs are to hang on that.
func (l *containerLogs) follow(f *found) error {
	if l.gone(f.ID) {
		return nil // it would make the log anew that went with its pod
	}
	copied, err := f.copied()
	if err != nil || !copied {
		return err
	}
	file, _ := f.logFile()
	if err := l.copies.Follow(file); err != nil {
		return err
	}
	st := l.update(f.ID, func(st *logState) {
		st.followed = true
		st.ended = st.ended || !f.State.Running
	})
	if l.gone(f.ID) {
		l.copies.Forget(f.ID)
		return nil
	}
	if !st.ended || !file.Running {
		return nil
	}
	// Its end was seen before it was followed.
	file.Running = false
	return l.copies.Follow(file)
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

// complete waits a while until the log of an ended container is all there, but
// only once: a disk that hangs must not delay each look at its container. It
// has no error: that a log cannot be copied is no reason not to tell how its
// container ended, and the follower has said so already.
func (l *containerLogs) complete(ctx context.Context, f *found, wait time.Duration) {
	if st := l.get(f.ID); st.complete || st.late {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if l.follow(f) != nil || !l.get(f.ID).followed {
		return
	}
	if l.finish(ctx, f.ID) != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		l.update(f.ID, func(st *logState) { st.late = true })
	}
}

// last waits until the log of an ended container that is about to be removed is
// all there. A disk that hangs must not keep the container for ever.
func (l *containerLogs) last(ctx context.Context, id string, wait time.Duration) {
	if st := l.get(id); !st.followed || st.complete {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	// Why it cannot be copied, the follower has said.
	_ = l.finish(ctx, id)
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
	if !l.gone(id) {
		l.state[id] = st
	}
	return st
}

// ReopenContainerLog implements the RuntimeService. The log of a container that
// another shim made is a link until then. It becomes a log of the CRI, with all
// that the Engine has, and is ours from then on.
func (s *server) ReopenContainerLog(ctx context.Context, r *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	f, err := s.lookUp(ctx, typeContainer, "container_id", r.GetContainerId())
	if err != nil {
		return nil, err
	}
	file, ok := f.logFile()
	switch {
	case !f.State.Running:
		return nil, status.Errorf(codes.FailedPrecondition, "container %s does not run: its log is complete", f.ID)
	case f.logPath == "":
		return nil, status.Errorf(codes.FailedPrecondition, "container %s was created without a log path", f.ID)
	case !ok:
		return nil, status.Errorf(codes.FailedPrecondition,
			"container %s logs with the driver %q: only json-file has a log that can be rotated: make the container anew", f.ID, f.HostConfig.LogConfig.Type)
	}
	unlock, err := s.locks.lock(ctx, f.ID)
	if err != nil {
		return nil, s.fail(err, "reopen the log of container %s: wait for another call on it", f.ID)
	}
	defer unlock()
	for _, step := range []func() error{
		func() error { return s.logs.copies.Convert(ctx, file) },
		func() error { return s.logs.follow(f) },
		func() error { return s.logs.copies.Reopen(ctx, f.ID) },
	} {
		if err := step(); err != nil {
			return nil, s.fail(err, "reopen the log of container %s", f.ID)
		}
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

// removeLogLink removes what another shim left in the place of a log, as it
// would itself; a log is the kubelet's, and stays.
func removeLogLink(o object) error {
	if o.kind != typeContainer || o.logPath == "" {
		return nil
	}
	return crilog.RemoveLink(o.logPath)
}
