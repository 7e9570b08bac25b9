package proxy

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestListsNeverOmit(t *testing.T) {
	n := newNode(t)
	a, b := n.run(t, "pa", "front-a"), n.run(t, "pb", "front-b")
	c := n.create(t, b, "c")
	if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c}); err != nil {
		t.Fatal(err)
	}
	n.settled(t)
	before, err := n.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	n.b.stop()
	sortByID := func(x, y *runtimeapi.PodSandbox) int { return strings.Compare(x.Id, y.Id) }
	away := func() bool { return n.server.set.Get("b").Check() != nil }
	for i := 0; i < 30 || !away(); i++ { // through the moment at which the breaker opens
		if i == 3000 {
			t.Fatal("the breaker never opened")
		}
		after, err := n.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(after.Items, sortByID)
		slices.SortFunc(before.Items, sortByID)
		if !proto.Equal(before, after) {
			t.Fatalf("while a backend is away the list is\n%v\nand was\n%v", after, before)
		}
		time.Sleep(10 * time.Millisecond)
	}
	ctrs, err := n.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(ctrs.Containers) != 1 || ctrs.Containers[0].Id != c || ctrs.Containers[0].State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("containers while a backend is away: %v, %v", ctrs, err)
	}
	filtered, err := n.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"app": "pa"}}})
	if err != nil || len(filtered.Items) != 1 || filtered.Items[0].Id != a {
		t.Errorf("a filter while a backend is away: %v, %v", filtered, err)
	}
	_, err = n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: c})
	wantCode(t, err, codes.Unavailable, `"b"`)
	_, err = n.RunPodSandbox(t.Context(), runRequest("new", "front-b"))
	wantCode(t, err, codes.Unavailable, `"b"`)
	n.run(t, "other", "front-a")
	n.statusSays(t, map[string]bool{"RuntimeReady": true, "NetworkReady": true, "Backend/a": true, "Backend/b": false})

	n.b.start(t)
	eventually(t, "the backend is back", func() bool {
		_, err := n.ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: c})
		return err == nil
	})
}

// settled waits until both backends were looked at anew, and nothing comes of
// it any more.
func (n *node) settled(t *testing.T) {
	t.Helper()
	began := time.Now()
	for _, m := range n.server.set.All() {
		n.server.lanes[m.Name()].wake()
	}
	last := uint64(0)
	eventually(t, "the log is quiet", func() bool {
		now := n.log.Last()
		quiet := now == last && n.lookedAfter(began)
		last = now
		time.Sleep(1100 * time.Millisecond)
		return quiet
	})
}

// lookedAfter tells whether the last look at each backend began after at.
func (n *node) lookedAfter(at time.Time) bool {
	for _, f := range n.server.feeds {
		f.mu.Lock()
		looked := f.looked
		f.mu.Unlock()
		if looked.Before(at) {
			return false
		}
	}
	return true
}

func (n *node) statusSays(t *testing.T, want map[string]bool) {
	t.Helper()
	r, err := n.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	for _, c := range r.Status.Conditions {
		got[c.Type] = c.Status
		if !c.Status && c.Message == "" {
			t.Errorf("condition %s is false without a message", c.Type)
		}
	}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("condition %s is %v, want %v (%v)", name, got[name], v, r.Status.Conditions)
		}
	}
}

func TestAHungBackendStallsOnlyUntilTheBreakerOpens(t *testing.T) {
	n := &node{a: newFake(t, "a"), b: newFake(t, "b"), dir: t.TempDir(), downAfter: 2 * time.Second}
	n.begin(t)
	n.run(t, "pb", "front-b")
	release := make(chan struct{})
	defer close(release)
	n.b.setBefore(func(ctx context.Context, _ string, _ any) error {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	list, err := n.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("list with a hung backend: %v, %v", list, err)
	}
	_, err = n.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: list.GetItems()[0].GetId()})
	wantCode(t, err, codes.Unavailable, `"b"`, "no answer for")
}

func TestStatusNamesHandlersAsTheRoutesDo(t *testing.T) {
	n := newNode(t)
	n.statusSays(t, map[string]bool{"RuntimeReady": true, "NetworkReady": true, "Backend/a": true, "Backend/b": true})
	r, err := n.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	for _, h := range r.RuntimeHandlers {
		got[h.Name] = h.Features.UserNamespaces
	}
	if len(got) != 2 || got["front-b"] != true || got[""] != false {
		t.Errorf("runtime handlers %v", r.RuntimeHandlers)
	}
	v, err := n.Version(t.Context(), &runtimeapi.VersionRequest{})
	if err != nil || v.RuntimeName != "containerd" || v.RuntimeVersion != "test" || v.RuntimeApiVersion != "v1" || v.Version != "0.1.0" {
		t.Errorf("version %v, %v", v, err)
	}
}

func TestABackendWithPodsCannotBeDropped(t *testing.T) {
	n := newNode(t)
	n.run(t, "web", "front-b")
	without := &Server{set: mustSet(t, n.server.set.Get("a").Backend), log: n.log}
	if err := without.checkBackends(); err == nil || !strings.Contains(err.Error(), `"b"`) || !strings.Contains(err.Error(), "ns/web") {
		t.Errorf("dropping a backend with a pod gives %v", err)
	}
}
