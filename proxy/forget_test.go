package proxy

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func one(id string) *eventpb.Forgotten { return &eventpb.Forgotten{SandboxIds: []string{id}} }

// TestForgetOnlyWhatIsAway: while a backend is there, its pods are deleted,
// not forgotten.
func TestForgetOnlyWhatIsAway(t *testing.T) {
	n := newNode(t)
	a, b := n.run(t, "pa", "front-a"), n.run(t, "pb", "front-b")
	n.create(t, b, "c")
	ctx := t.Context()
	wantCode(t, n.server.Forget(ctx, "b", one(b), false), codes.FailedPrecondition, "available", b)
	wantCode(t, n.server.Forget(ctx, "b", &eventpb.Forgotten{Whole: true}, false), codes.FailedPrecondition, "available")
	if err := n.server.Forget(ctx, "b", one("never-was"), true); err != nil {
		t.Errorf("what an available backend has not: %v", err)
	}
	n.b.stop()
	eventually(t, "the breaker is open", func() bool { return n.server.set.Get("b").Check() != nil })
	before := n.log.Last()
	if err := n.server.Forget(ctx, "b", one(b), true); err != nil || n.log.Last() != before {
		t.Errorf("only asking: %v, events %d to %d", err, before, n.log.Last())
	}
	if err := n.server.Forget(ctx, "b", one(b), false); err != nil {
		t.Fatal(err)
	}
	list, err := n.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Id != a {
		t.Errorf("the list is %v, %v", list, err)
	}
	ctrs, err := n.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil || len(ctrs.Containers) != 0 {
		t.Errorf("the containers are %v, %v", ctrs, err)
	}
	// The pod's name is free: the kubelet may make it anew, elsewhere.
	n.run(t, "pb", "front-a")

	// Should it come back all the same, it is listed again.
	n.b.start(t)
	eventually(t, "what was forgotten is found", func() bool { return n.server.knownSandbox(b) != nil })
}

func TestForgettingABackendLetsItBeDropped(t *testing.T) {
	n := newNode(t)
	n.run(t, "web", "front-b")
	cut := &eventpb.Event{Op: "cut", Backend: "b", Kind: &eventpb.Event_Intent{Intent: &eventpb.Intent{Method: "RunPodSandbox"}}}
	if _, err := n.log.Append(cut).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	without := &Server{set: mustSet(t, n.server.set.Get("a").Backend), log: n.log}
	whole := &eventpb.Forgotten{Whole: true}

	// An operation of this run has its own outcome yet to come.
	wantCode(t, without.Forget(t.Context(), "b", whole, true), codes.FailedPrecondition, "RunPodSandbox", "under way")
	// Of an earlier run, it ends with what it was about.
	without.startSeq = n.log.Last()
	if err := without.checkBackends(); err == nil || !strings.Contains(err.Error(), "crimux forget b") {
		t.Errorf("dropping a backend with a pod gives %v", err)
	}
	if err := without.Forget(t.Context(), "b", one(sandboxOn(n.log, "b")), false); err != nil {
		t.Error(err)
	}
	if err := without.checkBackends(); err == nil || !strings.Contains(err.Error(), "never finished") {
		t.Errorf("dropping a backend with an operation that is owed gives %v", err)
	}
	if err := without.Forget(t.Context(), "b", whole, false); err != nil {
		t.Error(err)
	}
	if err := without.checkBackends(); err != nil {
		t.Errorf("dropping a backend that was forgotten gives %v", err)
	}
}

// sandboxOn returns a sandbox of the backend.
func sandboxOn(l *store.Log, backend string) (id string) {
	l.View(func(st *store.State) {
		for sb := range st.SandboxesOf(backend) {
			id = sb.GetId()
		}
	})
	return id
}
