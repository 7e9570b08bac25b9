package proxy

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func TestIntentBeforeEffect(t *testing.T) {
	n := newNode(t)
	var open []*eventpb.Operation
	n.b.setBefore(func(_ context.Context, method string, _ any) error {
		if method == "RunPodSandbox" {
			n.log.View(func(st *store.State) { open = slices.Collect(st.OperationsOf("b")) })
		}
		return nil
	})
	id := n.run(t, "web", "front-b")
	if len(open) != 1 || open[0].Intent.Pod.Name != "web" || open[0].Intent.Route.Rule != "handler front-b" {
		t.Errorf("at the time of the effect the log has %v", open)
	}
	var out *eventpb.Outcome
	for _, e := range n.events(t) {
		if e.Op == open[0].Op && e.GetOutcome() != nil {
			out = e.GetOutcome()
		}
	}
	if out.GetCode() != 0 || out.GetId() != id {
		t.Errorf("at the time of the answer the outcome is %v", out)
	}
}

func TestIdenticalRetryReturnsTheSameID(t *testing.T) {
	n := newNode(t)
	first := n.run(t, "web", "front-b")
	if again := n.run(t, "web", "front-b"); again != first {
		t.Errorf("the retry made %s beside %s", again, first)
	}
	c := n.create(t, first, "c")
	if again := n.create(t, first, "c"); again != c {
		t.Errorf("the retry made container %s beside %s", again, c)
	}
	// A sandbox that is not ready is not what the kubelet asked for.
	n.b.edit(func() { n.b.sandboxes[first].State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY })
	_, err := n.RunPodSandbox(t.Context(), runRequest("web", "front-b"))
	wantCode(t, err, codes.Unknown, "reserved")
}

func TestRetryJoinsTheCallInFlight(t *testing.T) {
	n := newNode(t)
	begun, release := make(chan struct{}), make(chan struct{})
	n.b.setBefore(func(_ context.Context, method string, _ any) error {
		if method == "RunPodSandbox" {
			begun <- struct{}{}
			<-release
		}
		return nil
	})
	ids := make(chan string, 2)
	call := func() {
		r, err := n.RunPodSandbox(context.Background(), runRequest("web", "front-b"))
		if err != nil {
			t.Error(err)
		}
		ids <- r.GetPodSandboxId()
	}
	go call()
	<-begun
	go call()
	time.Sleep(50 * time.Millisecond)
	close(release)
	if a, b := <-ids, <-ids; a != b || a == "" {
		t.Errorf("two identical calls returned %q and %q", a, b)
	}
	if c := n.b.called("RunPodSandbox"); c != 1 {
		t.Errorf("the backend got the call %d times", c)
	}
}

func TestARetryOutlivesTheCallThatWasAbandoned(t *testing.T) {
	n := newNode(t)
	begun := make(chan struct{}, 2)
	var first atomic.Bool
	first.Store(true)
	n.b.setBefore(func(ctx context.Context, method string, _ any) error {
		if method != "RunPodSandbox" {
			return nil
		}
		begun <- struct{}{}
		if first.Swap(false) {
			<-ctx.Done()
			return status.FromContextError(ctx.Err()).Err()
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := n.RunPodSandbox(ctx, runRequest("web", "front-b"))
		failed <- err
	}()
	<-begun
	got := make(chan string, 1)
	go func() { got <- n.run(t, "web", "front-b") }()
	time.Sleep(50 * time.Millisecond)
	cancel()
	wantCode(t, <-failed, codes.Canceled)
	if id := <-got; id == "" {
		t.Error("the retry ended with the call it had joined")
	}
}

func TestRecoveryOfWhatACrashLeftOpen(t *testing.T) {
	n := newNode(t)
	// Two calls that the backend carries out but whose answer never comes:
	// the run ends with both operations open.
	n.b.setBefore(func(ctx context.Context, method string, req any) error {
		if r, ok := req.(*runtimeapi.RunPodSandboxRequest); ok && method == "RunPodSandbox" {
			if r.Config.Metadata.Name == "made" {
				n.b.edit(func() {
					n.b.sandboxes["made-id"] = &runtimeapi.PodSandbox{Id: "made-id", Metadata: r.Config.Metadata, CreatedAt: 1, RuntimeHandler: r.RuntimeHandler}
				})
			}
			<-ctx.Done()
		}
		return nil
	})
	n.crashDuring(t, "made", "not-made")

	n.b.setBefore(nil)
	n.begin(t)
	eventually(t, "no operation is open", func() bool {
		open := 0
		n.log.View(func(st *store.State) {
			for range st.Operations() {
				open++
			}
		})
		return open == 0
	})
	if id := n.run(t, "made", "front-b"); id != "made-id" {
		t.Errorf("the retry of what took effect returned %s", id)
	}
	if id := n.run(t, "not-made", "front-b"); id == "" {
		t.Error("the retry of what took no effect failed")
	}
	list, err := n.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(list.Items) != 2 {
		t.Errorf("after recovery there are %v, %v", list, err)
	}
	for _, sb := range list.GetItems() {
		if sb.RuntimeHandler != "front-b" {
			t.Errorf("%s is listed with handler %q", sb.Id, sb.RuntimeHandler)
		}
	}
}

func (n *node) crashDuring(t *testing.T, names ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	for _, name := range names {
		go n.RunPodSandbox(ctx, runRequest(name, "front-b"))
	}
	eventually(t, "both calls are with the backend", func() bool { return n.b.called("RunPodSandbox") == len(names) })
	left := n.dir
	n.dir = t.TempDir()
	b, err := os.ReadFile(filepath.Join(left, "events.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "events.db"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	cancel()
	n.stop()
}
