package docker

import (
	"context"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestLateMemoryReport: an Engine that hears of the lack of memory after the
// container's end says so in an event, and in no state.
func TestLateMemoryReport(t *testing.T) {
	b := newBench(t)
	_, r := b.withContainer(t)
	id := r.ContainerId
	b.engine.mu.Lock()
	st := b.engine.containers[id].State
	st.Status, st.ExitCode = container.StateExited, 137
	st.StartedAt, st.FinishedAt = "2024-01-01T00:00:00.5Z", "2024-01-01T00:00:01.5Z"
	b.engine.mu.Unlock()

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { b.keepFed(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	for _, m := range []struct {
		action events.Action
		reason string
	}{{events.ActionDie, reasonError}, {events.ActionOOM, reasonOOMKilled}} {
		b.engine.messages <- events.Message{Type: events.ContainerEventType, Action: m.action, Actor: events.Actor{ID: id}}
		waitFor(t, string(m.action), func() bool {
			got, err := b.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
			return err == nil && got.Status.Reason == m.reason
		})
	}
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: waited too long", what)
		}
	}
}
