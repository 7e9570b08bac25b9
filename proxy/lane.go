package proxy

import (
	"context"
	"sync"

	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
)

// lane is the way to one backend for operations. It is closed from the start
// of a run until what the run before left open on that backend has been
// looked at: a retry must not race the undoing of what it retries.
type lane struct {
	open chan struct{}
	once sync.Once
	// woken makes the backend's watcher look at once.
	woken chan struct{}
}

func newLane() *lane {
	return &lane{open: make(chan struct{}), woken: make(chan struct{}, 1)}
}

// poke leaves a token in a channel that holds one.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wake makes the watcher look without waiting for its next turn.
func (l *lane) wake() { poke(l.woken) }

// clear opens the lane for good.
func (l *lane) clear() { l.once.Do(func() { close(l.open) }) }

// isClear tells whether the lane is open.
func (l *lane) isClear() bool {
	select {
	case <-l.open:
		return true
	default:
		return false
	}
}

// wait returns when the lane is open, and an error when the backend is not
// available or ctx is done first.
func (l *lane) wait(ctx context.Context, m *backends.Member) error {
	if l.isClear() {
		return nil
	}
	guarded, cancel := m.Guard(ctx)
	defer cancel()
	select {
	case <-l.open:
		return nil
	case <-guarded.Done():
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		return context.Cause(guarded)
	}
}
