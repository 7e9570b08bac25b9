package proxy

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// eventTimeout is long after any event has come, and any list, on a busy machine.
const eventTimeout = time.Minute

// follow opens the front's stream of events. What it returns is closed at the
// stream's end.
func (n *node) follow(t *testing.T) <-chan *runtimeapi.ContainerEventResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*eventTimeout)
	t.Cleanup(cancel)
	st, err := n.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Header(); err != nil {
		t.Fatal(err)
	}
	got := make(chan *runtimeapi.ContainerEventResponse, 1000)
	go func() {
		defer close(got)
		for {
			e, err := st.Recv()
			if err != nil {
				return
			}
			got <- e
		}
	}()
	return got
}

// await returns the events up to the one that is last.
func await(t *testing.T, from <-chan *runtimeapi.ContainerEventResponse, last string) (names []string, event *runtimeapi.ContainerEventResponse) {
	t.Helper()
	timeout := time.After(eventTimeout)
	for {
		select {
		case e, open := <-from:
			if !open {
				t.Fatalf("the stream ended after %q, before %q", names, last)
			}
			names = append(names, eventName(e))
			if eventName(e) == last {
				return names, e
			}
		case <-timeout:
			t.Fatalf("%q never came, only %q", last, names)
		}
	}
}

// eventName is an event in short, such as "STOPPED c1".
func eventName(e *runtimeapi.ContainerEventResponse) string {
	kind := strings.TrimSuffix(strings.TrimPrefix(e.ContainerEventType.String(), "CONTAINER_"), "_EVENT")
	return kind + " " + e.ContainerId
}

// listened waits until both runtimes are listened to and relied on.
func (n *node) listened(t *testing.T) {
	t.Helper()
	eventually(t, "the runtimes' events are relied on", func() bool {
		for _, f := range n.server.feeds {
			f.mu.Lock()
			ok := !f.since.IsZero() && f.since.Before(f.looked)
			f.mu.Unlock()
			if !ok {
				return false
			}
		}
		return true
	})
}

func TestEventsOfAllBackendsInOneStream(t *testing.T) {
	n := newNode(t)
	n.listened(t)
	first, second := n.follow(t), n.follow(t)
	for _, f := range []*fakeRuntime{n.a, n.b} {
		if got := f.listeners(); got != 1 {
			t.Errorf("%d streams are open to one runtime, however many clients there are", got)
		}
		f.mu.Lock()
		f.emit(&runtimeapi.ContainerEventResponse{ContainerId: "of-" + f.name, ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, CreatedAt: 5})
		f.mu.Unlock()
	}
	for _, st := range []<-chan *runtimeapi.ContainerEventResponse{first, second} {
		got := map[string]bool{}
		for range 2 {
			select {
			case e := <-st:
				got[eventName(e)] = e.CreatedAt == 5
			case <-time.After(eventTimeout):
				t.Fatalf("only %v", got)
			}
		}
		if !got["STOPPED of-a"] || !got["STOPPED of-b"] {
			t.Errorf("events %v", got)
		}
	}
}

func TestTheEventStreamOutlivesItsBackends(t *testing.T) {
	n := newNode(t)
	sb := n.run(t, "web", "front-b")
	c := n.create(t, sb, "c")
	if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c}); err != nil {
		t.Fatal(err)
	}
	n.listened(t)
	n.settled(t)
	events := n.follow(t)
	exit := func() { n.b.containers[c].State = runtimeapi.ContainerState_CONTAINER_EXITED }

	// One backend goes and comes back, and what happened meanwhile is told.
	n.b.stop()
	n.b.edit(exit)
	eventually(t, "the breaker is open", func() bool { return !n.server.set.Get("b").Health().Up })
	n.a.edit(func() {})
	await(t, events, "CREATED edited-on-a")
	n.b.start(t)
	names, e := await(t, events, "STOPPED "+c)
	if e.PodSandboxStatus.GetMetadata().GetUid() != "uid-web" || len(e.ContainersStatuses) != 1 || e.ContainersStatuses[0].ExitCode != 7 {
		t.Errorf("the exit behind an outage is told as %v", e)
	}
	if len(names) != 1 {
		t.Errorf("besides, there are %q", names)
	}

	// A stream that breaks while its runtime goes on.
	n.listened(t)
	n.b.breakStreams(func() { delete(n.b.containers, c); delete(n.b.sandboxes, sb) })
	names, e = await(t, events, "DELETED "+sb)
	if want := fmt.Sprintf("[DELETED %s STOPPED %s DELETED %s]", c, sb, sb); fmt.Sprint(names) != want {
		t.Errorf("a removal behind a broken stream is told as %q, want %q", names, want)
	}
	if e.PodSandboxStatus.GetMetadata().GetUid() != "uid-web" || e.PodSandboxStatus.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("a sandbox that is gone is told of as %v", e)
	}
}

func TestABackendWithoutEventsIsServedFromLooks(t *testing.T) {
	n := newNode(t)
	n.b.breakStreams(func() { n.b.noEvents = true })
	eventually(t, "b was looked at and has no events", func() bool {
		f := n.server.feeds["b"]
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.since.IsZero() && !f.fresh
	})
	events := n.follow(t)
	sb := n.run(t, "web", "front-b")
	c := n.create(t, sb, "c")
	if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c}); err != nil {
		t.Fatal(err)
	}
	names, e := await(t, events, "STARTED "+c)
	for _, want := range []string{"CREATED " + sb, "STARTED " + sb, "CREATED " + c} {
		if !strings.Contains(strings.Join(names, "\n"), want) {
			t.Errorf("no %q in %q", want, names)
		}
	}
	if st := e.PodSandboxStatus; st.GetMetadata().GetUid() != "uid-web" || st.RuntimeHandler != "front-b" || len(e.ContainersStatuses) != 1 {
		t.Errorf("what a look has shown is told as %v", e)
	}
	n.b.edit(func() { n.b.containers[c].State = runtimeapi.ContainerState_CONTAINER_EXITED })
	await(t, events, "STOPPED "+c)
}

// TestEventsHaveTheFrontsHandlers: what a backend calls its handler is not
// what the kubelet does.
func TestEventsHaveTheFrontsHandlers(t *testing.T) {
	n := newNode(t)
	n.listened(t)
	id := n.run(t, "web", "front-a")
	events := n.follow(t)
	e := &runtimeapi.ContainerEventResponse{
		ContainerId: id, CreatedAt: 7,
		PodSandboxStatus: &runtimeapi.PodSandboxStatus{Id: id, RuntimeHandler: "own-a"},
		ContainersStatuses: []*runtimeapi.ContainerStatus{
			{Id: "c1", Image: &runtimeapi.ImageSpec{Image: "i", RuntimeHandler: "own-a"}}, {Id: "c2", Image: &runtimeapi.ImageSpec{Image: "i"}},
		},
	}
	n.a.mu.Lock()
	n.a.emit(e)
	n.a.mu.Unlock()
	_, got := await(t, events, "CREATED "+id)
	cs := got.ContainersStatuses
	if got.CreatedAt != 7 || got.PodSandboxStatus.RuntimeHandler != "front-a" || len(cs) != 2 || cs[0].Image.RuntimeHandler != "front-a" || cs[1].Image.RuntimeHandler != "" {
		t.Errorf("got %v", got)
	}
}

// TestASlowReaderEndsAlone: it is told so, and nobody waits for it.
func TestASlowReaderEndsAlone(t *testing.T) {
	n := newNode(t)
	n.listened(t)
	n.server.events.mu.Lock()
	n.server.events.most = 100
	n.server.events.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 2*eventTimeout)
	defer cancel()
	slow, err := n.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Header(); err != nil {
		t.Fatal(err)
	}
	quick := n.follow(t)
	// Far more than fits the windows and the queue of one that reads nothing.
	padding := strings.Repeat("x", 16<<10)
	const sent = 600
	last := fmt.Sprintf("CREATED e%d", sent-1)
	var count atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range quick {
			count.Add(1)
			if eventName(e) == last {
				return
			}
		}
	}()
	for i := range sent {
		if i%20 == 0 {
			eventually(t, "the quick reader keeps up", func() bool { return count.Load() > int64(i)-50 })
		}
		n.b.mu.Lock()
		n.b.emit(&runtimeapi.ContainerEventResponse{ContainerId: fmt.Sprintf("e%d", i), PodSandboxStatus: &runtimeapi.PodSandboxStatus{Annotations: map[string]string{"k": padding}}})
		n.b.mu.Unlock()
	}
	select {
	case <-done:
		if count.Load() != sent {
			t.Errorf("the quick reader has %d of %d events", count.Load(), sent)
		}
	case <-time.After(eventTimeout):
		t.Fatal("the quick reader waits for the slow one")
	}
	read := 0
	for err = nil; err == nil; read++ {
		_, err = slow.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "too slow") || read >= sent {
		t.Errorf("after %d events the slow reader is told %v", read, err)
	}
	if n.b.listeners() != 1 {
		t.Error("the runtime is not listened to any more")
	}
}

func TestTheDaemonDoesNotWaitForItsReaders(t *testing.T) {
	n := newNode(t)
	events := n.follow(t)
	ctx, cancel := context.WithTimeout(t.Context(), eventTimeout)
	defer cancel()
	began := time.Now()
	n.server.Shutdown(ctx)
	if took := time.Since(began); took > eventTimeout/2 {
		t.Errorf("it took %s to end", took)
	}
	for range events {
		t.Error("an event at the end")
	}
}

// TestBetween: which events lead from what was told to what is there.
func TestBetween(t *testing.T) {
	for _, row := range []struct {
		from, to phase
		want     string
	}{
		{phaseNone, phaseCreated, "CREATED"},
		{phaseNone, phaseStarted, "CREATED STARTED"},
		{phaseNone, phaseStopped, "CREATED STARTED STOPPED"},
		{phaseCreated, phaseStopped, "STARTED STOPPED"},
		{phaseStarted, phaseStarted, ""},
		{phaseStarted, phaseDeleted, "STOPPED DELETED"},
		{phaseStopped, phaseDeleted, "DELETED"},
		{phaseStopped, phaseStarted, ""},
		// What never ran does not stop.
		{phaseCreated, phaseDeleted, "DELETED"},
	} {
		var got []string
		for _, c := range between("x", told{phase: row.to}, row.from) {
			got = append(got, strings.TrimSuffix(eventName(&runtimeapi.ContainerEventResponse{ContainerEventType: c.kind}), " "))
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("from %d to %d: %q, want %q", row.from, row.to, got, row.want)
		}
	}
}

// FuzzEventOut: any bytes of a backend go through, or come out changed in the
// handlers only.
func FuzzEventOut(f *testing.F) {
	n := newNode(f)
	f.Add([]byte{})
	f.Add([]byte(wire.AppendItem(wire.AppendItem(nil, 4, byID("x")), 5, byID("c"))))
	f.Add([]byte(protowire.AppendTag(nil, 4, protowire.VarintType)))
	f.Fuzz(func(t *testing.T, b []byte) {
		n.server.feeds["a"].heard(append([]byte(nil), b...))
		if out := n.server.eventOut(b, "a"); string(out) != string(b) {
			t.Errorf("%x became %x though nobody placed it", b, out)
		}
	})
}

// TestWhoTellsIsNotPolled: a backend that tells of its events is looked at when
// it does, once for many, and one that does not each second.
func TestWhoTellsIsNotPolled(t *testing.T) {
	n := newNode(t)
	n.listened(t)
	n.b.breakStreams(func() { n.b.noEvents = true })
	eventually(t, "b has no events", func() bool { return !n.server.feeds["b"].listening() })
	time.Sleep(lookEvery)
	a, b := n.a.called("ListPodSandbox"), n.b.called("ListPodSandbox")
	began := time.Now()
	eventually(t, "a backend without events is looked at five times", func() bool { return n.b.called("ListPodSandbox") >= b+5 })
	if took := time.Since(began); took > 3*lookSeldom { // as seldom as one that tells
		t.Errorf("five looks took %s", took)
	}
	if got, most := n.a.called("ListPodSandbox")-a, 1+int(time.Since(began)/lookSeldom); got > most {
		t.Errorf("a backend that says nothing was looked at %d times in %s", got, time.Since(began))
	}
	a = n.a.called("ListPodSandbox")
	began = time.Now()
	for range 500 {
		n.a.edit(func() {})
		time.Sleep(time.Millisecond)
	}
	eventually(t, "there was a look", func() bool { return n.a.called("ListPodSandbox") > a })
	if got, most := n.a.called("ListPodSandbox")-a, 2+int(time.Since(began)/lookGap); got > most {
		t.Errorf("500 events in %s led to %d looks", time.Since(began), got)
	}
}

// bounded is a backend that sets the bounds of its operations, as Docker's.
type bounded struct {
	backends.Backend
	backends.Bounder
}

func (bounded) Name() string { return "docker" }

// TestABoundIsNoDeadline: the kubelet's own time is not up.
func TestABoundIsNoDeadline(t *testing.T) {
	c := &call{method: methods[runtimeapi.RuntimeService_RunPodSandbox_FullMethodName], target: mustSet(t, bounded{}).Get("docker")}
	up := status.Error(codes.DeadlineExceeded, "waiting for the engine")
	wantCode(t, boundIsNoDeadline(t.Context(), c, up), codes.Unavailable, `"docker"`, "RunPodSandbox", "waiting for the engine")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	wantCode(t, boundIsNoDeadline(gone, c, up), codes.DeadlineExceeded)
	wantCode(t, boundIsNoDeadline(t.Context(), c, status.Error(codes.NotFound, "x")), codes.NotFound)
	if err := boundIsNoDeadline(t.Context(), c, nil); err != nil {
		t.Error(err)
	}
	c.target = mustSet(t, rubbish{}).Get("b")
	wantCode(t, boundIsNoDeadline(t.Context(), c, up), codes.DeadlineExceeded)
}
