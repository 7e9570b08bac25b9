package docker

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// lateStarts are the containers whose StartContainer has failed. The Engine goes
// on with a start whose caller has gone, and to the kubelet the container runs
// then like any other: it has to have its log and its settings.
type lateStarts struct {
	mu  sync.Mutex
	all map[string]struct{}
	// wake has a token when one of them may have been started.
	wake chan struct{}
}

func newLateStarts() *lateStarts {
	return &lateStarts{all: map[string]struct{}{}, wake: make(chan struct{}, 1)}
}

func (l *lateStarts) note(id string) {
	l.mu.Lock()
	l.all[id] = struct{}{}
	l.mu.Unlock()
	poke(l.wake)
}

// forget lets go of one that has all, has ended or is gone.
func (l *lateStarts) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, id)
}

func (l *lateStarts) has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.all[id]
	return ok
}

func (l *lateStarts) ids() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.all))
}

// keepStarts gives late starts what they lack, until ctx is done.
func (s *server) keepStarts(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.late.wake:
		}
		for _, id := range s.late.ids() {
			err := safely(func() error { return s.finishLate(ctx, id) })
			if err != nil && ctx.Err() == nil {
				s.log.Warn("a container that was started late cannot have its log or its settings", "container", id, "error", err)
			}
		}
	}
}

// finishLate is for one late start. Until the Engine has started it there is
// nothing to do, and an event will tell; of one that has ended, the log is
// copied when somebody asks for its status.
func (s *server) finishLate(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, undoBound)
	defer cancel()
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	f := s.cache.peek(id)
	switch {
	case !s.late.has(id): // another call has done it
	case f == nil || engineTime(f.State.StartedAt).IsZero() && f.State.ExitCode == 0:
	case f.State.Running && s.stays(f.sandboxID) != nil:
		// Its pod is gone or going: nothing of it is to run.
		s.late.forget(id)
		return s.stop(ctx, id, 0)
	case f.State.Running:
		return s.finishStart(ctx, id)
	default:
		s.late.forget(id)
	}
	return nil
}
