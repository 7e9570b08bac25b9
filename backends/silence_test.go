package backends

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// hung is a member with the default timeouts whose backend stops to answer
// probes when hang is called.
func hung(t *testing.T) (m *Member, hang func()) {
	t.Helper()
	p := new(probed)
	s, err := NewSet(Probing{}, p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	synctest.Wait()
	return s.Get("p"), func() { p.set(nil, true) }
}

// TestListOfAHungBackendEndsAfterListTimeout at whatever moment between two
// probes the backend stops to answer.
func TestListOfAHungBackendEndsAfterListTimeout(t *testing.T) {
	for _, lead := range []time.Duration{0, time.Millisecond, 300 * time.Millisecond, 999 * time.Millisecond, 4 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			m, hang := hung(t)
			hang()
			time.Sleep(lead)
			began := time.Now()
			ctx, cancel := m.GuardList(t.Context(), "ListContainers")
			defer cancel()
			<-ctx.Done()
			if took := time.Since(began); took != 2*time.Second {
				t.Errorf("hung for %v before: the list ended after %v", lead, took)
			}
			if err := context.Cause(ctx); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "neither ListContainers nor a probe") {
				t.Errorf("the cause is %v", err)
			}
			if m.Check() != nil {
				t.Error("the breaker is open before downAfter")
			}
		})
	}
}

// TestListOfASlowBackendIsWaitedFor where it answers probes, until it stops to
// do so or its patience is over.
func TestListOfASlowBackendIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, hang := hung(t)
		began := time.Now()
		ctx, cancel := m.GuardList(t.Context(), "ListContainers")
		defer cancel()
		time.Sleep(9500 * time.Millisecond)
		if ctx.Err() != nil {
			t.Fatalf("given up after %v: %v", time.Since(began), context.Cause(ctx))
		}
		hang()
		<-ctx.Done()
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("it hangs since 9.5s, and the list ended after %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		m, _ := hung(t)
		began := time.Now()
		ctx, cancel := m.GuardList(t.Context(), "ListContainers")
		defer cancel()
		<-ctx.Done()
		if took := time.Since(began); took != m.Patience() || !strings.Contains(context.Cause(ctx).Error(), "has not answered ListContainers for 30s") {
			t.Errorf("after %v: %v", took, context.Cause(ctx))
		}
	})
}

// TestReadOffTheRequestPathWaitsForAHungBackend until its breaker opens.
func TestReadOffTheRequestPathWaitsForAHungBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, hang := hung(t)
		hang()
		time.Sleep(time.Second) // the probe that hangs begins
		began := time.Now()
		ctx, cancel := m.GuardRead(t.Context(), "ListContainers")
		defer cancel()
		<-ctx.Done()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("given up after %v: %v", took, context.Cause(ctx))
		}
	})
}

// TestListWatchEndsWithItsCall and leaves no timer behind.
func TestListWatchEndsWithItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, hang := hung(t)
		hang()
		ctx, cancel := m.GuardList(t.Context(), "ListContainers")
		time.Sleep(1500 * time.Millisecond)
		cancel()
		time.Sleep(time.Minute)
		if context.Cause(ctx) != context.Canceled {
			t.Errorf("the cause is %v", context.Cause(ctx))
		}
	})
}
