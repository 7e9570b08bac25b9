package proxy

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// sweeper records what it was told to keep.
type sweeper struct{ kept [][]string }

func (w *sweeper) CollectNetworks(_ context.Context, keep []string) error {
	slices.Sort(keep)
	w.kept = append(w.kept, keep)
	return nil
}

// TestNetworksAreCollectedWithAllKnown: a plugin takes the network from what
// it is not told to keep, so it is told of every sandbox of the node, or
// nothing is done.
func TestNetworksAreCollectedWithAllKnown(t *testing.T) {
	n := newNode(t)
	a, b := n.run(t, "pa", "front-a"), n.run(t, "pb", "front-b")
	// One that crimux has not heard of yet.
	n.b.edit(func() {
		n.b.sandboxes["strange"] = &runtimeapi.PodSandbox{Id: "strange", Metadata: &runtimeapi.PodSandboxMetadata{Name: "s", Uid: "s", Namespace: "default"}}
	})
	w := &sweeper{}
	collect := func() error { return n.server.collector.collect(t.Context(), []backends.NetworkCollector{w}) }
	if err := collect(); err != nil {
		t.Fatal(err)
	}
	want := []string{a, b, "strange"}
	slices.Sort(want)
	if len(w.kept) != 1 || !slices.Equal(w.kept[0], want) {
		t.Errorf("told to keep %q, want %q", w.kept, want)
	}

	// While a sandbox is being made its id is not known.
	release, entered := make(chan struct{}), make(chan struct{})
	n.a.setBefore(func(_ context.Context, method string, _ any) error {
		if method == "RunPodSandbox" {
			close(entered)
			<-release
		}
		return nil
	})
	made := make(chan error, 1)
	go func() {
		_, err := n.RunPodSandbox(t.Context(), runRequest("late", "front-a"))
		made <- err
	}()
	<-entered
	if err := collect(); err == nil || !strings.Contains(err.Error(), "being made") {
		t.Errorf("while one is being made: %v", err)
	}
	close(release)
	if err := <-made; err != nil {
		t.Fatal(err)
	}

	n.b.stop()
	eventually(t, "the backend counts as away", func() bool {
		err := collect()
		return err != nil && strings.Contains(err.Error(), `backend "b" is away`)
	})
	told := len(w.kept)
	if err := collect(); err == nil || len(w.kept) != told {
		t.Errorf("collected without knowing all: %v", err)
	}
}

// TestNetworksOfWhatIsNotRecovered: a sandbox that a crash left half known may
// live, and is not known before its operation was recovered.
func TestNetworksOfWhatIsNotRecovered(t *testing.T) {
	n := newNode(t)
	n.b.edit(func() {
		n.b.sandboxes["left"] = &runtimeapi.PodSandbox{Id: "left", Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Uid: "u", Namespace: "ns"}}
	})
	op, pod := store.NewOp(), &eventpb.PodKey{Namespace: "ns", Name: "web", Uid: "u"}
	intent := &eventpb.Intent{Method: "RunPodSandbox", Pod: pod, Route: &eventpb.Route{Backend: "b"}}
	if _, err := n.log.Append(&eventpb.Event{Op: op, Backend: "b", Kind: &eventpb.Event_Intent{Intent: intent}}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := &sweeper{}
	if err := n.server.collector.collect(t.Context(), []backends.NetworkCollector{w}); err == nil || len(w.kept) != 0 {
		t.Errorf("told to keep %q, error %v", w.kept, err)
	}
	done := &eventpb.Event{Op: op, Backend: "b", Kind: &eventpb.Event_Outcome{Outcome: &eventpb.Outcome{Id: "left"}}}
	if _, err := n.log.Append(done).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.server.collector.collect(t.Context(), []backends.NetworkCollector{w}); err != nil || len(w.kept) != 1 || !slices.Equal(w.kept[0], []string{"left"}) {
		t.Errorf("told to keep %q, error %v", w.kept, err)
	}
}

// TestCollectorHoldsCreations: sandboxes are made while nothing is collected,
// and not while something is.
func TestCollectorHoldsCreations(t *testing.T) {
	c := newCollector(nil)
	if !c.creations.TryAcquire(everyCreation) {
		t.Fatal("nobody holds it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.creating(ctx); err == nil {
		t.Error("a sandbox was made meanwhile")
	}
	c.creations.Release(everyCreation)
	done, err := c.creating(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c.creations.TryAcquire(everyCreation) {
		t.Error("collected meanwhile")
	}
	done()
}
