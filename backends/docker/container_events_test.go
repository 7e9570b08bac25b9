package docker

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

func openEvents(t *testing.T, b *bench) backends.Stream {
	t.Helper()
	st, err := b.backend.Stream(t.Context(), runtimeapi.RuntimeService_GetContainerEvents_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func nextEvent(t *testing.T, st backends.Stream) *runtimeapi.ContainerEventResponse {
	t.Helper()
	f, err := st.Recv()
	if err != nil {
		t.Fatal(err)
	}
	out := &runtimeapi.ContainerEventResponse{}
	if err := proto.Unmarshal(f.Bytes(), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestContainerEvents: a pod's life is told in order, each event with the pod
// as it is then.
func TestContainerEvents(t *testing.T) {
	b := newBench(t)
	before, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	b.events.begin()
	st := openEvents(t, b)
	p := podConfig()
	p.Metadata.Uid = "u-2"
	sandbox, err := b.runPod(backends.NoJournal, p)
	if err != nil {
		t.Fatal(err)
	}
	req := createRequest(sandbox)
	req.SandboxConfig.Metadata.Uid = "u-2"
	r, err := b.CreateContainer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Fatal(err)
	}
	const (
		created = runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT
		started = runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
		stopped = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
		deleted = runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT
	)
	for i, want := range []struct {
		id         string
		kind       runtimeapi.ContainerEventType
		containers int
	}{
		{sandbox, created, 0}, {sandbox, started, 0}, {r.ContainerId, created, 1}, {r.ContainerId, started, 1},
		{r.ContainerId, stopped, 1}, {sandbox, stopped, 1}, {r.ContainerId, deleted, 0}, {sandbox, deleted, 0},
	} {
		got := nextEvent(t, st)
		if got.ContainerId != want.id || got.ContainerEventType != want.kind || len(got.ContainersStatuses) != want.containers {
			t.Errorf("event %d: %s %s with %d containers; want %s %s with %d", i, got.ContainerEventType, got.ContainerId,
				len(got.ContainersStatuses), want.kind, want.id, want.containers)
		}
		if got.PodSandboxStatus.GetMetadata().GetUid() != "u-2" || got.CreatedAt == 0 {
			t.Errorf("event %d: pod %v", i, got.PodSandboxStatus)
		}
	}
	if len(st.(*eventStream).waiting) > 0 {
		t.Errorf("more events, though %s has not changed", before)
	}
}

// TestSlowReaderOfEvents is told that it has missed something, and keeps
// nobody waiting.
func TestSlowReaderOfEvents(t *testing.T) {
	e := newContainerEvents()
	slow, quick := e.subscribe(t.Context()), e.subscribe(t.Context())
	for i := range eventsKept + 10 {
		slow.push(fmt.Append(nil, i))
		quick.push(fmt.Append(nil, i))
		if f, err := quick.Recv(); err != nil || string(f.Bytes()) != fmt.Sprint(i) {
			t.Fatalf("%v, %v", f, err)
		}
	}
	for i := range eventsKept {
		if f, err := slow.Recv(); err != nil || string(f.Bytes()) != fmt.Sprint(i) {
			t.Fatalf("%d: %v, %v", i, f, err)
		}
	}
	if _, err := slow.Recv(); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "list") {
		t.Errorf("error %v", err)
	}
}

func TestEventsEndWithTheirReader(t *testing.T) {
	e := newContainerEvents()
	ctx, cancel := context.WithCancel(t.Context())
	st := e.subscribe(ctx)
	cancel()
	if _, err := st.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("error %v", err)
	}
	waitFor(t, "gone", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.open) == 0
	})
}
