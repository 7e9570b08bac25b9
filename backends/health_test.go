package backends

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// probed is a backend of which only the probe matters.
type probed struct {
	Backend
	mu  sync.Mutex
	err error
	// hang keeps probes from being answered.
	hang bool
}

func (p *probed) Name() string { return "p" }
func (p *probed) Close() error { return nil }

func (p *probed) Probe(ctx context.Context) error {
	p.mu.Lock()
	err, hang := p.err, p.hang
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	return err
}

func (p *probed) set(err error, hang bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.hang = err, hang
}

// running is a set with one backend, probed each millisecond. Its tests are in
// bubbles, since on a busy machine 50 ms may pass at any point.
func running(t *testing.T, p *probed) (*Member, chan Health) {
	t.Helper()
	s, err := NewSet(Probing{Interval: time.Millisecond, DownAfter: 50 * time.Millisecond}, p)
	if err != nil {
		t.Fatal(err)
	}
	changes := make(chan Health, 100)
	s.OnChange(func(_ *Member, h Health) { changes <- h })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s.Get("p"), changes
}

func TestBreaker(t *testing.T) {
	refused := status.Error(codes.Unavailable, "connection refused")
	for _, row := range []struct {
		name string
		err  error
		hang bool
		up   bool
	}{
		{"refused connections", refused, false, false},
		{"no answer", nil, true, false},
		{"an error that is an answer", status.Error(codes.Internal, "broken"), false, true},
		{"a method that it lacks", status.Error(codes.Unimplemented, "Version"), false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := new(probed)
				m, changes := running(t, p)
				if h := <-changes; !h.Up || m.Check() != nil {
					t.Fatalf("a backend that answers is %+v", h)
				}
				p.set(row.err, row.hang)
				if row.up {
					time.Sleep(80 * time.Millisecond)
					if err := m.Check(); err != nil {
						t.Errorf("the breaker is open: %v", err)
					}
					return
				}
				if h := <-changes; h.Up || status.Code(m.Check()) != codes.Unavailable {
					t.Errorf("after the change it is %+v, %v", h, m.Check())
				}
				p.set(nil, false)
				if h := <-changes; !h.Up || m.Check() != nil {
					t.Errorf("once it answers again it is %+v", h)
				}
			})
		})
	}
}

// TestBeforeTheFirstProbe a backend is not up, and calls are let through all
// the same.
func TestBeforeTheFirstProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(probed)
		p.set(nil, true)
		m, changes := running(t, p)
		ctx, cancel := m.Guard(t.Context())
		defer cancel()
		if m.Health().Up || m.Check() != nil || ctx.Err() != nil {
			t.Errorf("before the first answer: %+v, %v, %v", m.Health(), m.Check(), ctx.Err())
		}
		if h := <-changes; h.Up || m.Check() == nil || ctx.Err() == nil {
			t.Errorf("after a probe that nobody answered: %+v, %v, %v", h, m.Check(), ctx.Err())
		}
	})
}

func TestGuardEndsWhenTheBreakerOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(probed)
		m, changes := running(t, p)
		<-changes
		ctx, cancel := m.Guard(t.Context())
		defer cancel()
		if ctx.Err() != nil {
			t.Fatal("the guard of a backend that is up has ended")
		}
		p.set(status.Error(codes.Unavailable, "gone"), false)
		<-ctx.Done()
		if err := context.Cause(ctx); status.Code(err) != codes.Unavailable {
			t.Errorf("the cause is %v", err)
		}
		late, cancelLate := m.Guard(t.Context())
		defer cancelLate()
		if late.Err() == nil {
			t.Error("a guard begun while the breaker is open has not ended")
		}
	})
}

func TestGuardsAreLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, changes := running(t, new(probed))
		<-changes
		for range 100 {
			_, cancel := m.Guard(t.Context())
			cancel()
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.guards) != 0 {
			t.Errorf("%d guards are kept", len(m.guards))
		}
	})
}

// slow is a backend that answers when the time for it is just over.
type slow struct{ probed }

func (*slow) Probe(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// TestALateAnswerIsAnAnswer: on a busy machine the time may be over between an
// answer and the look at the clock.
func TestALateAnswerIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(new(slow), Probing{DownAfter: time.Second})
		m.probeOnce(t.Context())
		if h := m.Health(); !h.Up || m.Check() != nil {
			t.Errorf("a backend that has answered is %+v", h)
		}
	})
}

// failing is a backend whose background work fails.
type failing struct{ probed }

func (f *failing) Run(context.Context) error { return errors.New("broken") }

func TestRunEndsWithTheBackendThatFailed(t *testing.T) {
	s, err := NewSet(Probing{}, &failing{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || err.Error() != `backend "p": broken` {
		t.Errorf("got %v", err)
	}
	if _, err := NewSet(Probing{}, new(probed), new(probed)); err == nil {
		t.Error("two backends of one name are taken")
	}
}

// TestWhoIsBackIsSeenSoon, however seldom one that is there is asked.
func TestWhoIsBackIsSeenSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probed{err: status.Error(codes.Unavailable, "connection refused")}
		s, err := NewSet(Probing{Interval: time.Hour}, p)
		if err != nil {
			t.Fatal(err)
		}
		changes := make(chan Health, 10)
		s.OnChange(func(_ *Member, h Health) { changes <- h })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		defer func() { cancel(); <-done }()
		if h := <-changes; h.Up {
			t.Fatalf("a backend that refuses is %+v", h)
		}
		p.set(nil, false)
		select {
		case h := <-changes:
			if !h.Up {
				t.Errorf("it is %+v", h)
			}
		case <-time.After(20 * time.Second):
			t.Error("that it is back was never seen")
		}
	})
}
