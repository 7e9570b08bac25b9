package store

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

var modelSeed = flag.Uint64("seed", 0, "seed of the random fold test; 0 is a new one")

// randomEvents makes events out of a small world, so that they meet: pods u0
// to u3, sandboxes s0 to s5, containers c0 to c7, operations o0 to o9.
type randomEvents struct {
	*rand.Rand
	clock *testClock
}

func (r *randomEvents) id(prefix string, n int) string { return fmt.Sprint(prefix, r.IntN(n)) }

func (r *randomEvents) oneOf(s ...string) string { return s[r.IntN(len(s))] }

// event returns an event that a log may hold; what it says need make no sense.
func (r *randomEvents) event() *eventpb.Event {
	r.clock.add(time.Duration(r.Int64N(20) - 5)) // clocks go backwards
	op, backend := r.id("o", 10), r.oneOf("docker", "containerd", "")
	var e *eventpb.Event
	switch r.IntN(10) {
	case 0, 1, 2:
		e = ev(op, backend, r.intent())
	case 3, 4, 5:
		e = ev(op, backend, r.outcome())
	case 6:
		e = ev(op, backend, &eventpb.Step{Name: r.oneOf("a", "b"), Data: []byte{1}})
	case 7, 8:
		e = ev("", backend, r.observed())
	default:
		e = r.other(backend)
	}
	e.Time = r.clock.now().UnixNano()
	return e
}

func (r *randomEvents) intent() *eventpb.Intent {
	return &eventpb.Intent{
		Method: r.oneOf(methodRunPodSandbox, methodStopPodSandbox, methodRemovePodSandbox, methodCreateContainer,
			methodStartContainer, methodStopContainer, methodRemoveContainer, "PullImage"),
		Pod:       pod(r.id("u", 4)),
		SandboxId: r.id("s", 6), ContainerId: r.id("c", 8), ContainerName: r.oneOf("web", "db"),
		Route:  &eventpb.Route{Backend: r.oneOf("docker", "containerd"), Epoch: r.Uint64N(4)},
		Labels: map[string]string{"k": r.id("v", 3)}, LogPath: r.oneOf("", "0.log"),
	}
}

func (r *randomEvents) outcome() *eventpb.Outcome {
	o := &eventpb.Outcome{Code: []uint32{0, 0, 0, codeNotFound, 13}[r.IntN(5)], Id: r.oneOf(r.id("s", 6), r.id("c", 8), "")}
	switch r.IntN(6) {
	case 0:
		o.Sandbox = r.sandbox()
	case 1:
		o.Container = r.container()
	}
	return o
}

func (r *randomEvents) sandbox() *eventpb.Sandbox {
	sb := &eventpb.Sandbox{Id: r.id("s", 6), State: eventpb.SandboxState(r.IntN(3)), CreatedAt: r.Int64N(3)}
	if r.IntN(2) == 0 {
		sb.Pod, sb.Backend = pod(r.id("u", 4)), r.oneOf("docker", "containerd", "")
	}
	return sb
}

func (r *randomEvents) container() *eventpb.Container {
	return &eventpb.Container{
		Id: r.id("c", 8), SandboxId: r.oneOf(r.id("s", 6), ""), State: eventpb.ContainerState(r.IntN(5)), Backend: r.oneOf("docker", ""),
		StartedAt: 1 + r.Int64N(99), FinishedAt: r.Int64N(100), ExitCode: int32(r.IntN(3)), Reason: r.oneOf("", "Error"),
	}
}

func (r *randomEvents) observed() *eventpb.Observed {
	o := &eventpb.Observed{Cause: "poll"}
	for range r.IntN(3) {
		o.Sandboxes = append(o.Sandboxes, r.sandbox())
	}
	for range r.IntN(3) {
		// One of each, or checkLives would miss what lies between two.
		if c := r.container(); !slices.ContainsFunc(o.GetContainers(), func(k *eventpb.Container) bool { return k.GetId() == c.GetId() }) {
			o.Containers = append(o.Containers, c)
		}
	}
	if r.IntN(3) == 0 {
		o.GoneSandboxes = []string{r.id("s", 6)}
	}
	if r.IntN(3) == 0 {
		o.GoneContainers = []string{r.id("c", 8)}
	}
	return o
}

func (r *randomEvents) other(backend string) *eventpb.Event {
	switch r.IntN(6) {
	case 0:
		return started(r.id("b", 2))
	case 1:
		return ev("", backend, &eventpb.Health{Up: r.IntN(2) == 0, Error: r.oneOf("", "gone")})
	case 2:
		return ev("", "", &eventpb.Policy{Epoch: r.Uint64N(9)})
	case 3:
		return ev("", backend, &eventpb.Called{Method: "Exec"})
	case 4:
		return ev("", backend, &eventpb.Probed{Count: 3})
	}
	return ev("", "", &eventpb.Stopped{})
}

// TestRandomFold folds random events and holds the fold to what must be true
// of any: it depends on the events alone, changes none of them, can be cut and
// continued at every place, and its queries answer as a search through all
// records would.
func TestRandomFold(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (run again with -seed)", seed)
	for round := range 20 {
		r := &randomEvents{Rand: rand.New(rand.NewPCG(seed, uint64(round))), clock: clockAt(time.Unix(0, 1000))}
		randomFold(t, r, 200)
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
}

func randomFold(t *testing.T, r *randomEvents, n int) {
	s := NewState()
	var events, copies []*eventpb.Event
	var snapshots [][]byte
	for len(events) < n {
		e := r.event()
		e.Seq = uint64(len(events) + 1)
		before := rebuildState(t, stateBytes(t, s))
		if err := s.Apply(e); err != nil {
			if e.GetIntent() == nil || !errors.Is(err, ErrRefused) {
				t.Fatal(err)
			}
			sameState(t, "after a refusal", before, s)
			continue
		}
		events, copies = append(events, e), append(copies, proto.CloneOf(e))
		snapshots = append(snapshots, stateBytes(t, s))
		checkIndexes(t, s)
		checkQueries(t, s)
		checkLives(t, before, s, e)
	}
	for i := range events {
		if !proto.Equal(events[i], copies[i]) {
			t.Errorf("the fold changed event %d", i+1)
		}
	}
	for i, b := range snapshots {
		if i%10 != 0 {
			continue
		}
		again := rebuildState(t, b)
		for _, e := range events[i+1:] {
			if err := again.Apply(e); err != nil {
				t.Fatal(err)
			}
		}
		sameState(t, fmt.Sprint("continued after ", i+1), s, again)
	}
}

func rebuildState(t testing.TB, b []byte) *State {
	t.Helper()
	m := &eventpb.State{}
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
	s, err := FromProto(m)
	if err != nil {
		t.Fatal(err)
	}
	if string(stateBytes(t, s)) != string(b) {
		t.Error("the round trip through bytes changes the state")
	}
	return s
}

// checkQueries asks what the policy asks, and answers it by searching.
func checkQueries(t *testing.T, s *State) {
	t.Helper()
	for i := range 4 {
		uid := fmt.Sprint("u", i)
		var route *eventpb.Route
		var routeAt, liveAt uint64
		live := false
		for r := range s.Sandboxes() {
			if r.GetPod().GetUid() != uid {
				continue
			}
			if r.GetRoute() != nil && r.GetFirstSeq() >= routeAt {
				route, routeAt = r.GetRoute(), r.GetFirstSeq()
			}
			alive := r.GetState() == ready
			for c := range s.Containers() {
				alive = alive || c.GetSandboxId() == r.GetId() && c.GetState() == running
			}
			if alive {
				live, liveAt = true, max(liveAt, r.GetFirstSeq())
			}
		}
		for o := range s.Operations() {
			if o.GetIntent().GetMethod() == methodRunPodSandbox && o.GetIntent().GetPod().GetUid() == uid {
				live, liveAt = true, max(liveAt, o.GetSeq())
				if o.GetSeq() > routeAt {
					route, routeAt = o.GetIntent().GetRoute(), o.GetSeq()
				}
			}
		}
		if got, ok := s.Decision(uid); !proto.Equal(got, route) || ok != (route != nil) {
			t.Errorf("Decision(%s) is %v, want %v", uid, got, route)
		}
		if _, ok := s.Live(uid); ok != live {
			t.Errorf("Live(%s) is %v, want %v (event %d)", uid, ok, live, liveAt)
		}
	}
}

// checkLives compares the state before and after an event: what must never
// happen to an object, whatever the event.
func checkLives(t *testing.T, before, after *State, e *eventpb.Event) {
	t.Helper()
	for old := range before.Containers() {
		c := after.Container(old.GetId())
		if c == nil || c.GetFirstSeq() == e.GetSeq() { // gone, and perhaps back
			continue
		}
		if old.GetState() == exited && c.GetState() == running && e.GetOutcome() == nil && c.GetStartedAt() <= old.GetStartedAt() {
			t.Errorf("an exited container runs again:\n%v\n%v\nafter %v", old, c, e)
		}
		if c.GetState() == created && (old.GetState() == running || old.GetState() == exited) {
			t.Errorf("a container that ran never did:\n%v\n%v\nafter %v", old, c, e)
		}
		if c.GetFirstSeq() != old.GetFirstSeq() || old.GetOp() != "" && c.GetOp() != old.GetOp() {
			t.Errorf("a container became another:\n%v\n%v", old, c)
		}
	}
	for old := range before.Sandboxes() {
		r := after.Sandbox(old.GetId())
		if r == nil {
			for c := range after.ContainersIn(old.GetId()) {
				if c.GetLastSeq() != e.GetSeq() { // else the event put it there
					t.Errorf("a container outlived its sandbox: %v\nafter %v", c, e)
				}
			}
			continue
		}
		if r.GetFirstSeq() == e.GetSeq() {
			continue
		}
		if r.GetFirstSeq() != old.GetFirstSeq() || old.GetOp() != "" && (r.GetOp() != old.GetOp() || !proto.Equal(r.GetRoute(), old.GetRoute())) {
			t.Errorf("a sandbox became another:\n%v\n%v", old, r)
		}
	}
}
