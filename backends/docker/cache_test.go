package docker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

func cached(id string, asked time.Time, state container.ContainerState) *found {
	f := &found{object: object{kind: typeContainer}, asked: asked}
	f.ContainerJSONBase = &container.ContainerJSONBase{ID: id, State: &container.State{Status: state}}
	return f
}

// TestCacheKeepsTheLater: answers that overtake one another do no harm, in
// whichever order they come.
func TestCacheKeepsTheLater(t *testing.T) {
	id := strings.Repeat("a", containerIDLen)
	now := time.Now()
	for range 100 {
		c := newCache()
		answers := []container.ContainerState{container.StateCreated, container.StateRunning, container.StatePaused, container.StateExited}
		for _, i := range rand.Perm(len(answers)) {
			c.put(cached(id, now.Add(time.Duration(i)), answers[i]))
		}
		if got := c.get(id).State.Status; got != container.StateExited {
			t.Fatalf("state %s", got)
		}
		c.drop(id)
		c.put(cached(id, now.Add(time.Hour), container.StateRunning))
		if c.get(id) != nil {
			t.Fatal("what is gone has come back")
		}
	}
}

func TestCacheFindsByTheBeginning(t *testing.T) {
	c := newCache()
	one, other := "aa"+strings.Repeat("1", 62), "ab"+strings.Repeat("1", 62)
	c.put(cached(one, time.Now(), container.StateRunning))
	c.put(cached(other, time.Now(), container.StateRunning))
	for id, want := range map[string]string{one: one, "aa": one, "ab1": other, "a": "", "b": "", one[:63]: one} {
		got := ""
		if f := c.get(id); f != nil {
			got = f.ID
		}
		if got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

// TestReadsAskNothing: what the kubelet asks every second costs no call to the
// Engine, and a call that changes something is seen at once.
func TestReadsAskNothing(t *testing.T) {
	b := newBench(t)
	sandbox, r := b.withContainer(t)
	asked := func() []string {
		b.trace.mu.Lock()
		defer b.trace.mu.Unlock()
		calls := b.trace.calls
		b.trace.calls = nil
		return calls
	}
	asked()
	state := func() runtimeapi.ContainerState {
		t.Helper()
		list, err := b.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
		if err != nil || len(list.Containers) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		st, err := b.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: r.ContainerId})
		if err != nil || st.Status.State != list.Containers[0].State {
			t.Fatalf("status %v, %v; listed %v", st, err, list)
		}
		if got := b.listedPods(t); got[sandbox] != runtimeapi.PodSandboxState_SANDBOX_READY {
			t.Fatalf("pods %v", got)
		}
		if _, err := b.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sandbox}); err != nil {
			t.Fatal(err)
		}
		// The end of a log is waited for once.
		if calls := slices.DeleteFunc(asked(), func(c string) bool { return c == "follow" || c == "finish" }); len(calls) > 0 {
			t.Errorf("reads asked for %q", calls)
		}
		return list.Containers[0].State
	}
	if got := state(); got != runtimeapi.ContainerState_CONTAINER_CREATED {
		t.Error(got)
	}
	if _, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
		t.Fatal(err)
	}
	asked()
	if got := state(); got != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Error(got)
	}
	if _, err := b.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: r.ContainerId}); err != nil {
		t.Fatal(err)
	}
	asked()
	if got := state(); got != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Error(got)
	}
	if _, err := b.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Fatal(err)
	}
	if got := b.listedPods(t); len(got) != 0 {
		t.Errorf("pods %v", got)
	}
}

// TestReadsWaitForTheEngine: as long as the cache may be wrong, it is not the
// answer. An Engine that is away is an error, and one that is back is read at
// once.
func TestReadsWaitForTheEngine(t *testing.T) {
	b := newBench(t)
	if _, err := b.runPod(backends.NoJournal, podConfig()); err != nil {
		t.Fatal(err)
	}
	b.cache.attempted(errInjected)
	b.fail("list", errors.New("away"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { b.keepFed(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	if _, err := b.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{}); status.Code(err) == codes.OK {
		t.Error("listed what may be wrong")
	}
	b.fail("list", nil)
	waitFor(t, "list", func() bool {
		list, err := b.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
		return err == nil && len(list.Items) == 1
	})
}

// TestEventsFeedTheCache: what others do on the Engine is seen.
func TestEventsFeedTheCache(t *testing.T) {
	b := newBench(t)
	sandbox, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { b.keepFed(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	if err := b.engine.ContainerKill(t.Context(), sandbox, "KILL"); err != nil {
		t.Fatal(err)
	}
	b.engine.messages <- events.Message{Action: events.ActionDie, Actor: events.Actor{ID: sandbox}}
	waitFor(t, "die", func() bool { return b.listedPods(t)[sandbox] == runtimeapi.PodSandboxState_SANDBOX_NOTREADY })
	if err := b.engine.ContainerRemove(t.Context(), sandbox, container.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	b.engine.messages <- events.Message{Action: events.ActionDestroy, Actor: events.Actor{ID: sandbox}}
	waitFor(t, "destroy", func() bool { return len(b.listedPods(t)) == 0 })
}

// TestAuditFindsWhatNoEventTold compares with the Engine's list.
func TestAuditFindsWhatNoEventTold(t *testing.T) {
	b := newBench(t)
	var ids []string
	for i := range 3 {
		p := podConfig()
		p.Metadata.Uid = fmt.Sprint("u-", i)
		id, err := b.runPod(backends.NoJournal, p)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	kept, killed, removed := ids[0], ids[1], ids[2]
	if err := errors.Join(b.engine.ContainerKill(t.Context(), killed, "KILL"), b.engine.ContainerRemove(t.Context(), removed, container.RemoveOptions{})); err != nil {
		t.Fatal(err)
	}
	f := newFeed(b.server)
	f.audit(t.Context())
	if len(f.dirty) != 2 || !f.dirty[killed] || !f.dirty[removed] || f.dirty[kept] {
		t.Errorf("marked %v", f.dirty)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { _ = f.look(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	waitFor(t, "look", func() bool {
		got := b.listedPods(t)
		return len(got) == 2 && got[kept] == runtimeapi.PodSandboxState_SANDBOX_READY && got[killed] == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	})
}
