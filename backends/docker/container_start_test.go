package docker

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
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
	sandbox, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.CreateContainer(t.Context(), createRequest(sandbox))
	if err != nil {
		t.Fatal(err)
	}
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
