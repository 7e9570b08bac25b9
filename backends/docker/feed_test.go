package docker

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// inspectedEngine calls seen after the n-th look at one container, before that
// is told, and the next one after the following fails.
type inspectedEngine struct {
	*fakeEngine
	id   string
	n    atomic.Int32
	seen func()
}

func (e *inspectedEngine) ContainerInspect(ctx context.Context, id string) (container.InspectResponse, error) {
	if id != e.id {
		return e.fakeEngine.ContainerInspect(ctx, id)
	}
	n := e.n.Add(1)
	if n == 3 {
		return container.InspectResponse{}, errInjected
	}
	c, err := e.fakeEngine.ContainerInspect(ctx, id)
	if n == 1 {
		e.seen()
	}
	return c, err
}

// feed feeds the cache until the test ends.
func (b *bench) feed(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { b.keepFed(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
}

// TestChangedWhileReading: a container that was stopped after it had been read,
// and what came of that could not be, is not shown as running by the end of the
// reading.
func TestChangedWhileReading(t *testing.T) {
	b := newBench(t)
	_, r := b.withContainer(t)
	b.start(t, r.ContainerId)
	stopped := make(chan error, 1)
	b.server.engine = &inspectedEngine{fakeEngine: b.engine, id: r.ContainerId, seen: func() {
		_, err := b.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: r.ContainerId})
		stopped <- err
	}}
	b.cache.lost()
	b.feed(t)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	all, err := b.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(all.Containers) != 1 || all.Containers[0].State != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("listed %v, %v", all, err)
	}
}

// TestTidyingHoldsUpNobody: while what is left of an undone creation is being
// removed, which may take long, others' ends are seen.
func TestTidyingHoldsUpNobody(t *testing.T) {
	b := newBench(t)
	other := podConfig()
	other.Metadata.Uid = "u-2"
	id, err := b.runPod(backends.NoJournal, other)
	if err != nil {
		t.Fatal(err)
	}
	b.undoneOp(t, "op-late")
	late := b.lateCreate(t, "op-late", time.Now())
	removing, seen := make(chan struct{}), make(chan struct{})
	b.server.engine = &pausedEngine{fakeEngine: b.engine, removing: func(string) { close(removing); <-seen }}
	b.feed(t)
	b.engine.messages <- events.Message{Action: events.ActionCreate, Actor: events.Actor{ID: late}}
	<-removing
	if err := b.engine.ContainerKill(t.Context(), id, "KILL"); err != nil {
		t.Fatal(err)
	}
	b.engine.messages <- events.Message{Action: events.ActionDie, Actor: events.Actor{ID: id}}
	defer waitFor(t, "removed", func() bool { return !b.has(late) })
	defer close(seen)
	waitFor(t, "die", func() bool { return b.listedPods(t)[id] == runtimeapi.PodSandboxState_SANDBOX_NOTREADY })
}

// TestEngineWithoutItsData: an Engine that was started without the disk that its
// data is on, and again with it, has its pods as before.
func TestEngineWithoutItsData(t *testing.T) {
	b := newBench(t)
	id, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	data := b.engine.containers
	b.engine.containers = map[string]*container.InspectResponse{}
	b.resync(t)
	if got := b.listedPods(t); len(got) != 0 {
		t.Errorf("without its data: %v", got)
	}
	b.engine.containers = data
	b.resync(t)
	if got := b.listedPods(t); len(got) != 1 || got[id] != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("with its data: %v", got)
	}
}
