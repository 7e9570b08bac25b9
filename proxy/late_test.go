package proxy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// fill appends until the log takes nothing more.
func (n *node) fill(t *testing.T) {
	t.Helper()
	for {
		e := &eventpb.Event{Kind: &eventpb.Event_Noticed{Noticed: &eventpb.Noticed{Name: "filler", Message: strings.Repeat("x", 100<<10)}}}
		if _, err := n.log.Append(e).Wait(t.Context()); errors.Is(err, store.ErrFull) {
			return
		} else if err != nil {
			t.Error(err)
			return
		}
	}
}

// openOperations is how many operations have no outcome.
func (n *node) openOperations() (open int) {
	n.log.View(func(st *store.State) {
		for range st.Operations() {
			open++
		}
	})
	return open
}

// TestAStopThatCouldNotBeWrittenEnds: when the log takes events again, it has
// how the operation ended, and what happens to its container is seen as ever.
func TestAStopThatCouldNotBeWrittenEnds(t *testing.T) {
	n := &node{a: newFake(t, "a"), b: newFake(t, "b"), dir: t.TempDir(), maxLog: 2 << 20}
	n.begin(t)
	id := n.create(t, n.run(t, "web", "front-b"), "main")
	if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	n.b.setBefore(func(_ context.Context, method string, _ any) error {
		if method == "StopContainer" {
			n.fill(t)
		}
		return nil
	})
	// The fake has no such call: whatever it says, it was asked.
	_, err := n.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id})
	wantCode(t, err, codes.Unimplemented)
	eventually(t, "the operation has an outcome", func() bool { return n.openOperations() == 0 })
	n.b.edit(func() { delete(n.b.containers, id) })
	eventually(t, "the container is known to be gone", func() bool { return n.server.knownContainer(id) == nil })
}

// carriedOut leaves the node as after a RunPodSandbox whose effect is there, and
// whose outcome could not be written. It returns the sandbox's id.
func (n *node) carriedOut(t *testing.T, r *runtimeapi.RunPodSandboxRequest) string {
	t.Helper()
	body, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.server.route(t.Context(), methods[runtimeapi.RuntimeService_RunPodSandbox_FullMethodName], backends.NewFrame(body))
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.target.Invoke(t.Context(), &backends.Call{Method: c.method.full, Request: c.frame, Journal: backends.NoJournal})
	if err != nil {
		t.Fatal(err)
	}
	op := store.NewOp()
	if _, err := n.log.Append(&eventpb.Event{Op: op, Backend: "b", Kind: &eventpb.Event_Intent{Intent: c.intent}}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := outcome(c, a, nil, time.Second)
	n.server.late.add(&eventpb.Event{Op: op, Backend: "b", Kind: &eventpb.Event_Outcome{Outcome: out}})
	return out.Id
}

// TestARetryFindsWhatCouldNotBeWritten, however soon it comes.
func TestARetryFindsWhatCouldNotBeWritten(t *testing.T) {
	n := newIdleNode(t)
	r := runRequest("web", "front-b")
	first := n.carriedOut(t, r)
	body, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	a, err := n.server.unary(t.Context(), methods[runtimeapi.RuntimeService_RunPodSandbox_FullMethodName], backends.NewFrame(body))
	if err != nil {
		t.Fatal(err)
	}
	if again := wire.Message(a.Body.Bytes()).String(idField); again != first {
		t.Errorf("the retry got %s, and %s was made before", again, first)
	}
}

// TestTheEndWritesWhatCouldNotBeWritten: the next run has nothing to recover.
func TestTheEndWritesWhatCouldNotBeWritten(t *testing.T) {
	n := newIdleNode(t)
	id := n.carriedOut(t, runRequest("web", "front-b"))
	n.server.Shutdown(t.Context())
	if _, err := n.log.Append().Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if open := n.openOperations(); open != 0 || n.server.knownSandbox(id) == nil {
		t.Errorf("%d operations are open; the sandbox is known as %v", open, n.server.knownSandbox(id))
	}
}
