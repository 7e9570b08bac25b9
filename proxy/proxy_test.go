package proxy

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func wantCode(t *testing.T, err error, code codes.Code, parts ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("got %v, want code %v", err, code)
	}
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("error %v does not say %q", err, p)
		}
	}
}

// events returns the log's events so far.
func (n *node) events(t *testing.T) []*eventpb.Event {
	t.Helper()
	var list []*eventpb.Event
	err := n.log.Records(1, func(r store.Record) error {
		e, err := r.Event()
		list = append(list, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPodsGoWhereTheirHandlerSays(t *testing.T) {
	n := newNode(t)
	for handler, backend := range map[string]*fakeRuntime{"front-a": n.a, "front-b": n.b, "": n.a} {
		id := n.run(t, "pod-"+handler, handler)
		backend.edit(func() {
			sb := backend.sandboxes[id]
			if sb == nil {
				t.Errorf("handler %q: %s is not on backend %s", handler, id, backend.name)
				return
			}
			if want := map[string]string{"front-a": "own-a"}[handler]; sb.RuntimeHandler != want {
				t.Errorf("handler %q: the backend was told %q, want %q", handler, sb.RuntimeHandler, want)
			}
		})
		st, err := n.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
		if err != nil || st.Status.RuntimeHandler != handler {
			t.Errorf("status of %s: handler %q, %v; want %q", id, st.GetStatus().GetRuntimeHandler(), err, handler)
		}
	}
	list, err := n.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var handlers []string
	for _, sb := range list.Items {
		handlers = append(handlers, sb.RuntimeHandler)
	}
	slices.Sort(handlers)
	if !slices.Equal(handlers, []string{"", "front-a", "front-b"}) {
		t.Errorf("the merged list shows handlers %q", handlers)
	}
}

func TestUnknownHandler(t *testing.T) {
	n := newNode(t)
	_, err := n.RunPodSandbox(t.Context(), runRequest("p", "gvisor"))
	wantCode(t, err, codes.InvalidArgument, "gvisor", "front-a", "front-b")
	n.nothingHappened(t)
}

// nothingHappened checks that no backend was asked to change anything and
// that the log has no operation.
func (n *node) nothingHappened(t *testing.T) {
	t.Helper()
	for _, f := range []*fakeRuntime{n.a, n.b} {
		for _, m := range methods {
			if m.recording == asOperation && f.called(m.name) > 0 {
				t.Errorf("backend %s got %s", f.name, m.name)
			}
		}
	}
	for _, e := range n.events(t) {
		if e.GetIntent() != nil {
			t.Errorf("the log has an intent: %v", e)
		}
	}
}

func TestBadRequestsAreRefusedByName(t *testing.T) {
	n := newNode(t)
	ctx := t.Context()
	run := func(edit func(*runtimeapi.RunPodSandboxRequest)) func() error {
		return func() error {
			r := runRequest("p", "")
			edit(r)
			_, err := n.RunPodSandbox(ctx, r)
			return err
		}
	}
	for want, call := range map[string]func() error{
		"config is missing":                run(func(r *runtimeapi.RunPodSandboxRequest) { r.Config = nil }),
		"config.metadata is missing":       run(func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata = nil }),
		"config.metadata.uid is empty":     run(func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata.Uid = "" }),
		"config.metadata.name is empty":    run(func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata.Name = "" }),
		"config.metadata.namespace is emp": run(func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata.Namespace = "" }),
		"StopPodSandbox: pod_sandbox_id": func() error {
			_, err := n.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{})
			return err
		},
		"StartContainer: container_id": func() error {
			_, err := n.StartContainer(ctx, &runtimeapi.StartContainerRequest{})
			return err
		},
		"PullImage: image": func() error {
			_, err := n.images.PullImage(ctx, &runtimeapi.PullImageRequest{})
			return err
		},
	} {
		wantCode(t, call(), codes.InvalidArgument, want)
	}
	n.nothingHappened(t)

	sb := n.run(t, "p", "")
	_, err := n.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sb})
	wantCode(t, err, codes.InvalidArgument, "config is missing")
	_, err = n.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sb, Config: &runtimeapi.ContainerConfig{}})
	wantCode(t, err, codes.InvalidArgument, "config.metadata")
	if n.a.called("CreateContainer") != 0 {
		t.Error("a request without config reached the backend")
	}
}

// TestIntentBeforeEffect: when the backend hears of an operation, its intent
// is in the log, and when the client hears of the outcome, so is that.
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

func TestErrorsPassUnchanged(t *testing.T) {
	n := newNode(t)
	detail, err := status.New(codes.Unknown, "RegistryUnavailable: try later").WithDetails(&runtimeapi.ImageSpec{Image: "detail"})
	if err != nil {
		t.Fatal(err)
	}
	n.a.setBefore(func(ctx context.Context, method string, _ any) error {
		if method != "PullImage" && method != "ListImages" {
			return nil
		}
		grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t"))
		return detail.Err()
	})
	var trailer metadata.MD
	_, err = n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "i"}}, grpc.Trailer(&trailer))
	if got := status.Convert(err); got.Code() != codes.Unknown || got.Message() != detail.Message() || len(got.Details()) != 1 {
		t.Errorf("the error came as %v with details %v", err, got.Details())
	}
	if got := trailer.Get("x-trailer"); len(got) != 1 || got[0] != "t" {
		t.Errorf("the trailer came as %v", trailer)
	}
}

func TestTraceMetadataAndDeadlineAreForwarded(t *testing.T) {
	n := newNode(t)
	var got metadata.MD
	var deadline time.Time
	n.a.setBefore(func(ctx context.Context, method string, _ any) error {
		if method == "PodSandboxStatus" {
			got, _ = metadata.FromIncomingContext(ctx)
			deadline, _ = ctx.Deadline()
		}
		return nil
	})
	id := n.run(t, "p", "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", "00-aa-bb-01", "authorization", "secret")
	if _, err := n.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}); err != nil {
		t.Fatal(err)
	}
	if v := got.Get("traceparent"); len(v) != 1 || v[0] != "00-aa-bb-01" {
		t.Errorf("traceparent arrived as %v", v)
	}
	if len(got.Get("authorization")) != 0 {
		t.Error("metadata beyond tracing was forwarded")
	}
	if want, _ := ctx.Deadline(); want.Sub(deadline).Abs() > 5*time.Second {
		t.Errorf("the deadline arrived as %v, want %v", deadline, want)
	}
}

// TestUnknownMethodsAndFieldsPass uses a service descriptor that neither side
// has compiled in: a method newer than this CRI.
func TestUnknownMethodsAndFieldsPass(t *testing.T) {
	n := newNode(t)
	id := n.run(t, "p", "front-b")
	// The fake answers a method it does not know with its own Unimplemented.
	err := n.conn.Invoke(t.Context(), "/runtime.v1.RuntimeService/TeleportPod",
		&runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}, new(runtimeapi.PodSandboxStatusResponse))
	wantCode(t, err, codes.Unimplemented, "TeleportPod")
	err = n.conn.Invoke(t.Context(), "/containerd.services.tasks.v1.Tasks/Kill",
		&runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}, new(runtimeapi.PodSandboxStatusResponse))
	wantCode(t, err, codes.Unimplemented, "crimux serves runtime.v1")

	var seen []byte
	n.b.setBefore(func(_ context.Context, method string, req any) error {
		if method == "PodSandboxStatus" {
			seen = req.(*runtimeapi.PodSandboxStatusRequest).ProtoReflect().GetUnknown()
		}
		return nil
	})
	req := &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}
	unknown := []byte{0xfa, 0x3e, 0x03, 'n', 'e', 'w'} // field 1007
	req.ProtoReflect().SetUnknown(unknown)
	if _, err := n.PodSandboxStatus(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, unknown) {
		t.Errorf("the unknown field arrived as %x", seen)
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
	for range 30 { // through the moment at which the breaker opens
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

// settled waits until the state has what the observer adds to new objects.
func (n *node) settled(t *testing.T) {
	t.Helper()
	for _, m := range n.server.set.All() {
		n.server.lanes[m.Name()].wake()
	}
	last := uint64(0)
	eventually(t, "the log is quiet", func() bool {
		now := n.log.Last()
		quiet := now == last
		last = now
		time.Sleep(1100 * time.Millisecond)
		return quiet
	})
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
	n := newNode(t)
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
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
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

func TestOldPodsAreFoundAndRemembered(t *testing.T) {
	n := newNode(t)
	n.b.edit(func() {
		n.b.sandboxes["old"] = &runtimeapi.PodSandbox{Id: "old", Metadata: &runtimeapi.PodSandboxMetadata{Name: "o", Namespace: "ns", Uid: "u"}, CreatedAt: 5}
		n.b.containers["oldc"] = &runtimeapi.Container{Id: "oldc", PodSandboxId: "old", Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	})
	st, err := n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: "oldc"})
	if err != nil || st.Status.Id != "oldc" {
		t.Fatalf("%v, %v", st, err)
	}
	n.log.View(func(s *store.State) {
		if s.Sandbox("old").GetBackend() != "b" || s.Container("oldc").GetBackend() != "b" {
			t.Errorf("the state has %v and %v", s.Sandbox("old"), s.Container("oldc"))
		}
	})
	// An id that nobody knows gets the default backend's own answer.
	_, err = n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: "nowhere"})
	wantCode(t, err, codes.NotFound, `a has no container "nowhere"`)
}

func TestObservation(t *testing.T) {
	n := newNode(t)
	sb := n.run(t, "web", "front-b")
	c := n.create(t, sb, "c")
	if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c}); err != nil {
		t.Fatal(err)
	}
	n.b.edit(func() { n.b.containers[c].State = runtimeapi.ContainerState_CONTAINER_EXITED })
	eventually(t, "the exit is in the state, with its code", func() bool {
		ctr := n.server.knownContainer(c)
		return ctr.GetState() == eventpb.ContainerState_CONTAINER_STATE_EXITED && ctr.GetExitCode() == 7 && ctr.GetReason() == "Error"
	})
	n.b.edit(func() { delete(n.b.sandboxes, sb); delete(n.b.containers, c) })
	eventually(t, "the removal is in the state", func() bool {
		return n.server.knownSandbox(sb) == nil && n.server.knownContainer(c) == nil
	})
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

// crashDuring begins a RunPodSandbox for each name and then takes the log's
// file as it is: what a kill -9 at that moment leaves.
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

func TestABackendWithPodsCannotBeDropped(t *testing.T) {
	n := newNode(t)
	n.run(t, "web", "front-b")
	without := &Server{set: mustSet(t, n.server.set.Get("a").Backend), log: n.log}
	if err := without.checkBackends(); err == nil || !strings.Contains(err.Error(), `"b"`) || !strings.Contains(err.Error(), "ns/web") {
		t.Errorf("dropping a backend with a pod gives %v", err)
	}
}

func TestProbesAreCounted(t *testing.T) {
	n := newNode(t)
	sb := n.run(t, "web", "front-b")
	c := n.create(t, sb, "c")
	probe := func(cmd ...string) {
		if _, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: cmd}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		probe("ok")
	}
	probe("fails", "canary-argument")
	eventually(t, "the run of equal results is one event", func() bool {
		var got []*eventpb.Probed
		for _, e := range n.events(t) {
			if p := e.GetProbed(); p != nil {
				got = append(got, p)
			}
		}
		return len(got) == 1 && got[0].Count == 5 && got[0].ContainerId == c && got[0].ExitCode == 0
	})
}

// TestSecretsAreNotRecorded looks for what must not be there in the file.
func TestSecretsAreNotRecorded(t *testing.T) {
	n := newNode(t)
	quoting := func(_ context.Context, method string, req any) error {
		if method == "CreateContainer" || method == "PullImage" {
			return status.Errorf(codes.Unknown, "cannot: %v", req)
		}
		return nil
	}
	run := runRequest("web", "front-b")
	run.Config.Annotations = map[string]string{
		"kubectl.kubernetes.io/last-applied-configuration": "canary-annotation", "io.kubernetes.kept": "kept-annotation",
	}
	r, err := n.RunPodSandbox(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	n.b.setBefore(quoting)
	n.a.setBefore(quoting)
	create := createRequest(r.PodSandboxId, "c")
	create.Config.Command, create.Config.Args = []string{"canary-command"}, []string{"canary-arg"}
	create.Config.Envs = []*runtimeapi.KeyValue{{Key: "K", Value: []byte("canary-env")}}
	_, err = n.CreateContainer(t.Context(), create)
	wantCode(t, err, codes.Unknown, "cannot")
	_, err = n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: "i"}, Auth: &runtimeapi.AuthConfig{Username: "canary-user", Password: "canary-password", Auth: "canary-auth", IdentityToken: "canary-token"},
	})
	wantCode(t, err, codes.Unknown, "cannot")
	n.b.setBefore(nil)
	c := n.create(t, r.PodSandboxId, "d")
	if _, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"canary-exec"}}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	file, err := os.ReadFile(filepath.Join(n.dir, "events.db"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(file), "kept-annotation") || !strings.Contains(string(file), "cannot") {
		t.Error("the file lacks what it should have: the test looks in the wrong place")
	}
	for at := 0; ; {
		i := strings.Index(string(file[at:]), "canary")
		if i < 0 {
			break
		}
		at += i + 1
		t.Errorf("the file has %q", file[at-1:min(at+30, len(file))])
	}
}

func TestImagesGoWhereTheirPodGoes(t *testing.T) {
	n := newNode(t)
	run := runRequest("web", "front-b")
	run.Config.Annotations = map[string]string{"kubernetes.io/config.seen": "2026-01-02T03:04:05.678901234Z"}
	if _, err := n.RunPodSandbox(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	annotated := &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "i", Annotations: run.Config.Annotations}}
	bare := &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "i"}}
	if _, err := n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: annotated.Image, SandboxConfig: run.Config}); err != nil {
		t.Fatal(err)
	}
	if n.b.called("PullImage") != 1 || n.a.called("PullImage") != 0 {
		t.Error("the image was not pulled on its pod's runtime")
	}
	for what, req := range map[string]*runtimeapi.ImageStatusRequest{"with the pod's annotations": annotated, "without": bare} {
		if r, err := n.images.ImageStatus(t.Context(), req); err != nil || r.Image == nil {
			t.Errorf("ImageStatus %s: %v, %v", what, r, err)
		}
	}
	other := &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "i", Annotations: map[string]string{"x": "y"}}}
	if r, err := n.images.ImageStatus(t.Context(), other); err != nil || r.Image != nil {
		t.Errorf("for a pod that goes to the default the image is there: %v, %v", r, err)
	}
	if _, err := n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: bare.Image}); err != nil {
		t.Fatal(err)
	}
	list, err := n.images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil || len(list.Images) != 1 || len(list.Images[0].RepoTags) != 2 {
		t.Errorf("an image that both have is listed as %v, %v", list, err)
	}
	if _, err := n.images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: bare.Image}); err != nil {
		t.Fatal(err)
	}
	if n.a.called("RemoveImage") != 1 || n.b.called("RemoveImage") != 1 {
		t.Error("the image was not removed from both runtimes")
	}
}

func TestStreamedListsOverUnaryOnes(t *testing.T) {
	n := newNode(t)
	a, b := n.run(t, "pa", "front-a"), n.run(t, "pb", "front-b")
	st, err := n.StreamPodSandboxes(t.Context(), &runtimeapi.StreamPodSandboxesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for {
		r, err := st.Recv()
		if err != nil {
			break
		}
		for _, sb := range r.PodSandboxes {
			ids = append(ids, sb.Id)
		}
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{a, b}) {
		t.Errorf("streamed %v, want %s and %s", ids, a, b)
	}
}
