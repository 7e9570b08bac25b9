package store

import (
	"iter"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

// twoBackends is a pod that moved: an exited sandbox on docker, a live one on
// containerd, and a third that is being made on docker.
func twoBackends() []*eventpb.Event {
	return aPod(
		on("o4", methodStopPodSandbox, "sb", ""), done("o4", ""),
		run("p1", "containerd", "u"), done("p1", "sb2"),
		run("p2", "docker", "u"),
	)
}

func TestQueries(t *testing.T) {
	all := twoBackends()
	tests := []struct {
		name      string
		events    []*eventpb.Event
		decision  string
		live      string
		liveIsSet bool
		byKey     string
	}{
		{"nothing", nil, "", "", false, ""},
		{"one that is being made", all[:1], "docker", "docker", true, ""},
		{"one that is ready", all[:2], "docker", "docker", true, "sb"},
		{"one that stopped", all[:8], "docker", "", false, ""},
		{"one that is being made elsewhere", all[:9], "containerd", "containerd", true, ""},
		{"one that moved", all[:10], "containerd", "containerd", true, "sb2"},
		{"one that moves back", all, "docker", "docker", true, "sb2"},
		{"a container that outlives its sandbox", aPod(sees([]*eventpb.Sandbox{{Id: "sb", State: notReady}})), "docker", "docker", true, ""},
		{"one without a route", []*eventpb.Event{sees([]*eventpb.Sandbox{{Id: "x", State: ready, Pod: pod("u")}})}, "", "docker", true, "x"},
		{"two at once", []*eventpb.Event{sees([]*eventpb.Sandbox{{Id: "x", State: ready, Pod: pod("u")}, {Id: "y", State: ready, Pod: pod("u"), Backend: "cri"}})},
			"", "cri", true, "y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := fold(t, tt.events...)
			r, ok := s.Decision("u")
			if r.GetBackend() != tt.decision || ok != (tt.decision != "") {
				t.Errorf("Decision is %v, %v; want %q", r, ok, tt.decision)
			}
			if b, ok := s.Live("u"); b != tt.live || ok != tt.liveIsSet {
				t.Errorf("Live is %q, %v; want %q", b, ok, tt.live)
			}
			if got := s.SandboxByKey(pod("u")).GetId(); got != tt.byKey {
				t.Errorf("SandboxByKey is %q, want %q", got, tt.byKey)
			}
			if _, ok := s.Decision("nobody"); ok {
				t.Error("there is a decision about nobody")
			}
			checkIndexes(t, s)
		})
	}
}

func TestQueryKeys(t *testing.T) {
	s := fold(t, aPod()...)
	for _, change := range []func(*eventpb.PodKey){
		func(k *eventpb.PodKey) { k.Attempt++ },
		func(k *eventpb.PodKey) { k.Namespace = "other" },
		func(k *eventpb.PodKey) { k.Name = "other" },
		func(k *eventpb.PodKey) { k.Uid = "other" },
	} {
		k := pod("u")
		if s.SandboxByKey(k) == nil {
			t.Fatal("the sandbox is not found by its key")
		}
		if change(k); s.SandboxByKey(k) != nil {
			t.Errorf("it is found by %v too", k)
		}
	}
	if got := s.ContainerByName("sb", "web", 0).GetId(); got != "c" {
		t.Errorf("ContainerByName is %q", got)
	}
	if s.ContainerByName("sb", "web", 1) != nil || s.ContainerByName("sb", "db", 0) != nil || s.ContainerByName("x", "web", 0) != nil {
		t.Error("ContainerByName finds what is not asked for")
	}
	s = fold(t, aPod(createContainer("o5", "sb", "web"), done("o5", "c2"))...)
	if got := s.ContainerByName("sb", "web", 0).GetId(); got != "c2" {
		t.Errorf("ContainerByName is %q, not the newest", got)
	}
	if s = fold(t, ev("", "", &eventpb.Policy{Epoch: 7})); s.Epoch() != 7 || s.Policy().GetEpoch() != 7 {
		t.Errorf("Epoch is %d", s.Epoch())
	}
}

// checkIndexes compares each index with a search through all records.
func checkIndexes(t testing.TB, s *State) {
	t.Helper()
	for r := range s.Sandboxes() {
		has(t, "SandboxesOf", s.SandboxesOf(r.GetBackend()), r)
		has(t, "SandboxesOfPod", s.SandboxesOfPod(r.GetPod().GetUid()), r)
	}
	for r := range s.Containers() {
		has(t, "ContainersOf", s.ContainersOf(r.GetBackend()), r)
		has(t, "ContainersIn", s.ContainersIn(r.GetSandboxId()), r)
	}
	runs := 0
	for r := range s.Operations() {
		has(t, "OperationsOf", s.OperationsOf(r.GetBackend()), r)
		if r.GetIntent().GetMethod() == methodRunPodSandbox {
			has(t, "runs", s.runsByUID.of(r.GetIntent().GetPod().GetUid()), r)
			runs++
		}
	}
	for name, n := range map[string][2]int{
		"byUID":               {sizeOf(s.byUID), len(s.sandboxes)},
		"byBackend":           {sizeOf(s.byBackend), len(s.sandboxes)},
		"containersBySandbox": {sizeOf(s.containersBySandbox), len(s.containers)},
		"containersByBackend": {sizeOf(s.containersByBackend), len(s.containers)},
		"operationsByBackend": {sizeOf(s.operationsByBackend), len(s.operations)},
		"runsByUID":           {sizeOf(s.runsByUID), runs},
	} {
		if n[0] != n[1] {
			t.Errorf("%s holds %d records of %d", name, n[0], n[1])
		}
	}
}

func has[T comparable](t testing.TB, what string, seq iter.Seq[T], rec T) {
	t.Helper()
	if !slices.Contains(slices.Collect(seq), rec) {
		t.Errorf("%s lacks %v", what, rec)
	}
}

func sizeOf[T any](g groups[T]) int {
	n := 0
	for _, m := range g {
		if len(m) == 0 {
			return -1 // an empty group is a leak
		}
		n += len(m)
	}
	return n
}

func TestProto(t *testing.T) {
	s := fold(t, append(twoBackends(), started("b1"), ev("", "docker", &eventpb.Health{Up: true}), ev("", "", &eventpb.Policy{Epoch: 3}))...)
	wire := stateBytes(t, s)
	m := &eventpb.State{}
	if err := proto.Unmarshal(wire, m); err != nil {
		t.Fatal(err)
	}
	back, err := FromProto(m)
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, "round trip", s, back)
	checkIndexes(t, back)
	if back.Seq() != s.Seq() || back.BootID() != "b1" || back.Operation("p2") == nil || !back.Backend("docker").GetUp() {
		t.Errorf("the round trip lost something:\n%s", dump(back))
	}
	if got := len(slices.Collect(back.Backends())); got != 1 {
		t.Errorf("%d backends", got)
	}
}

func TestFromProtoRefuses(t *testing.T) {
	sb, c := &eventpb.Sandbox{Id: "a"}, &eventpb.Container{Id: "a"}
	o, b := &eventpb.Operation{Op: "a"}, &eventpb.Backend{Name: "a"}
	for _, m := range []*eventpb.State{
		{Sandboxes: []*eventpb.Sandbox{sb, sb}}, {Sandboxes: []*eventpb.Sandbox{{}}},
		{Containers: []*eventpb.Container{c, c}}, {Containers: []*eventpb.Container{{}}},
		{Operations: []*eventpb.Operation{o, o}}, {Operations: []*eventpb.Operation{{}}},
		{Backends: []*eventpb.Backend{b, b}}, {Backends: []*eventpb.Backend{{}}},
	} {
		if _, err := FromProto(m); err == nil {
			t.Errorf("taken: %v", m)
		}
	}
}
