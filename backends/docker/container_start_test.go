package docker

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// startedEngine tells of its starts. The first one takes until the second has
// been asked for, if it is within a moment, and its container ends at once.
type startedEngine struct {
	*fakeEngine
	mu          sync.Mutex
	starts      int
	first       func()
	second, ran chan struct{}
}

func (e *startedEngine) ContainerStart(ctx context.Context, id string, o container.StartOptions) error {
	e.mu.Lock()
	e.starts++
	n := e.starts
	e.mu.Unlock()
	if n > 1 {
		close(e.second)
		<-e.ran
		return e.fakeEngine.ContainerStart(ctx, id, o)
	}
	defer close(e.ran)
	e.first()
	select {
	case <-e.second:
	case <-time.After(50 * time.Millisecond):
	}
	if err := e.fakeEngine.ContainerStart(ctx, id, o); err != nil {
		return err
	}
	return e.end("end", id)
}

// TestStartsOnce: two calls that both found the container not yet started do not
// run it twice.
func TestStartsOnce(t *testing.T) {
	b := newBench(t)
	_, r := b.withContainer(t)
	start := func() error {
		_, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: r.ContainerId})
		return err
	}
	var again sync.WaitGroup
	e := &startedEngine{fakeEngine: b.engine, second: make(chan struct{}), ran: make(chan struct{})}
	e.first = func() {
		again.Go(func() {
			if err := start(); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("a second start: %v", err)
			}
		})
	}
	b.server.engine = e
	if err := start(); err != nil {
		t.Error(err)
	}
	again.Wait()
	if e.starts != 1 {
		t.Errorf("it was started %d times", e.starts)
	}
}

// absentEngine does not answer a start in time.
type absentEngine struct{ *fakeEngine }

func (absentEngine) ContainerStart(context.Context, string, container.StartOptions) error {
	return context.DeadlineExceeded
}

// TestLateStart: a container that the Engine has started after nobody waited for
// it any more has its log all the same.
func TestLateStart(t *testing.T) {
	b, l, id := withLog(t)
	b.server.engine = absentEngine{b.engine}
	b.feed(t)
	for range 2 {
		if _, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); status.Code(err) != codes.DeadlineExceeded {
			t.Fatalf("started: %v", err)
		}
	}
	if err := b.engine.ContainerStart(t.Context(), id, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	b.engine.messages <- events.Message{Action: events.ActionStart, Actor: events.Actor{ID: id}}
	waitFor(t, "its log", func() bool { return l.follows(id) })
	waitFor(t, "all that it lacked", func() bool { return len(b.late.ids()) == 0 })
}

// TestLateStartThatFailed: nothing is kept of what was never started.
func TestLateStartThatFailed(t *testing.T) {
	for name, end := range map[string]func(b *bench, id string) error{
		"ended":   func(b *bench, id string) error { return b.engine.end("end", id) },
		"removed": func(b *bench, id string) error { b.removeContainer(t, id); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			b, _, id := withLog(t)
			b.server.engine = absentEngine{b.engine}
			b.feed(t)
			if _, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err == nil {
				t.Fatal("started")
			}
			if err := b.engine.ContainerStart(t.Context(), id, container.StartOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := end(b, id); err != nil {
				t.Fatal(err)
			}
			b.engine.messages <- events.Message{Action: events.ActionDie, Actor: events.Actor{ID: id}}
			waitFor(t, "it to be forgotten", func() bool { return len(b.late.ids()) == 0 })
		})
	}
}
