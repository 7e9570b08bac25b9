package backends

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// GuardRead is Guard for a question off the request path. The context also
// ends, with an Unavailable error as its cause, when a backend that answers
// probes has not answered this for as long as Patience says. what names the
// question. The cancel function must be called.
//
// The context has no deadline: the backend would be told of it, and one that
// ends a stream in good order when its time is over would have half a list
// look whole.
func (m *Member) GuardRead(ctx context.Context, what string) (context.Context, context.CancelFunc) {
	return m.watch(ctx, &readWatch{what: what, step: m.Patience()})
}

// GuardList is GuardRead for a question whose answer is merged with those of
// other backends, which must not wait long for this one: the context also ends
// when ListTimeout is over and the backend does not answer a probe either. One
// that is slow but answers probes is waited for.
func (m *Member) GuardList(ctx context.Context, what string) (context.Context, context.CancelFunc) {
	// The first look asks for a probe, which has the other half of the time.
	return m.watch(ctx, &readWatch{what: what, early: true, step: m.probing.ListTimeout / 2})
}

func (m *Member) watch(ctx context.Context, w *readWatch) (context.Context, context.CancelFunc) {
	guarded, cancel := m.Guard(ctx)
	bounded, stop := context.WithCancelCause(guarded)
	w.m, w.begun, w.ctx, w.stop = m, time.Now(), bounded, stop
	w.mu.Lock()
	w.timer = time.AfterFunc(w.step, w.look)
	w.mu.Unlock()
	return bounded, func() {
		w.timer.Stop()
		stop(context.Canceled)
		cancel()
	}
}

// readWatch is the watch over one question. Most are answered before its timer
// fires for the first time.
type readWatch struct {
	what string
	// early is set where a backend that does not answer probes is given up
	// after ListTimeout.
	early bool
	// step lies between two looks.
	step time.Duration

	m     *Member
	begun time.Time
	ctx   context.Context
	stop  context.CancelCauseFunc
	mu    sync.Mutex
	timer *time.Timer
}

func (w *readWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return
	}
	waited := time.Since(w.begun)
	switch {
	case waited >= w.m.Patience():
		w.stop(status.Errorf(codes.Unavailable, "backend %q has not answered %s for %s", w.m.Name(), w.what, w.m.Patience()))
	case w.early && waited >= w.m.probing.ListTimeout && w.m.unanswered() >= w.step*9/10:
		w.stop(status.Errorf(codes.Unavailable, "backend %q has answered neither %s nor a probe for %s", w.m.Name(), w.what, w.m.probing.ListTimeout))
	default:
		w.m.probeNow()
		w.timer.Reset(w.step)
	}
}

// unanswered is for how long the probe under way has not been answered; 0 where
// none is under way.
func (m *Member) unanswered() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked.IsZero() {
		return 0
	}
	return time.Since(m.asked)
}

// probeNow has the next probe begin without waiting for its turn.
func (m *Member) probeNow() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// noteProbe records when the probe under way began; zero for none.
func (m *Member) noteProbe(began time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = began
}
