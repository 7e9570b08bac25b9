package backends

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Health is what the probes of a backend have found.
type Health struct {
	// Up is false until the first probe has succeeded, and while the breaker
	// is open.
	Up bool
	// Since is when Up last changed, or when probing began.
	Since time.Time
	// Err is why the backend is not up; nil while it is.
	Err error
}

// Probing says how health is found out.
type Probing struct {
	// Interval lies between two probes; 0 means one second.
	Interval time.Duration
	// DownAfter is how long a probe may stay unanswered before the backend
	// counts as down; 0 means ten seconds. Slow is not down. A backend that
	// refuses connections is down at once.
	DownAfter time.Duration
	// ListTimeout is how long a list waits for a backend that does not answer
	// a probe either; 0 means two seconds. See [Member.GuardList].
	ListTimeout time.Duration
}

func (p Probing) withDefaults() Probing {
	if p.Interval <= 0 {
		p.Interval = time.Second
	}
	if p.DownAfter <= 0 {
		p.DownAfter = 10 * time.Second
	}
	if p.ListTimeout <= 0 {
		p.ListTimeout = 2 * time.Second
	}
	return p
}

// Member is one backend of a set, with its health.
type Member struct {
	Backend
	probing Probing
	// changed is called after each change of health, from one goroutine.
	changed func(*Member, Health)
	// wake makes the next probe begin at once.
	wake chan struct{}

	mu     sync.Mutex
	health Health
	// open is the breaker: closed before the first probe has been answered or
	// not, since a backend that nobody has asked yet is not known to be away.
	open bool
	// asked is when the probe under way began; zero while none is.
	asked  time.Time
	guards map[*guard]struct{}
}

func newMember(b Backend, p Probing) *Member {
	m := &Member{Backend: b, probing: p.withDefaults(), changed: func(*Member, Health) {}, wake: make(chan struct{}, 1)}
	m.guards = make(map[*guard]struct{})
	m.health = Health{Since: time.Now(), Err: status.Error(codes.Unavailable, "not contacted yet")}
	return m
}

// Health returns what the last probe found.
func (m *Member) Health() Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.health
}

// Check returns nil while the breaker is closed, and otherwise the Unavailable
// error that a call to this backend is answered with.
func (m *Member) Check() error {
	m.mu.Lock()
	open, h := m.open, m.health
	m.mu.Unlock()
	if !open {
		return nil
	}
	return m.unavailable(h)
}

func (m *Member) unavailable(h Health) error {
	return status.Errorf(codes.Unavailable, "backend %q is not available (since %s): %s",
		m.Name(), h.Since.UTC().Format(time.RFC3339), status.Convert(h.Err).Message())
}

// Guard derives from ctx a context that also ends, with the error of Check as
// its cause, when the breaker opens: for calls whose caller is better served
// by an early answer than by none. The cancel function must be called.
func (m *Member) Guard(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	g := &guard{cancel}
	m.mu.Lock()
	open, h := m.open, m.health
	if !open {
		m.guards[g] = struct{}{}
	}
	m.mu.Unlock()
	if open {
		cancel(m.unavailable(h))
	}
	return ctx, func() {
		m.mu.Lock()
		delete(m.guards, g)
		m.mu.Unlock()
		cancel(context.Canceled)
	}
}

// guard is a context that ends when the breaker opens. Every read of a list
// or status has one, so it must not cost a goroutine.
type guard struct{ cancel context.CancelCauseFunc }

// Patience is how long a backend that answers probes may take over a question
// whose answer others wait for, where there is another answer to fall back on.
func (m *Member) Patience() time.Duration { return patience * m.probing.DownAfter }

// patience is in units of DownAfter: who answers probes is not down, only slow.
const patience = 3

// awayInterval lies between two probes of a backend that is not there: asking
// costs nothing then, and its pods wait for it to be seen again.
const awayInterval = 250 * time.Millisecond

// run probes until ctx is done.
func (m *Member) run(ctx context.Context) {
	for {
		began := time.Now()
		m.probeOnce(ctx)
		pause := m.probing.Interval
		if !m.Health().Up {
			pause = min(pause, awayInterval)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-time.After(pause - time.Since(began)):
		}
	}
}

func (m *Member) probeOnce(ctx context.Context) {
	pctx, cancel := context.WithTimeout(ctx, m.probing.DownAfter)
	m.noteProbe(time.Now())
	err := m.Probe(pctx)
	m.noteProbe(time.Time{})
	// What has come is an answer, however late.
	timedOut := err != nil && pctx.Err() != nil
	cancel()
	if ctx.Err() != nil {
		return
	}
	switch {
	case timedOut:
		m.set(fmt.Errorf("no answer for %s", m.probing.DownAfter))
	case status.Code(err) == codes.Unavailable:
		m.set(err)
	default:
		// Any other answer, an error included, is a sign of life.
		m.set(nil)
	}
}

// set records what a probe found and reports a change.
func (m *Member) set(err error) {
	m.mu.Lock()
	up := err == nil
	if up == m.health.Up && up != m.open {
		m.health.Err = err
		m.mu.Unlock()
		return
	}
	m.health = Health{Up: up, Since: time.Now(), Err: err}
	m.open = !up
	h, opened := m.health, m.guards
	if !up {
		m.guards = make(map[*guard]struct{})
	}
	m.mu.Unlock()
	if !up {
		for g := range opened {
			g.cancel(m.unavailable(h))
		}
	}
	m.changed(m, h)
}
