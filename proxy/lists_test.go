package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// A kubelet that gets a list without a pod makes it again, and one without a
// container starts a second copy; an error stops the sync of every pod of the
// node. So each way in which a backend can be away has to give the same lists.

// inventory is what the lists say: sandboxes and containers with their state.
type inventory map[string]string

// pods is the front's inventory, from the unary lists and the streaming ones,
// which must not differ.
func (n *node) pods(t *testing.T) inventory {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), eventTimeout)
	defer cancel()
	unary, streamed := make(inventory), make(inventory)
	inSandbox := make(map[string]string)
	var wg sync.WaitGroup
	var sbs, ctrs, streamedSbs, streamedCtrs inventory
	wg.Go(func() {
		list, err := n.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		sbs = collected(t, list.GetItems(), err)
	})
	wg.Go(func() {
		list, err := n.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
		ctrs = collected(t, list.GetContainers(), err)
		for _, c := range list.GetContainers() {
			inSandbox[c.Id] = c.PodSandboxId
		}
	})
	wg.Go(func() {
		st, err := n.StreamPodSandboxes(ctx, &runtimeapi.StreamPodSandboxesRequest{})
		var all []*runtimeapi.PodSandbox
		err = each(st, err, func(r *runtimeapi.StreamPodSandboxesResponse) { all = append(all, r.PodSandboxes...) })
		streamedSbs = collected(t, all, err)
	})
	wg.Go(func() {
		st, err := n.StreamContainers(ctx, &runtimeapi.StreamContainersRequest{})
		var all []*runtimeapi.Container
		err = each(st, err, func(r *runtimeapi.StreamContainersResponse) { all = append(all, r.Containers...) })
		streamedCtrs = collected(t, all, err)
	})
	wg.Wait()
	maps.Copy(unary, sbs)
	maps.Copy(unary, ctrs)
	maps.Copy(streamed, streamedSbs)
	maps.Copy(streamed, streamedCtrs)
	for c, sb := range inSandbox {
		if unary[sb] == "" {
			t.Errorf("container %s is listed and its sandbox is not", c)
		}
	}
	if !maps.Equal(unary, streamed) {
		t.Errorf("the lists are %v, and as streams %v", unary, streamed)
	}
	return unary
}

// collected is a list's inventory.
func collected[S fmt.Stringer, T interface {
	GetId() string
	GetState() S
}](t *testing.T, items []T, err error) inventory {
	t.Helper()
	if err != nil {
		t.Errorf("a list: %v", err)
	}
	got := make(inventory)
	for _, item := range items {
		if got[item.GetId()] != "" {
			t.Errorf("%s is listed twice", item.GetId())
		}
		got[item.GetId()] = item.GetState().String()
	}
	return got
}

// each reads a stream to its end.
func each[T any](st grpc.ServerStreamingClient[T], err error, fn func(*T)) error {
	for err == nil {
		var r *T
		if r, err = st.Recv(); err == nil {
			fn(r)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// populated is a node with a pod of two containers on each backend, one of
// which has exited, and its lists.
func populated(t *testing.T) (*node, inventory) {
	t.Helper()
	n := &node{a: newFake(t, "a"), b: newFake(t, "b"), dir: t.TempDir(), downAfter: 2 * time.Second}
	n.begin(t)
	for _, f := range []*fakeRuntime{n.a, n.b} {
		sb := n.run(t, "pod-"+f.name, "front-"+f.name)
		for _, name := range []string{"runs", "ended"} {
			c := n.create(t, sb, name)
			if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c}); err != nil {
				t.Fatal(err)
			}
			if name == "ended" {
				f.edit(func() { f.containers[c].State = runtimeapi.ContainerState_CONTAINER_EXITED })
			}
		}
	}
	want := n.pods(t)
	if len(want) != 6 {
		t.Fatalf("the node has %v", want)
	}
	eventually(t, "all of it is in the state", func() bool { return maps.Equal(n.lastKnown(), want) })
	return n, want
}

// lastKnown is the state's inventory.
func (n *node) lastKnown() inventory {
	got := make(inventory)
	n.log.View(func(st *store.State) {
		for sb := range st.Sandboxes() {
			got[sb.GetId()] = sandboxAnswer(sb).State.String()
		}
		for c := range st.Containers() {
			if c.GetState() == eventpb.ContainerState_CONTAINER_STATE_EXITED && c.GetReason() == "" {
				continue // not known in full yet
			}
			got[c.GetId()] = containerAnswer(c).State.String()
		}
	})
	return got
}

// ofB is a sandbox and a container on b.
func ofB(i inventory) (sandbox, container string) {
	for _, id := range slices.Sorted(maps.Keys(i)) {
		switch {
		case strings.HasPrefix(id, "b-sandbox"):
			sandbox = id
		case strings.HasPrefix(id, "b-container"):
			container = id
		}
	}
	return sandbox, container
}

// TestListsAreTheSameHoweverABackendIsAway, and what is asked of it is
// answered with its name, so that a probe is discarded and no pod restarted.
func TestListsAreTheSameHoweverABackendIsAway(t *testing.T) {
	for name, row := range map[string]struct {
		away func(t *testing.T, n *node)
		// alive is set where the backend still answers probes, so that calls
		// about one object are its own business.
		alive bool
	}{
		"refuses connections": {func(_ *testing.T, n *node) { n.b.stop() }, false},
		"hangs": {func(_ *testing.T, n *node) {
			n.b.setBefore(func(ctx context.Context, _ string, _ any) error { <-ctx.Done(); return ctx.Err() })
		}, false},
		"answers probes and hangs over lists": {func(_ *testing.T, n *node) {
			n.b.setBefore(func(ctx context.Context, method string, _ any) error {
				if strings.HasPrefix(method, "List") {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			})
		}, true},
		"answers with errors": {func(_ *testing.T, n *node) {
			n.b.setBefore(func(_ context.Context, method string, _ any) error {
				if method == "Version" {
					return nil
				}
				return status.Error(codes.Internal, "database is locked")
			})
		}, true},
		"is gone while crimux starts": {func(t *testing.T, n *node) {
			n.stop()
			n.b.stop()
			n.beginWith(t, func(name string) bool { return name == "b" })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it is mostly waiting
			n, want := populated(t)
			row.away(t, n)
			for range 2 {
				if got := n.pods(t); !maps.Equal(got, want) {
					t.Fatalf("the lists are %v and were %v", got, want)
				}
			}
			sandbox, container := ofB(want)
			if !row.alive {
				eventually(t, "the breaker is open", func() bool { return n.server.set.Get("b").Check() != nil })
				ctx, cancel := context.WithTimeout(t.Context(), eventTimeout)
				defer cancel()
				_, err := n.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: container})
				wantCode(t, err, codes.Unavailable, `"b"`)
				_, err = n.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sandbox})
				wantCode(t, err, codes.Unavailable, `"b"`)
				_, err = n.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: []string{"probe"}})
				wantCode(t, err, codes.Unavailable, `"b"`)
			}
			// The other backend is as ever.
			n.statusSays(t, map[string]bool{"RuntimeReady": true, "NetworkReady": true, "Backend/a": true})
			n.run(t, "meanwhile", "front-a")
			if got := n.pods(t); len(got) != len(want)+1 {
				t.Errorf("with a new pod the lists are %v and were %v", got, want)
			}
		})
	}
}

// rubbish is a backend that answers with what is no message.
type rubbish struct{ backends.Backend }

func (rubbish) Name() string { return "b" }

func (rubbish) Invoke(context.Context, *backends.Call) (backends.Answer, error) {
	return backends.Answer{Body: backends.NewFrame([]byte("\xff\xff\xff"))}, nil
}

// TestRubbishIsNotMerged: the kubelet could then not read what the others say.
// An answer that is one backend's alone stays as it is.
func TestRubbishIsNotMerged(t *testing.T) {
	m := mustSet(t, rubbish{}).Get("b")
	_, err := read(t.Context(), m, runtimeapi.RuntimeService_ListContainers_FullMethodName, backends.NewFrame(nil))
	wantCode(t, err, codes.Unavailable, `"b"`, "ListContainers", "cannot be read")
	if !absent(err) {
		t.Error("the list is then not taken from what is known")
	}
	if _, err := read(t.Context(), m, runtimeapi.RuntimeService_ContainerStatus_FullMethodName, backends.NewFrame(nil)); err != nil {
		t.Error(err)
	}
}

// TestBothAwayAtTheStart: crimux serves, says what is missing, and goes on by
// itself when they are there.
func TestBothAwayAtTheStart(t *testing.T) {
	n, want := populated(t)
	n.stop()
	n.a.stop()
	n.b.stop()
	n.beginWith(t, func(string) bool { return true })
	if got := n.pods(t); !maps.Equal(got, want) {
		t.Errorf("the lists are %v and were %v", got, want)
	}
	if _, err := n.Version(t.Context(), &runtimeapi.VersionRequest{}); err != nil {
		t.Error(err)
	}
	n.statusSays(t, map[string]bool{"RuntimeReady": false, "NetworkReady": false, "Backend/a": false, "Backend/b": false})
	events := n.follow(t)

	// Meanwhile a container ends, which is told when its backend is back.
	_, ended := ofB(want)
	n.b.edit(func() { delete(n.b.containers, ended) })
	n.a.start(t)
	n.b.start(t)
	n.waitUp(t)
	await(t, events, "DELETED "+ended)
	n.statusSays(t, map[string]bool{"RuntimeReady": true, "Backend/a": true, "Backend/b": true})
	eventually(t, "the lists are live", func() bool { return len(n.pods(t)) == len(want)-1 })
}

// TestAfterARebootNothingOfAnAbsentBackendRuns: the kubelet would wait for it.
func TestAfterARebootNothingOfAnAbsentBackendRuns(t *testing.T) {
	n, want := populated(t)
	n.stop()
	n.b.stop()
	// The log is that of a run before the machine was started.
	l, err := store.Open(n.dir+"/events.db", store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(&eventpb.Event{Kind: &eventpb.Event_Started{Started: &eventpb.Started{BootId: "an earlier boot"}}},
		&eventpb.Event{Backend: "b", Kind: &eventpb.Event_Observed{Observed: &eventpb.Observed{Cause: "start", Sandboxes: sandboxesOf(l, "b"), Containers: runningOf(l, "b")}}}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	n.beginWith(t, func(name string) bool { return name == "b" })
	got := n.pods(t)
	if len(got) != len(want) {
		t.Errorf("after a reboot the lists are %v and were %v", got, want)
	}
	for id, state := range got {
		onB := strings.HasPrefix(id, "b-")
		ended := state == runtimeapi.PodSandboxState_SANDBOX_NOTREADY.String() || state == runtimeapi.ContainerState_CONTAINER_EXITED.String()
		if onB && !ended || !onB && state != want[id] {
			t.Errorf("after a reboot %s is listed as %s, before it was %s", id, state, want[id])
		}
	}
}

// sandboxesOf and runningOf are what a backend has, running.
func sandboxesOf(l *store.Log, backend string) (list []*eventpb.Sandbox) {
	l.View(func(st *store.State) {
		for sb := range st.SandboxesOf(backend) {
			list = append(list, &eventpb.Sandbox{Id: sb.GetId(), State: eventpb.SandboxState_SANDBOX_STATE_READY})
		}
	})
	return list
}

func runningOf(l *store.Log, backend string) (list []*eventpb.Container) {
	l.View(func(st *store.State) {
		for c := range st.ContainersOf(backend) {
			list = append(list, &eventpb.Container{Id: c.GetId(), State: eventpb.ContainerState_CONTAINER_STATE_RUNNING, StartedAt: time.Now().UnixNano()})
		}
	})
	return list
}

// TestAMutationThatWasSentIsNotAnsweredEarly: what came of it is not known, and
// slow is not down: a stop may take minutes.
func TestAMutationThatWasSentIsNotAnsweredEarly(t *testing.T) {
	n, want := populated(t)
	_, container := ofB(want)
	release := make(chan struct{})
	n.b.setBefore(func(ctx context.Context, method string, _ any) error {
		if method == "StartContainer" || method == "Version" {
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return nil
	})
	answered := make(chan error, 1)
	go func() {
		_, err := n.StartContainer(context.Background(), &runtimeapi.StartContainerRequest{ContainerId: container})
		answered <- err
	}()
	eventually(t, "the start is under way and the breaker is open", func() bool {
		return n.b.called("StartContainer") == 3 && n.server.set.Get("b").Check() != nil
	})
	// What comes now is answered at once, and not sent.
	_, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: container})
	wantCode(t, err, codes.Unavailable, `"b"`)
	select {
	case err := <-answered:
		t.Errorf("the start that was sent is answered with %v while its runtime is at it", err)
	default:
	}
	close(release)
	select {
	case err := <-answered:
		if err != nil {
			t.Errorf("the start ended with %v", err)
		}
	case <-time.After(eventTimeout):
		t.Error("the start never ended")
	}
	if n.b.called("StartContainer") != 3 {
		t.Errorf("the runtime was asked %d times", n.b.called("StartContainer"))
	}
}

// TestStreamsOfWhatMayBePartial go on with what the others have.
func TestStreamsOfWhatMayBePartial(t *testing.T) {
	n, _ := populated(t)
	for _, f := range []*fakeRuntime{n.a, n.b} {
		f.edit(func() { f.images["i"] = &runtimeapi.Image{Id: "of-" + f.name, RepoTags: []string{"i"}} })
	}
	n.b.stop()
	st, err := n.images.StreamImages(t.Context(), &runtimeapi.StreamImagesRequest{})
	var ids []string
	err = each(st, err, func(r *runtimeapi.StreamImagesResponse) {
		for _, i := range r.Images {
			ids = append(ids, i.Id)
		}
	})
	if err != nil || !slices.Equal(ids, []string{"of-a"}) {
		t.Errorf("the images are %q, %v", ids, err)
	}
}
