package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/proxy"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// gone is the backend that never comes back, in the tests' log: two pods, one
// of which is also on containerd, and an operation that was cut short.
const gone = "old"

// newGoneNode is a node whose configuration does not have that backend.
func newGoneNode(t *testing.T) *node {
	t.Helper()
	n := newBareNode(t)
	l, err := store.Open(n.events, store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	sandbox := func(id, backend, name, uid string) *eventpb.Event {
		return &eventpb.Event{Backend: backend, Kind: &eventpb.Event_Observed{Observed: &eventpb.Observed{
			Cause: "start",
			Sandboxes: []*eventpb.Sandbox{{
				Id: id, Pod: &eventpb.PodKey{Namespace: "default", Name: name, Uid: uid}, State: eventpb.SandboxState_SANDBOX_STATE_READY,
			}},
			Containers: []*eventpb.Container{{Id: "c-" + id, SandboxId: id, Name: "app", State: eventpb.ContainerState_CONTAINER_STATE_RUNNING}},
		}}}
	}
	_, err = l.Append(
		sandbox("aaaa1111", gone, "web", "uid-web"), sandbox("bbbb2222", gone, "db", "uid-db"), sandbox("cccc3333", "containerd", "web", "uid-web"),
		sandbox("dddd4444", "containerd", "twin", "uid-1"), sandbox("eeee5555", gone, "twin", "uid-2"),
		&eventpb.Event{Op: "cut", Backend: gone, Kind: &eventpb.Event_Intent{Intent: &eventpb.Intent{Method: "StopPodSandbox", SandboxId: "bbbb2222"}}},
	).Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// answering answers what a command asks.
func answering(t *testing.T, words string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(path, []byte(words), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stdin
	os.Stdin = f
	t.Cleanup(func() { os.Stdin = old; f.Close() })
}

func (n *node) listed() string { return n.crimux("state", "--json").out }

func TestForgetABackendOnTheFile(t *testing.T) {
	n := newGoneNode(t)
	for _, answer := range []string{"", "\n", "n\n", "what\n"} {
		answering(t, answer)
		r := n.crimux("forget", gone)
		if r.code != 1 || !strings.Contains(r.errOut, "nothing was forgotten") {
			t.Errorf("the answer %q: %+v", answer, r)
		}
	}
	answering(t, "y\n")
	r := n.crimux("forget", gone)
	if r.code != 0 {
		t.Fatalf("%+v", r)
	}
	for _, want := range []string{"aaaa1111", "bbbb2222", "StopPodSandbox", "app", "[y/N]", "forgotten"} {
		contains(t, r.out, want)
	}
	if strings.Contains(r.out, "cccc3333") {
		t.Errorf("it shows what stays:\n%s", r.out)
	}
	state := n.listed()
	for id, want := range map[string]bool{"aaaa1111": false, "bbbb2222": false, "eeee5555": false, "cut": false, "cccc3333": true, "dddd4444": true} {
		if strings.Contains(state, id) != want {
			t.Errorf("afterwards the state has %s: %v\n%s", id, !want, state)
		}
	}
	contains(t, n.crimux("timeline", "db").out, "given up by the operator")
	contains(t, n.crimux("events").out, "Forgotten")
	if r := n.crimux("verify"); r.code != 0 {
		t.Errorf("the log is not sound: %+v", r)
	}
	if r := n.crimux("forget", gone, "--yes"); r.code != 1 || !strings.Contains(r.errOut, "no such backend or pod") {
		t.Errorf("once more: %+v", r)
	}
}

func TestForgetAPodOnTheFile(t *testing.T) {
	n := newGoneNode(t)
	if r := n.crimux("forget", "twin", "--yes"); r.code != 1 || !strings.Contains(r.errOut, "uid-1, uid-2") {
		t.Errorf("a name of two pods: %+v", r)
	}
	if r := n.crimux("forget", "uid-2", "--yes"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	state := n.listed()
	if strings.Contains(state, "eeee5555") || !strings.Contains(state, "dddd4444") || !strings.Contains(state, "aaaa1111") {
		t.Errorf("afterwards the state is %s", state)
	}
	if r := n.crimux("forget", "uid-2", "--yes"); r.code != 1 || !strings.Contains(r.errOut, "not there any more") {
		t.Errorf("once more: %+v", r)
	}
	if r := n.crimux("forget"); r.code != 64 {
		t.Errorf("nothing named: %+v", r)
	}
}

// fakeForgetter is a daemon of which "containerd" is available.
type fakeForgetter struct{ log *store.Log }

func (f fakeForgetter) Forget(ctx context.Context, backend string, what *eventpb.Forgotten, dry bool) error {
	if backend == "containerd" {
		return status.Error(codes.FailedPrecondition, "it is available")
	}
	if dry {
		return nil
	}
	var events []*eventpb.Event
	f.log.View(func(st *store.State) { events = proxy.ForgetEvents(st, backend, what) })
	_, err := f.log.Append(events...).Wait(ctx)
	return err
}

// TestForgetOverTheDaemon: of a pod on two backends, what is away goes.
func TestForgetOverTheDaemon(t *testing.T) {
	n := newGoneNode(t)
	n.daemon()
	r := n.crimux("forget", "default/web", "--yes")
	if r.code != 0 || !strings.Contains(r.errOut, "kept: it is available") {
		t.Errorf("%+v", r)
	}
	state := n.listed()
	if strings.Contains(state, "aaaa1111") || !strings.Contains(state, "cccc3333") {
		t.Errorf("afterwards the state is %s", state)
	}
	if r := n.crimux("forget", "containerd", "--yes"); r.code != 1 || !strings.Contains(r.errOut, "it is available") {
		t.Errorf("a backend that is there: %+v", r)
	}
}
