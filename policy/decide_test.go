package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
)

// view is a View made by hand.
type view struct {
	epoch     uint64
	decisions map[string]Decision
	live      map[string]string
}

func (v view) Epoch() uint64 { return v.epoch }

func (v view) Decision(uid string) (Decision, bool) {
	d, ok := v.decisions[uid]
	return d, ok
}

func (v view) Live(uid string) (string, bool) {
	backend, ok := v.live[uid]
	return backend, ok
}

// remember returns a view that also knows the route.
func (v view) remember(uid string, r Route) view {
	next := view{epoch: v.epoch, decisions: map[string]Decision{uid: r.Decision()}, live: v.live}
	for k, d := range v.decisions {
		if k != uid {
			next.decisions[k] = d
		}
	}
	return next
}

// migrating returns the pinned configuration with a migration.
func migrating(t testing.TB, percent int, backendHandler string) *Config {
	t.Helper()
	c, err := pinnedConfig().WithMigration(Migration{To: "containerd", BackendHandler: backendHandler, Percent: percent})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Two uids whose places are known.
const (
	uid12 = "6311d4d8-0000-4000-8000-000000000058"
	uid45 = "c17c31a5-0000-4000-8000-000000000035"
)

// golden are places computed outside of Go.
var golden = map[string]int{
	"":                                     52,
	"a":                                    50,
	"0f0e9a34-3a53-4c5e-a0a5-2f3a1f0c8d11": 26,
	"d4735e3a-265e-46ee-a03f-59718b9b5d03": 98,
	"c5b2e4a1f0d94c7e8a6b3d2f1e0c9b8a":     34,
	"kube-system/static":                   34,
	"ü":                                    28,
	"28b7bc6f-0000-4000-8000-00000000001f": 0,
	"a195a333-0000-4000-8000-000000000023": 99,
	"6311d4d8-0000-4000-8000-000000000058": 12,
	"c17c31a5-0000-4000-8000-000000000035": 45,
}

func TestBucketGolden(t *testing.T) {
	// These may never change: nodes have pods that were placed by them. They
	// come from sha256sum, not from Bucket.
	for uid, want := range golden {
		if got := Bucket(uid); got != want {
			t.Errorf("Bucket(%q) = %d, want %d", uid, got, want)
		}
	}
}

func TestBucketDistribution(t *testing.T) {
	const n = 100_000
	source := rand.New(rand.NewPCG(1, 2))
	var random, counted [100]int
	for i := range n {
		a, b := source.Uint64(), source.Uint64()
		random[Bucket(fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", uint32(a), uint16(a>>32), a>>52, uint16(b), b>>16))]++
		counted[Bucket("static-pod-"+strconv.Itoa(i))]++
	}
	// 1000 are expected in each, with a standard deviation of 31.5.
	for bucket := range 100 {
		for kind, got := range map[string]int{"random": random[bucket], "counted": counted[bucket]} {
			if got < 850 || got > 1150 {
				t.Errorf("%s uids: bucket %d has %d of %d", kind, bucket, got, n)
			}
		}
	}
}

// decideCase is a pod under a state and a configuration, and where it goes.
type decideCase struct {
	name   string
	pod    Pod
	view   view
	config *Config
	want   Route
}

// runDecide checks where the pod of each case goes.
func runDecide(t *testing.T, cases []decideCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decide(c.pod, c.view, c.config)
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// before is a memory of uid12 having been decided.
func before(backend, handler string, epoch uint64) map[string]Decision {
	return map[string]Decision{uid12: {Backend: backend, BackendHandler: handler, Epoch: epoch}}
}

// on says that something of uid12 runs.
func on(backend string) map[string]string { return map[string]string{uid12: backend} }

func TestDecide(t *testing.T) {
	plain := pinnedConfig()
	plain.Migration = Migration{}
	runDecide(t, []decideCase{
		{"handler", Pod{UID: uid12, Handler: "containerd"}, view{epoch: 3}, plain,
			Route{Handler: "containerd", Backend: "containerd", Rule: "handler containerd", Epoch: 3}},
		{"a handler is never migrated", Pod{UID: uid12, Handler: "docker"}, view{epoch: 3}, migrating(t, 100, ""),
			Route{Handler: "docker", Backend: "docker", Rule: "handler docker", Epoch: 3}},
		{"a handler is not bound by what was", Pod{UID: uid12, Handler: "docker"},
			view{epoch: 3, decisions: before("containerd", "", 3), live: on("gone")}, plain,
			Route{Handler: "docker", Backend: "docker", Rule: "handler docker", Epoch: 3}},
		{"default", Pod{UID: uid12}, view{}, plain, Route{Backend: "docker", Rule: "default"}},
		{"default does not remember without a migration", Pod{UID: uid12}, view{epoch: 3, decisions: before("containerd", "", 3)}, plain,
			Route{Backend: "docker", Rule: "default", Epoch: 3}},
		{"live without a migration", Pod{UID: uid12}, view{epoch: 3, decisions: before("containerd", "runc", 2), live: on("containerd")}, plain,
			Route{Backend: "containerd", BackendHandler: "runc", Rule: "default: uid runs on containerd", Epoch: 2}},
		{"below", Pod{UID: uid12}, view{epoch: 4}, migrating(t, 13, "runc"),
			Route{Backend: "containerd", BackendHandler: "runc", Rule: "migration to containerd: bucket 12 < 13%", Epoch: 4}},
		{"equal is not below", Pod{UID: uid12}, view{epoch: 4}, migrating(t, 12, "runc"),
			Route{Backend: "docker", Rule: "default: bucket 12 ≥ 12%", Epoch: 4}},
		{"above", Pod{UID: uid45}, view{epoch: 4}, migrating(t, 30, ""),
			Route{Backend: "docker", Rule: "default: bucket 45 ≥ 30%", Epoch: 4}},
		{"none", Pod{UID: uid12}, view{epoch: 4}, migrating(t, 0, ""),
			Route{Backend: "docker", Rule: "default: bucket 12 ≥ 0%", Epoch: 4}},
		{"all", Pod{UID: uid45}, view{epoch: 4}, migrating(t, 100, ""),
			Route{Backend: "containerd", Rule: "migration to containerd: bucket 45 < 100%", Epoch: 4}},
	})
}

func TestDecideWithMemory(t *testing.T) {
	runDecide(t, []decideCase{
		{"decided in this epoch", Pod{UID: uid12}, view{epoch: 4, decisions: before("docker", "", 4)}, migrating(t, 100, ""),
			Route{Backend: "docker", Rule: "default: decided before", Epoch: 4}},
		{"decided in this epoch keeps its handler", Pod{UID: uid12}, view{epoch: 4, decisions: before("containerd", "old", 4)}, migrating(t, 0, "new"),
			Route{Backend: "containerd", BackendHandler: "old", Rule: "default: decided before", Epoch: 4}},
		{"decided in another epoch", Pod{UID: uid12}, view{epoch: 5, decisions: before("docker", "", 4)}, migrating(t, 100, ""),
			Route{Backend: "containerd", Rule: "migration to containerd: bucket 12 < 100%", Epoch: 5}},
		{"rolled back", Pod{UID: uid12}, view{epoch: 5, decisions: before("containerd", "", 4)}, migrating(t, 0, ""),
			Route{Backend: "docker", Rule: "default: bucket 12 ≥ 0%", Epoch: 5}},
		{"decided for a backend that has no part in it", Pod{UID: uid12}, view{epoch: 4, decisions: before("gone", "", 4)}, migrating(t, 13, ""),
			Route{Backend: "containerd", Rule: "migration to containerd: bucket 12 < 13%", Epoch: 4}},
		{"live before decided", Pod{UID: uid12}, view{epoch: 4, decisions: before("containerd", "", 4), live: on("docker")}, migrating(t, 100, ""),
			Route{Backend: "docker", Rule: "default: uid runs on docker"}},
		{"live on the target, adopted", Pod{UID: uid12}, view{epoch: 4, live: on("containerd")}, migrating(t, 0, "runc"),
			Route{Backend: "containerd", BackendHandler: "runc", Rule: "default: uid runs on containerd"}},
		{"live on the target, decided", Pod{UID: uid12}, view{epoch: 4, decisions: before("containerd", "", 3), live: on("containerd")}, migrating(t, 0, "runc"),
			Route{Backend: "containerd", Rule: "default: uid runs on containerd", Epoch: 3}},
		{"no uid binds nobody", Pod{}, view{epoch: 4, decisions: map[string]Decision{"": {Backend: "containerd", Epoch: 4}}, live: map[string]string{"": "gone"}}, migrating(t, 0, ""),
			Route{Backend: "docker", Rule: "default: bucket 52 ≥ 0%", Epoch: 4}},
	})
}

func TestDecideErrors(t *testing.T) {
	none := pinnedConfig()
	none.Routes = nil
	for _, c := range []struct {
		name   string
		pod    Pod
		view   view
		config *Config
		want   string
	}{
		{"unknown handler", Pod{Handler: "kata"}, view{}, pinnedConfig(),
			`no route for runtime handler "kata": the configuration has routes for containerd, docker; correct the handler of the pod's RuntimeClass or add a route for it to the configuration`},
		{"no routes", Pod{Handler: "kata"}, view{}, none,
			`no route for runtime handler "kata": the configuration has no routes; correct the handler of the pod's RuntimeClass or add a route for it to the configuration`},
		{"missing backend", Pod{Namespace: "ns", Name: "web", UID: uid12}, view{live: map[string]string{uid12: "podman"}}, none,
			`pod ns/web (uid 6311d4d8-0000-4000-8000-000000000058) still runs on backend "podman", which the configuration no longer has: configure that backend again, or run "crimux forget podman" if it will never come back`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decide(c.pod, c.view, c.config)
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			if got != (Route{}) {
				t.Errorf("there is a route besides the error: %+v", got)
			}
		})
	}
}

func TestDecideErrorTypes(t *testing.T) {
	_, err := Decide(Pod{Handler: "kata"}, view{}, pinnedConfig())
	var unknown *UnknownHandlerError
	if !errors.As(err, &unknown) || !reflect.DeepEqual(*unknown, UnknownHandlerError{Handler: "kata", Known: []string{"containerd", "docker"}}) {
		t.Errorf("unknown handler: %#v", err)
	}
	pod := Pod{UID: "u"}
	_, err = Decide(pod, view{live: map[string]string{"u": "podman"}}, pinnedConfig())
	var missing *MissingBackendError
	if !errors.As(err, &missing) || *missing != (MissingBackendError{Pod: pod, Backend: "podman"}) {
		t.Errorf("missing backend: %#v", err)
	}
}

// A pod that must stay because it still runs has not been decided: once nothing
// of it runs any more, the migration must reach it in the same epoch.
func TestStayingDoesNotPostponeTheMigration(t *testing.T) {
	c := migrating(t, 100, "")
	v := view{epoch: 7, decisions: map[string]Decision{uid12: {Backend: "docker", Epoch: 3}}, live: map[string]string{uid12: "docker"}}
	stays, err := Decide(Pod{UID: uid12}, v, c)
	if err != nil || stays.Backend != "docker" {
		t.Fatalf("while it runs: %+v, %v", stays, err)
	}
	v = v.remember(uid12, stays)
	v.live = nil
	moves, err := Decide(Pod{UID: uid12}, v, c)
	if err != nil || moves.Backend != "containerd" {
		t.Errorf("when it runs no more: %+v, %v", moves, err)
	}
}

// Raising the percentage only adds pods to those that move, and lowering it
// only takes some away.
func TestRaisingThePercentageOnlyAdds(t *testing.T) {
	configs := make([]*Config, 101)
	for percent := range configs {
		configs[percent] = migrating(t, percent, "")
	}
	source := rand.New(rand.NewPCG(3, 4))
	moved := make([]int, 101)
	for range 2000 {
		pod := Pod{UID: strconv.FormatUint(source.Uint64(), 36)}
		before := "docker"
		for percent, c := range configs {
			r, err := Decide(pod, view{epoch: uint64(percent)}, c)
			if err != nil {
				t.Fatal(err)
			}
			if before == "containerd" && r.Backend != "containerd" {
				t.Fatalf("uid %s: moved at %d%%, stays at %d%%", pod.UID, percent-1, percent)
			}
			if before = r.Backend; before == "containerd" {
				moved[percent]++
			}
		}
	}
	if moved[0] != 0 || moved[100] != 2000 {
		t.Errorf("0%% moved %d, 100%% moved %d of 2000", moved[0], moved[100])
	}
}

// Whatever the state, equal arguments give equal answers, a decision that is
// remembered is repeated, and a pod that runs is never sent elsewhere.
func TestDecideProperties(t *testing.T) {
	source := rand.New(rand.NewPCG(5, 6))
	backends := []string{"docker", "containerd"}
	for range 5000 {
		c := migrating(t, source.IntN(101), "")
		if source.IntN(4) == 0 {
			c.Migration = Migration{}
		}
		pod := Pod{UID: strconv.Itoa(source.IntN(1000))}
		v := view{epoch: source.Uint64N(3)}
		if source.IntN(2) == 0 {
			v.decisions = map[string]Decision{pod.UID: {Backend: backends[source.IntN(2)], Epoch: source.Uint64N(3)}}
		}
		if source.IntN(3) == 0 {
			v.live = map[string]string{pod.UID: backends[source.IntN(2)]}
		}
		first, err := Decide(pod, v, c)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := Decide(pod, v, c); err != nil || second != first {
			t.Fatalf("%+v under %+v: first %+v, then %+v, %v", pod, v, first, second, err)
		}
		again, err := Decide(pod, v.remember(pod.UID, first), c)
		if err != nil || again.Backend != first.Backend || again.BackendHandler != first.BackendHandler {
			t.Fatalf("%+v under %+v: first %+v, remembered %+v, %v", pod, v, first, again, err)
		}
		if runs, ok := v.Live(pod.UID); ok && first.Backend != runs {
			t.Fatalf("%+v under %+v: sent to %s while it runs", pod, v, first.Backend)
		}
	}
}

func TestDecideDoesNotAllocateForTheDefault(t *testing.T) {
	c, pod := pinnedConfig(), Pod{UID: uid45}
	c.Migration = Migration{}
	v := View(view{})
	if n := testing.AllocsPerRun(100, func() {
		if _, err := Decide(pod, v, c); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for the default", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	c, pod := migrating(b, 50, ""), Pod{UID: "0f0e9a34-3a53-4c5e-a0a5-2f3a1f0c8d11"}
	for b.Loop() {
		if _, err := Decide(pod, view{}, c); err != nil {
			b.Fatal(err)
		}
	}
}
