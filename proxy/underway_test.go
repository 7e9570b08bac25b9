package proxy

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// do has the daemon carry out a call, and returns the id that it answers with.
func (n *node) do(t *testing.T, full string, req proto.Message) string {
	t.Helper()
	return n.answer(t, full, req).String(idField)
}

// answer is the daemon's answer to a call.
func (n *node) answer(t *testing.T, full string, req proto.Message) wire.Message {
	t.Helper()
	body, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	a, err := n.server.unary(t.Context(), methods[full], backends.NewFrame(body))
	if err != nil {
		t.Errorf("%s: %v", full, err)
		return nil
	}
	return a.Body.Bytes()
}

// look has the daemon look at backend b.
func (n *node) look(t *testing.T) {
	t.Helper()
	if _, err := n.server.observe(t.Context(), n.server.set.Get("b"), causePoll); err != nil {
		t.Fatal(err)
	}
}

// during runs fn once, when the backend is asked for the first time by a method.
func (f *fakeRuntime) during(method string, fn func()) {
	var done atomic.Bool
	before := f.before
	f.setBefore(func(ctx context.Context, m string, req any) error {
		if m == method && !done.Swap(true) {
			fn()
		}
		if before != nil {
			return before(ctx, m, req)
		}
		return nil
	})
}

// TestWhatIsRemovedDuringALookStaysGone, whenever in the look that is, and its
// end is told of once.
func TestWhatIsRemovedDuringALookStaysGone(t *testing.T) {
	n := newIdleNode(t)
	sb := n.do(t, runtimeapi.RuntimeService_RunPodSandbox_FullMethodName, runRequest("web", "front-b"))
	id := n.do(t, runtimeapi.RuntimeService_CreateContainer_FullMethodName, createRequest(sb, "main"))
	n.do(t, runtimeapi.RuntimeService_StartContainer_FullMethodName, &runtimeapi.StartContainerRequest{ContainerId: id})
	n.b.edit(func() {
		ended := proto.CloneOf(n.b.containers[id])
		ended.State = runtimeapi.ContainerState_CONTAINER_EXITED
		n.b.containers[id] = ended
	})
	n.b.during("ContainerStatus", func() {
		// The look asks how it has ended. The kubelet removes it meanwhile.
		n.do(t, runtimeapi.RuntimeService_RemoveContainer_FullMethodName, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	})
	n.look(t)
	if c := n.server.knownContainer(id); c != nil {
		t.Errorf("it is known again as %v", c)
	}
	told := 0
	for _, e := range n.events(t) {
		if slices.ContainsFunc(e.GetObserved().GetContainers(), func(c *eventpb.Container) bool { return c.GetId() == id }) {
			told++
		}
	}
	if told != 1 {
		t.Errorf("its end is told of %d times", told)
	}
}

// TestWhatCameAndWentDuringALookIsNotKnown: it is in the list, and was unknown
// before it and after.
func TestWhatCameAndWentDuringALookIsNotKnown(t *testing.T) {
	n := newIdleNode(t)
	var sb string
	n.b.during("ListPodSandbox", func() {
		sb = n.do(t, runtimeapi.RuntimeService_RunPodSandbox_FullMethodName, runRequest("job", "front-b"))
	})
	n.b.during("ListContainers", func() {
		n.do(t, runtimeapi.RuntimeService_StopPodSandbox_FullMethodName, &runtimeapi.StopPodSandboxRequest{PodSandboxId: sb})
		n.do(t, runtimeapi.RuntimeService_RemovePodSandbox_FullMethodName, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sb})
	})
	n.look(t)
	n.log.View(func(st *store.State) {
		for r := range st.Sandboxes() {
			t.Errorf("%v is known", r)
		}
	})
	if sb == "" {
		t.Error("nothing was made")
	}
}

// TestWhatBecomesKnownDuringALookUp is not recorded once more, as it was then.
func TestWhatBecomesKnownDuringALookUp(t *testing.T) {
	for _, method := range []string{"ListPodSandbox", "ListContainers"} {
		n := newIdleNode(t)
		n.b.edit(func() {
			n.b.sandboxes["sb"] = &runtimeapi.PodSandbox{Id: "sb", Metadata: &runtimeapi.PodSandboxMetadata{Name: "old", Uid: "u", Namespace: "ns"}, CreatedAt: 1}
			n.b.containers["ctr"] = &runtimeapi.Container{
				Id: "ctr", PodSandboxId: "sb", Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, State: runtimeapi.ContainerState_CONTAINER_RUNNING,
			}
		})
		n.b.during(method, func() { n.look(t) })
		if method == "ListPodSandbox" {
			n.answer(t, runtimeapi.RuntimeService_PodSandboxStatus_FullMethodName, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "sb"})
		} else {
			n.answer(t, runtimeapi.RuntimeService_ContainerStatus_FullMethodName, &runtimeapi.ContainerStatusRequest{ContainerId: "ctr"})
		}
		told := 0
		for _, e := range n.events(t) {
			told += len(e.GetObserved().GetSandboxes()) + len(e.GetObserved().GetContainers())
		}
		if told != 2 {
			t.Errorf("during %s: two objects are told of %d times", method, told)
		}
	}
}
