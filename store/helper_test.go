package store

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

// roles are what the test binary does as a child of itself; each gets its
// arguments and ends with os.Exit or by being killed.
var roles = map[string]func(args []string) error{
	"append":  appendForever,
	"compact": compactForever,
	"damage":  openDamaged,
	"salvage": salvageAll,
	"hold":    holdOpen,
}

var background = context.Background()

const roleVar = "CRIMUX_STORE_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleVar)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(0)
}

// child starts the test binary in a role.
func child(t *testing.T, role string, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

func holdOpen(args []string) error {
	l, err := Open(args[0], Options{})
	if err != nil {
		return err
	}
	fmt.Println("open")
	time.Sleep(10 * time.Minute)
	return l.Close()
}

// open opens the log at path and has it checked from end to end when the test
// is over: every test ends with a verification.
func open(t testing.TB, path string, o Options) *Log {
	t.Helper()
	l, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.Close()
		r, err := OpenReadOnly(path)
		if err != nil {
			t.Errorf("after the test: %v", err)
			return
		}
		defer r.Close()
		rep, err := Verify(r)
		if err != nil || !rep.Sound() {
			t.Errorf("after the test the log is not sound: %v, %+v", err, rep)
		}
		s, err := r.State()
		if err != nil {
			t.Errorf("after the test: %v", err)
			return
		}
		l.View(func(live *State) {
			// The test may have opened it again and gone on.
			if s.Seq() <= live.Seq() {
				sameState(t, "folded again", live, s)
			}
		})
	})
	return l
}

func newLog(t testing.TB) *Log {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), FileName), Options{NoSync: true})
}

func mustAppend(t testing.TB, l *Log, events ...*eventpb.Event) uint64 {
	t.Helper()
	seq, err := l.Append(events...).Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func stateBytes(t testing.TB, s *State) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.Proto())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sameState(t testing.TB, what string, want, got *State) {
	t.Helper()
	if string(stateBytes(t, want)) != string(stateBytes(t, got)) {
		t.Errorf("%s: the states differ\n--- want\n%s\n--- got\n%s", what, dump(want), dump(got))
	}
}

// Events.

func ev(op, backend string, kind any) *eventpb.Event {
	e := &eventpb.Event{Op: op, Backend: backend}
	switch k := kind.(type) {
	case *eventpb.Started:
		e.Kind = &eventpb.Event_Started{Started: k}
	case *eventpb.Stopped:
		e.Kind = &eventpb.Event_Stopped{Stopped: k}
	case *eventpb.Intent:
		e.Kind = &eventpb.Event_Intent{Intent: k}
	case *eventpb.Step:
		e.Kind = &eventpb.Event_Step{Step: k}
	case *eventpb.Outcome:
		e.Kind = &eventpb.Event_Outcome{Outcome: k}
	case *eventpb.Observed:
		e.Kind = &eventpb.Event_Observed{Observed: k}
	case *eventpb.Health:
		e.Kind = &eventpb.Event_Health{Health: k}
	case *eventpb.Policy:
		e.Kind = &eventpb.Event_Policy{Policy: k}
	case *eventpb.Called:
		e.Kind = &eventpb.Event_Called{Called: k}
	case *eventpb.Probed:
		e.Kind = &eventpb.Event_Probed{Probed: k}
	case *eventpb.Noticed:
		e.Kind = &eventpb.Event_Noticed{Noticed: k}
	case *eventpb.Forgotten:
		e.Kind = &eventpb.Event_Forgotten{Forgotten: k}
	case *eventpb.Salvaged:
		e.Kind = &eventpb.Event_Salvaged{Salvaged: k}
	default:
		panic(fmt.Sprintf("no kind: %T", kind))
	}
	return e
}

func pod(uid string) *eventpb.PodKey {
	return &eventpb.PodKey{Namespace: "default", Name: "pod-" + uid, Uid: uid}
}

func started(boot string) *eventpb.Event {
	return ev("", "", &eventpb.Started{Version: "test", Pid: 1, BootId: boot})
}

// run is a RunPodSandbox of the pod uid on backend.
func run(op, backend, uid string) *eventpb.Event {
	return ev(op, backend, &eventpb.Intent{
		Method: methodRunPodSandbox, Pod: pod(uid), LogDirectory: "/var/log/pods/" + uid,
		Route:  &eventpb.Route{Handler: "h", Backend: backend, Rule: "routes[0]", Epoch: 1},
		Labels: map[string]string{"app": uid, "tier": "x"},
	})
}

func createContainer(op, sandbox, name string) *eventpb.Event {
	return ev(op, "docker", &eventpb.Intent{
		Method: methodCreateContainer, SandboxId: sandbox, ContainerName: name, Image: "img", LogPath: name + "/0.log",
		Labels: map[string]string{"c": name},
	})
}

// on is an operation on an object that exists.
func on(op, method, sandbox, container string) *eventpb.Event {
	return ev(op, "docker", &eventpb.Intent{Method: method, SandboxId: sandbox, ContainerId: container})
}

func done(op, id string) *eventpb.Event { return ev(op, "docker", &eventpb.Outcome{Id: id}) }

func failed(op string, code uint32) *eventpb.Event {
	return ev(op, "docker", &eventpb.Outcome{Code: code, Message: "no"})
}

// fold numbers the events from 1, gives those without a time ten times their
// number, and folds them.
func fold(t testing.TB, events ...*eventpb.Event) *State {
	t.Helper()
	s, err := Fold(numbered(events))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func numbered(events []*eventpb.Event) func(func(*eventpb.Event, error) bool) {
	return func(yield func(*eventpb.Event, error) bool) {
		for i, e := range events {
			e.Seq = uint64(i + 1)
			e.Time = cmp.Or(e.Time, int64(10*(i+1)))
			if !yield(e, nil) {
				return
			}
		}
	}
}

// dump shows a state in a line per record, without the fields that are not
// set.
func dump(s *State) string {
	var b strings.Builder
	m := s.Proto()
	if m.GetBootId() != "" {
		fmt.Fprintln(&b, "boot", m.GetBootId())
	}
	for _, r := range m.GetSandboxes() {
		fmt.Fprintf(&b, "sandbox %s on %s %s", r.GetId(), r.GetBackend(), strings.TrimPrefix(r.GetState().String(), "SANDBOX_STATE_"))
		fields(&b, "pod", r.GetPod().GetUid(), "created", r.GetCreatedAt(), "labels", pairs(r.GetLabels()),
			"annotations", pairs(r.GetAnnotations()), "rule", r.GetRoute().GetRule(), "handler", r.GetRoute().GetHandler(),
			"logs", r.GetLogDirectory(), "op", r.GetOp(), "first", r.GetFirstSeq(), "last", r.GetLastSeq())
	}
	for _, r := range m.GetContainers() {
		fmt.Fprintf(&b, "container %s in %s on %s %s", r.GetId(), r.GetSandboxId(), r.GetBackend(), strings.TrimPrefix(r.GetState().String(), "CONTAINER_STATE_"))
		fields(&b, "name", r.GetName(), "attempt", r.GetAttempt(), "image", r.GetImage(), "ref", r.GetImageRef(), "imageid", r.GetImageId(),
			"created", r.GetCreatedAt(), "started", r.GetStartedAt(), "finished", r.GetFinishedAt(), "code", r.GetExitCode(),
			"reason", r.GetReason(), "labels", pairs(r.GetLabels()), "annotations", pairs(r.GetAnnotations()),
			"log", r.GetLogPath(), "op", r.GetOp(), "first", r.GetFirstSeq(), "last", r.GetLastSeq())
	}
	for _, r := range m.GetOperations() {
		fmt.Fprintf(&b, "operation %s on %s %s", r.GetOp(), r.GetBackend(), r.GetIntent().GetMethod())
		var steps []string
		for _, st := range r.GetSteps() {
			steps = append(steps, st.GetName())
		}
		fields(&b, "seq", r.GetSeq(), "time", r.GetTime(), "steps", strings.Join(steps, ","))
	}
	for _, r := range m.GetBackends() {
		fmt.Fprintf(&b, "backend %s", r.GetName())
		fields(&b, "up", r.GetUp(), "error", r.GetError(), "since", r.GetSince())
	}
	if p := m.GetPolicy(); p != nil {
		fmt.Fprint(&b, "policy")
		fields(&b, "default", p.GetDefaultBackend(), "epoch", p.GetEpoch())
	}
	return strings.TrimSpace(b.String())
}

func fields(b *strings.Builder, kv ...any) {
	for i := 0; i < len(kv); i += 2 {
		if v := fmt.Sprint(kv[i+1]); v != "" && v != "0" && v != "false" {
			fmt.Fprintf(b, " %s=%s", kv[i], v)
		}
	}
	b.WriteByte('\n')
}

func pairs(m map[string]string) string {
	var kv []string
	for k, v := range m {
		kv = append(kv, k+":"+v)
	}
	slices.Sort(kv)
	return strings.Join(kv, ",")
}

// testClock is a clock that tests move; a log reads it from several
// goroutines.
type testClock struct{ ns atomic.Int64 }

func clockAt(t time.Time) *testClock {
	c := new(testClock)
	c.ns.Store(t.UnixNano())
	return c
}

func (c *testClock) now() time.Time { return time.Unix(0, c.ns.Load()) }

// add moves the clock and returns what it says then.
func (c *testClock) add(d time.Duration) time.Time { return time.Unix(0, c.ns.Add(int64(d))) }
