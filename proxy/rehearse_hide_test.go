package proxy

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// TestWhatIsBeingRehearsed may be on a backend, whose list does not have it
// yet: until the rehearsal is over no backend is asked about what none lists.
func TestWhatIsBeingRehearsed(t *testing.T) {
	n := newNode(t)
	var asked atomic.Int32
	n.a.setBefore(func(_ context.Context, method string, _ any) error {
		if method == "PodSandboxStatus" || method == "StopPodSandbox" {
			asked.Add(1)
		}
		return nil
	})
	if err := n.server.rehearsals.begin("r", func() {}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "half-made"}); status.Code(err) != codes.NotFound {
		t.Errorf("its status is %v", err)
	}
	if _, err := n.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: "half-made"}); status.Code(err) != codes.NotFound {
		t.Errorf("stopping it says %v", err)
	}
	if asked.Load() != 0 {
		t.Error("the default backend was asked")
	}
	n.server.rehearsals.end()
	if _, err := n.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "half-made"}); asked.Load() != 1 {
		t.Errorf("after it the default backend was asked %d times: %v", asked.Load(), err)
	}
}

// TestARehearsalThatDoesNotStop is removed all the same, with time left to do
// it: CRI-O waits nearly as long as the caller does.
func TestARehearsalThatDoesNotStop(t *testing.T) {
	n, _, sandbox := rehearsalNode(t)
	n.server.rehearsals.undoStop = 50 * time.Millisecond
	n.b.setBefore(func(ctx context.Context, method string, _ any) error {
		if method != "StopPodSandbox" {
			return nil
		}
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	})
	r, err := n.server.Rehearse(t.Context(), RehearsalRequest{Sandbox: sandbox, On: "b", Level: LevelCreate}, func(string) {})
	if err != nil || !r.Undone {
		t.Errorf("%+v, %v", r, err)
	}
	nothingOn(t, n, n.b)
}

// TestWhatIsLeftIsHiddenWhileItIsRemoved: not before it is known to be gone does a
// list show all that a backend has.
func TestWhatIsLeftIsHiddenWhileItIsRemoved(t *testing.T) {
	n := newIdleNode(t)
	n.b.edit(func() {
		n.b.sandboxes["left"] = &runtimeapi.PodSandbox{
			Id: "left", Metadata: &runtimeapi.PodSandboxMetadata{Name: "r", Uid: "r", Namespace: rehearsalNamespace},
			Labels: map[string]string{backends.LabelRehearsal: "r"},
		}
	})
	shown := func() int {
		body := n.answer(t, runtimeapi.RuntimeService_ListPodSandbox_FullMethodName, &runtimeapi.ListPodSandboxRequest{})
		return strings.Count(string(body), "left")
	}
	if err := n.server.sweepBackend(t.Context(), n.server.set.Get("a")); err != nil {
		t.Fatal(err)
	}
	looked := false
	n.b.during("ListPodSandbox", func() {
		looked = true
		if shown() != 0 {
			t.Error("it is listed while it is looked for")
		}
	})
	if err := n.server.sweepBackend(t.Context(), n.server.set.Get("b")); err != nil {
		t.Fatal(err)
	}
	if !looked || shown() != 0 || n.b.called("RemovePodSandbox") != 1 {
		t.Errorf("looked: %v, removed %d times", looked, n.b.called("RemovePodSandbox"))
	}
}

// TestASweepDuringARehearsal leaves what is owed of it for the sweep after its end.
func TestASweepDuringARehearsal(t *testing.T) {
	n := newIdleNode(t)
	r, b := n.server.rehearsals, n.server.set.Get("b")
	sweep := func() (owed int) {
		if err := n.server.sweepBackend(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		owed, _ = r.owes("b")
		return owed
	}
	if err := r.begin("r", func() {}); err != nil {
		t.Fatal(err)
	}
	r.owe("b")
	<-r.woken
	if sweep() == 0 {
		t.Error("nothing is owed any more before the rehearsal is over")
	}
	r.end()
	select {
	case <-r.woken:
	default:
		t.Error("at its end nobody looks at what it has left")
	}
	if sweep() != 0 {
		t.Error("it is owed for ever")
	}
}
