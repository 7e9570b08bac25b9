package store

import (
	"errors"
	"iter"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

const (
	sandboxLine   = "sandbox sb on docker READY pod=u created=20 labels=app:u,tier:x rule=routes[0] handler=h logs=/var/log/pods/u op=o1 first=2 last=2\n"
	containerTail = " labels=c:web log=web/0.log op=o2 first=4"
)

// aPod is a pod with one container that runs: seven events.
func aPod(more ...*eventpb.Event) []*eventpb.Event {
	return append([]*eventpb.Event{
		run("o1", "docker", "u"), done("o1", "sb"),
		createContainer("o2", "sb", "web"), done("o2", "c"),
		on("o3", methodStartContainer, "sb", "c"), done("o3", ""),
	}, more...)
}

func sees(sandboxes []*eventpb.Sandbox, containers ...*eventpb.Container) *eventpb.Event {
	return ev("", "docker", &eventpb.Observed{Cause: "poll", Sandboxes: sandboxes, Containers: containers})
}

func TestFold(t *testing.T) {
	const runs = "container c in sb on docker RUNNING name=web image=img created=40 started=60" + containerTail
	tests := []struct {
		name   string
		events []*eventpb.Event
		want   string
	}{
		{"nothing", nil, ""},
		{"a start", []*eventpb.Event{started("b1")}, "boot b1"},
		{"a start without a boot id", []*eventpb.Event{started("b1"), started("")}, "boot b1"},
		{"an intent", []*eventpb.Event{run("o1", "docker", "u")}, "operation o1 on docker RunPodSandbox seq=1 time=10"},
		{"an intent without an operation", []*eventpb.Event{run("", "docker", "u")}, ""},
		{"steps", []*eventpb.Event{
			run("o1", "docker", "u"), ev("o1", "docker", &eventpb.Step{Name: "a"}), ev("o1", "docker", &eventpb.Step{Name: "b"}),
		}, "operation o1 on docker RunPodSandbox seq=1 time=10 steps=a,b"},
		{"a step of nothing", []*eventpb.Event{ev("o1", "docker", &eventpb.Step{Name: "a"})}, ""},
		{"an outcome of nothing", []*eventpb.Event{done("o1", "sb")}, ""},
		{"a pod", aPod()[:2], sandboxLine},
		{"a pod that failed", []*eventpb.Event{run("o1", "docker", "u"), failed("o1", 13)}, ""},
		{"a pod without an id", []*eventpb.Event{run("o1", "docker", "u"), done("o1", "")}, ""},
		{"a container", aPod()[:4], sandboxLine + "container c in sb on docker CREATED name=web image=img created=40" + containerTail + " last=4"},
		{"a container that failed", append(aPod()[:3], failed("o2", 2)), sandboxLine},
		{"a container that runs", aPod(), sandboxLine + runs + " last=6"},
		{"a start that failed", append(aPod()[:5], failed("o3", 2)), sandboxLine + "container c in sb on docker CREATED name=web image=img created=40" + containerTail + " last=4"},
		{"a start of nothing", []*eventpb.Event{on("o3", methodStartContainer, "sb", "c"), done("o3", "")}, ""},
		{"a stop", aPod(on("o4", methodStopContainer, "sb", "c"), done("o4", "")),
			sandboxLine + "container c in sb on docker EXITED name=web image=img created=40 started=60 finished=80" + containerTail + " last=8"},
		{"a stop that failed", aPod(on("o4", methodStopContainer, "sb", "c"), failed("o4", 4)), sandboxLine + runs + " last=6"},
		{"a second stop", aPod(on("o4", methodStopContainer, "sb", "c"), done("o4", ""), on("o5", methodStopContainer, "sb", "c"), done("o5", "")),
			sandboxLine + "container c in sb on docker EXITED name=web image=img created=40 started=60 finished=80" + containerTail + " last=8"},
		{"a stop of what never ran", append(aPod()[:4], on("o4", methodStopContainer, "sb", "c"), done("o4", "")),
			sandboxLine + "container c in sb on docker CREATED name=web image=img created=40" + containerTail + " last=4"},
		{"a stop of what is not there", aPod(on("o4", methodStopContainer, "sb", "c"), failed("o4", codeNotFound)), sandboxLine},
		{"a removal", aPod(on("o4", methodRemoveContainer, "sb", "c"), done("o4", "")), sandboxLine},
		{"a removal of what is not there", aPod(on("o4", methodRemoveContainer, "sb", "c"), failed("o4", codeNotFound)), sandboxLine},
		{"a removal that failed", aPod(on("o4", methodRemoveContainer, "sb", "c"), failed("o4", 13)), sandboxLine + runs + " last=6"},
		{"a pod stopped", aPod(on("o4", methodStopPodSandbox, "sb", ""), done("o4", "")),
			strings.ReplaceAll(strings.Replace(sandboxLine, "READY", "NOTREADY", 1), "last=2", "last=8") +
				"container c in sb on docker EXITED name=web image=img created=40 started=60 finished=80" + containerTail + " last=8"},
		{"a pod stopped that is not there", aPod(on("o4", methodStopPodSandbox, "sb", ""), failed("o4", codeNotFound)), ""},
		{"a pod removed", aPod(on("o4", methodRemovePodSandbox, "sb", ""), done("o4", "")), ""},
		{"a pod removed that is not there", aPod(on("o4", methodRemovePodSandbox, "sb", ""), failed("o4", codeNotFound)), ""},
		{"an update not found", aPod(on("o4", "UpdateContainerResources", "sb", "c"), failed("o4", codeNotFound)), sandboxLine + runs + " last=6"},
		{"a pull", []*eventpb.Event{on("o4", "PullImage", "", ""), done("o4", "sha256:1")}, ""},
		{"health", []*eventpb.Event{
			ev("", "docker", &eventpb.Health{Up: true}), ev("", "docker", &eventpb.Health{Up: true}),
			ev("", "cri", &eventpb.Health{Up: true}), ev("", "cri", &eventpb.Health{Error: "gone"}), ev("", "", &eventpb.Health{Up: true}),
		}, "backend cri error=gone since=40\nbackend docker up=true since=10"},
		{"policy", []*eventpb.Event{
			ev("", "", &eventpb.Policy{DefaultBackend: "a", Epoch: 1}), ev("", "", &eventpb.Policy{DefaultBackend: "b", Epoch: 2}),
		}, "policy default=b epoch=2"},
		{"what changes nothing", []*eventpb.Event{
			ev("", "docker", &eventpb.Called{Method: "Exec"}), ev("", "docker", &eventpb.Probed{ContainerId: "c"}),
			ev("", "", &eventpb.Stopped{Reason: "signal"}), {Op: "o9"},
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := dump(fold(t, tt.events...)); got != strings.TrimSpace(tt.want) {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestFoldReboot(t *testing.T) {
	before := append([]*eventpb.Event{started("b1")}, aPod(createContainer("o4", "sb", "next"), done("o4", "d"))...)
	same := dump(fold(t, append(before, started("b1"))...))
	if want := dump(fold(t, before...)); same != want {
		t.Errorf("a restart in the same boot changed\n%s\nto\n%s", want, same)
	}
	s := fold(t, append(before, started("b2"))...)
	if got := s.Sandbox("sb").GetState(); got != notReady {
		t.Errorf("the sandbox is %v", got)
	}
	c := s.Container("c")
	if c.GetState() != exited || c.GetReason() != rebootReason || c.GetExitCode() != rebootExitCode || c.GetFinishedAt() != 100 {
		t.Errorf("the container that ran is %v", c)
	}
	if got := s.Container("d").GetState(); got != created {
		t.Errorf("the container that never ran is %v", got)
	}
	s = fold(t, append(before, started("b2"), sees(nil,
		&eventpb.Container{Id: "c", State: exited, ExitCode: 0, FinishedAt: 75, StartedAt: 60, Reason: "Completed"}))...)
	if c := s.Container("c"); c.GetExitCode() != 0 || c.GetReason() != "Completed" || c.GetFinishedAt() != 75 {
		t.Errorf("the observation did not correct what was assumed: %v", c)
	}
}

// A recovered outcome says what was found of what the operation had made.
func TestFoldRecovered(t *testing.T) {
	found := &eventpb.Outcome{Code: 10, Recovered: true, Sandbox: &eventpb.Sandbox{Id: "sb", State: notReady, CreatedAt: 12}}
	s := fold(t, run("o1", "docker", "u"), ev("o1", "docker", found))
	want := strings.NewReplacer("READY", "NOTREADY", "created=20", "created=12").Replace(sandboxLine)
	if got := dump(s); got != strings.TrimSpace(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	made := &eventpb.Outcome{Recovered: true, Id: "c", Container: &eventpb.Container{Id: "c", State: running, StartedAt: 35, CreatedAt: 33}}
	s = fold(t, append(aPod()[:3], ev("o2", "docker", made))...)
	want = sandboxLine + "container c in sb on docker RUNNING name=web image=img created=33 started=35" + containerTail + " last=4"
	if got := dump(s); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s = fold(t, ev("gone", "docker", &eventpb.Outcome{Sandbox: &eventpb.Sandbox{Id: "sb", State: ready}}))
	if s.Sandbox("sb").GetState() != ready {
		t.Error("what an outcome without an intent found is not known")
	}
}

func TestFoldErrors(t *testing.T) {
	newer := run("o2", "docker", "u")
	newer.MinReader = Schema + 1
	tests := []struct {
		name string
		e    *eventpb.Event
		seq  uint64
		want error
	}{
		{"the same number again", started("b"), 1, ErrRefused},
		{"an operation that is open", run("o1", "docker", "u"), 2, ErrRefused},
		{"an event for a newer reader", newer, 2, ErrNewer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := fold(t, run("o1", "docker", "u"))
			before := stateBytes(t, s)
			tt.e.Seq = tt.seq
			if err := s.Apply(tt.e); !errors.Is(err, tt.want) {
				t.Errorf("got %v", err)
			}
			if string(stateBytes(t, s)) != string(before) {
				t.Error("the state changed")
			}
		})
	}
	boom := errors.New("boom")
	var src iter.Seq2[*eventpb.Event, error] = func(yield func(*eventpb.Event, error) bool) { yield(nil, boom) }
	if _, err := Fold(src); !errors.Is(err, boom) {
		t.Errorf("Fold: %v", err)
	}
}

// Published records never change: who holds one may read it for ever.
func TestRecordsAreImmutable(t *testing.T) {
	s := NewState()
	type kept struct{ rec, copy proto.Message }
	var all []kept
	keep := func(m proto.Message) { all = append(all, kept{m, proto.Clone(m)}) }
	events := append(aPod(), run("o9", "docker", "v"), ev("o9", "docker", &eventpb.Step{Name: "a"}), ev("o9", "docker", &eventpb.Step{Name: "b"}),
		ev("o9", "docker", &eventpb.Step{Name: "c"}), started("b1"), started("b2"),
		sees([]*eventpb.Sandbox{{Id: "sb", State: ready, Labels: map[string]string{"new": "1"}}}, &eventpb.Container{Id: "c", State: running, StartedAt: 999}),
		on("o4", methodStopPodSandbox, "sb", ""), done("o4", ""))
	for e := range numbered(events) {
		if err := s.Apply(e); err != nil {
			t.Fatal(err)
		}
		for r := range s.Sandboxes() {
			keep(r)
		}
		for r := range s.Containers() {
			keep(r)
		}
		for r := range s.Operations() {
			keep(r)
		}
	}
	for _, k := range all {
		if !proto.Equal(k.rec, k.copy) {
			t.Errorf("a record changed after it was published:\n%v\nwas\n%v", k.rec, k.copy)
		}
	}
}

// The clones name each field: a new field in event.proto must come here too.
func TestClonesAreComplete(t *testing.T) {
	check := func(m, clone proto.Message) {
		if !proto.Equal(m, clone) {
			t.Errorf("the clone of %T lacks a field:\n%v\nof\n%v", m, clone, m)
		}
	}
	sb, c, o := &eventpb.Sandbox{}, &eventpb.Container{}, &eventpb.Operation{}
	for _, m := range []proto.Message{sb, c, o} {
		fillMessage(reflect.ValueOf(m).Elem())
	}
	check(sb, cloneSandbox(sb))
	check(c, cloneContainer(c))
	check(o, cloneOperation(o))

	// So must a merge, with nothing known before, lose no field.
	s := NewState()
	s.apply(&eventpb.Event{Seq: 1, Kind: &eventpb.Event_Observed{Observed: &eventpb.Observed{
		Sandboxes: []*eventpb.Sandbox{sb}, Containers: []*eventpb.Container{c}}}})
	check(sb, s.Sandbox(sb.GetId()))
	check(c, s.Container(c.GetId()))
}

// fillMessage sets every exported field of a message to something.
func fillMessage(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		if !v.Type().Field(i).IsExported() {
			continue
		}
		switch f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Int32:
			f.SetInt(3) // EXITED, of a container
		case reflect.Int64:
			f.SetInt(1)
		case reflect.Uint32, reflect.Uint64:
			f.SetUint(1)
		case reflect.Map:
			f.Set(reflect.ValueOf(map[string]string{"k": "v"}))
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			f.Index(0).Set(reflect.New(f.Type().Elem().Elem()))
		}
	}
}
