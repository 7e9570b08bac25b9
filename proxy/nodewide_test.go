package proxy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/proxy/wire"
)

// answering is a backend that answers some methods otherwise than its fake.
type answering struct {
	backends.Backend
	answers map[string]func() (proto.Message, error)
}

func (b *answering) Invoke(ctx context.Context, c *backends.Call) (backends.Answer, error) {
	fn := b.answers[c.Method[strings.LastIndexByte(c.Method, '/')+1:]]
	if fn == nil {
		return b.Backend.Invoke(ctx, c)
	}
	msg, err := fn()
	if err != nil {
		return backends.Answer{}, err
	}
	body, err := proto.Marshal(msg)
	return backends.Answer{Body: backends.NewFrame(body)}, err
}

type answers map[string]func() (proto.Message, error)

// answeringNode is a node whose backends answer some methods as given.
func answeringNode(t *testing.T, extra string, a, b answers) *node {
	return nodeOf(t, extra, func(f *fakeRuntime, back backends.Backend) backends.Backend {
		return &answering{back, map[string]answers{"a": a, "b": b}[f.name]}
	})
}

func says(msg proto.Message) func() (proto.Message, error) {
	return func() (proto.Message, error) { return msg, nil }
}

func fails(code codes.Code) func() (proto.Message, error) {
	return func() (proto.Message, error) { return nil, status.Error(code, "not here") }
}

func driver(d runtimeapi.CgroupDriver) func() (proto.Message, error) {
	return says(&runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: d}})
}

func ready(features *runtimeapi.RuntimeFeatures, handlers ...*runtimeapi.RuntimeHandler) *runtimeapi.StatusResponse {
	return &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
		}},
		Features: features, RuntimeHandlers: handlers,
	}
}

func (n *node) status(t *testing.T) *runtimeapi.StatusResponse {
	t.Helper()
	r, err := n.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReadyWhileOneRoutedBackendIs: on false the kubelet stops syncing every
// pod.
func TestReadyWhileOneRoutedBackendIs(t *testing.T) {
	unready := &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Message: "no cni"},
	}}}
	good := says(ready(nil))
	for _, row := range []struct {
		name             string
		a, b             func() (proto.Message, error)
		unrouted         bool // nothing leads to b
		runtime, network bool
		conditionA       string // reason, "" for true
		conditionB       string
	}{
		{"both are", good, good, false, true, true, "", ""},
		{"one has no network", says(unready), good, false, true, true, "NetworkReadyFalse", ""},
		{"one does not answer", fails(codes.Unavailable), good, false, true, true, "NotAnswering", ""},
		{"none has a network", says(unready), says(unready), false, true, false, "NetworkReadyFalse", "NetworkReadyFalse"},
		{"none answers", fails(codes.Unavailable), fails(codes.Unknown), false, false, false, "NotAnswering", "NotAnswering"},
		{"only the one without routes is", fails(codes.Unavailable), good, true, false, false, "NotAnswering", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := answeringNode(t, "", answers{"Status": row.a}, answers{"Status": row.b})
			if row.unrouted {
				n.restart(t, func(cfg *policy.Config) {
					cfg.Routes = slices.DeleteFunc(cfg.Routes, func(r policy.RouteRule) bool { return r.Backend == "b" })
				})
			}
			r := n.status(t)
			for name, want := range map[string]bool{runtimeapi.RuntimeReady: row.runtime, runtimeapi.NetworkReady: row.network} {
				if got := condition(r, name); got.GetStatus() != want {
					t.Errorf("%s is %v", name, got)
				}
			}
			for name, reason := range map[string]string{"Backend/a": row.conditionA, "Backend/b": row.conditionB} {
				if got := condition(r, name); got == nil || got.Status != (reason == "") || got.Reason != reason {
					t.Errorf("%s is %v, want reason %q", name, got, reason)
				}
			}
		})
	}
}

// TestStatusWithWhatIsNoText: what one backend says must not make the node's
// status unreadable.
func TestStatusWithWhatIsNoText(t *testing.T) {
	n := answeringNode(t, "", answers{"Status": says(ready(nil))}, answers{"Status": func() (proto.Message, error) {
		return nil, status.Error(codes.Internal, "\xff is broken")
	}})
	n.statusSays(t, map[string]bool{"RuntimeReady": true, "Backend/a": true, "Backend/b": false})
}

// TestHandlersAreThoseOfTheRoutes, each once, with the features that pods of
// it will have wherever they go.
func TestHandlersAreThoseOfTheRoutes(t *testing.T) {
	handler := func(name string, userns, rro bool) *runtimeapi.RuntimeHandler {
		return &runtimeapi.RuntimeHandler{Name: name, Features: &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: userns, RecursiveReadOnlyMounts: rro}}
	}
	all := &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true, UserNamespacesHostNetwork: true}
	down := atomic.Bool{}
	a := answers{"Status": func() (proto.Message, error) {
		if down.Load() {
			return nil, status.Error(codes.Unavailable, "gone")
		}
		return ready(&runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true}, handler("", true, true), handler("own-a", true, false), handler("unrouted", true, true)), nil
	}}
	show := func(n *node) string {
		t.Helper()
		var out []string
		r := n.status(t)
		for _, h := range r.RuntimeHandlers {
			out = append(out, fmt.Sprintf("%s:%v,%v", h.Name, h.Features.GetUserNamespaces(), h.Features.GetRecursiveReadOnlyMounts()))
		}
		return fmt.Sprintf("%s groups=%v mounts=%v", strings.Join(out, " "), r.Features.GetSupplementalGroupsPolicy(), r.Features.GetMountOptions())
	}
	withB := func(extra string, b *runtimeapi.StatusResponse) *node {
		return answeringNode(t, extra, a, answers{"Status": says(b)})
	}
	n := withB("", ready(all, handler("", false, true)))
	want := ":true,true front-a:true,false front-b:false,true groups=true mounts=false"
	if got := show(n); got != want {
		t.Errorf("handlers and features are %q, want %q", got, want)
	}
	// What a runtime can do does not end while it is away.
	down.Store(true)
	if got := show(n); got != want {
		t.Errorf("while a is away they are %q", got)
	}
	down.Store(false)
	// A runtime that gets no pods takes nothing from the others.
	lone := answeringNode(t, "", answers{"Status": says(ready(all, handler("", true, true)))}, answers{"Status": says(ready(nil))})
	lone.restart(t, func(cfg *policy.Config) { cfg.Routes = nil })
	if got, want := show(lone), ":true,true groups=true mounts=true"; got != want {
		t.Errorf("beside a runtime without routes they are %q, want %q", got, want)
	}
	const move = "migration: {to: b, percent: 0}\n"
	if got, want := show(withB(move, ready(all, handler("", false, true)))), ":false,true front-a:true,false front-b:false,true groups=true mounts=false"; got != want {
		t.Errorf("in a migration they are %q, want %q", got, want)
	}
	if got, want := show(withB(move, ready(nil))), ":false,false front-a:true,false groups=false mounts=false"; got != want {
		t.Errorf("in a migration to a runtime that lists none they are %q, want %q", got, want)
	}
}

// TestStatusOfANewerRuntime: what this version of crimux does not know passes
// through, the default's.
func TestStatusOfANewerRuntime(t *testing.T) {
	newer := func(value string) func() (proto.Message, error) {
		r := ready(nil)
		r.ProtoReflect().SetUnknown(wire.AppendItem(nil, 77, []byte(value)))
		return says(r)
	}
	n := answeringNode(t, "", answers{"Status": newer("of a")}, answers{"Status": newer("of b")})
	if got := wire.Message(n.status(t).ProtoReflect().GetUnknown()).String(77); got != "of a" {
		t.Errorf("the newer field is %q", got)
	}
}

// TestAnotherCgroupDriver fences a backend: no new pods, and all else as ever.
func TestAnotherCgroupDriver(t *testing.T) {
	const config = `{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"runtimeType":"io.containerd.runc.v2","options":{"SystemdCgroup":%v}}}}}`
	verbose := func(systemd bool) func() (proto.Message, error) {
		r := ready(nil)
		r.Info = map[string]string{"config": fmt.Sprintf(config, systemd)}
		return says(r)
	}
	silent := answers{"RuntimeConfig": fails(codes.Unimplemented)}
	for _, row := range []struct {
		name   string
		a, b   answers
		fenced bool
	}{
		{"the same", answers{"RuntimeConfig": driver(0)}, answers{"RuntimeConfig": driver(0)}, false},
		{"another", answers{"RuntimeConfig": driver(0)}, answers{"RuntimeConfig": driver(1)}, true},
		{"the same, by its status", answers{"RuntimeConfig": driver(0)}, answers{"RuntimeConfig": fails(codes.Unimplemented), "Status": verbose(true)}, false},
		{"another, by its status", answers{"RuntimeConfig": driver(0)}, answers{"RuntimeConfig": fails(codes.Unimplemented), "Status": verbose(false)}, true},
		{"another, the default by its status", answers{"RuntimeConfig": fails(codes.Unimplemented), "Status": verbose(true)}, answers{"RuntimeConfig": driver(1)}, true},
		{"it does not tell", answers{"RuntimeConfig": driver(0)}, silent, false},
		{"the default does not tell", silent, answers{"RuntimeConfig": driver(1)}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := answeringNode(t, "", row.a, row.b)
			n.run(t, "on-a", "front-a")
			_, err := n.RunPodSandbox(t.Context(), runRequest("on-b", "front-b"))
			c := condition(n.status(t), "Backend/b")
			if !row.fenced {
				if err != nil || c.Reason == cgroupDriverDiffers {
					t.Errorf("a pod: %v; the condition: %v", err, c)
				}
				return
			}
			wantCode(t, err, codes.FailedPrecondition, `"b"`, "cgroupfs", `"a"`, "systemd", "configure both alike")
			if n.b.called("RunPodSandbox") != 0 {
				t.Error("the backend was asked for it all the same")
			}
			if c.Status || c.Reason != cgroupDriverDiffers || !strings.Contains(c.Message, "systemd") {
				t.Errorf("its condition is %v", c)
			}
			if r := condition(n.status(t), runtimeapi.RuntimeReady); !r.GetStatus() {
				t.Errorf("the node is %v", r)
			}
		})
	}
}

// TestFencedPodsAreServed: a runtime that comes back with another driver keeps
// the pods it has, and is let in again when it is configured alike.
func TestFencedPodsAreServed(t *testing.T) {
	var differs atomic.Bool
	n := answeringNode(t, "", answers{"RuntimeConfig": driver(1)}, answers{"RuntimeConfig": func() (proto.Message, error) {
		if differs.Load() {
			return driver(0)()
		}
		return driver(1)()
	}})
	sb := n.run(t, "old", "front-b")
	restart := func(to bool) {
		differs.Store(to)
		n.b.stop()
		eventually(t, "b is away", func() bool { return n.server.set.Get("b").Check() != nil })
		n.b.start(t)
		n.waitUp(t)
	}
	restart(true)
	_, err := n.RunPodSandbox(t.Context(), runRequest("new", "front-b"))
	wantCode(t, err, codes.FailedPrecondition)
	ctr := n.create(t, sb, "main")
	if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: ctr}); err != nil {
		t.Errorf("a container of its old pod: %v", err)
	}
	if _, err := n.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sb}); err != nil {
		t.Errorf("its old pod cannot be stopped: %v", err)
	}
	restart(false)
	n.run(t, "new", "front-b")
}

func TestDriverOfInfo(t *testing.T) {
	for config, want := range map[string]string{
		`{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"runtimeType":"io.containerd.runc.v2","options":{"SystemdCgroup":true}}}}}`: "systemd",
		`{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"runtimeType":"io.containerd.runc.v2","options":null}}}}`:                   "cgroupfs",
		`{"containerd":{"defaultRuntimeName":"kata","runtimes":{"kata":{"runtimeType":"io.containerd.kata.v2","options":{}}}}}`:                     "",
		`{"containerd":{"defaultRuntimeName":"gone","runtimes":{}}}`:                                                                                "",
		`{"sandboxImage":"pause"}`: "",
		`not json`:                 "",
		``:                         "",
	} {
		if got := driverOfInfo(config); got != want {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}

func FuzzDriverOfInfo(f *testing.F) {
	f.Add(`{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":1}}}}}`)
	f.Fuzz(func(t *testing.T, config string) {
		if got := driverOfInfo(config); got != "" && got != "systemd" && got != "cgroupfs" {
			t.Errorf("%q", got)
		}
	})
}

// TestRuntimeConfigReachesAll: the error of one keeps no other from it, and
// one that was away is told when it comes back.
func TestRuntimeConfigReachesAll(t *testing.T) {
	n := newNode(t)
	var cidrs [2]atomic.Value
	var refuse, stumble atomic.Bool
	for i, f := range []*fakeRuntime{n.a, n.b} {
		cidrs[i].Store("")
		f.setBefore(func(_ context.Context, _ string, req any) error {
			r, ok := req.(*runtimeapi.UpdateRuntimeConfigRequest)
			if ok && i == 0 && refuse.Load() {
				return status.Error(codes.InvalidArgument, "not this one")
			}
			if ok && i == 1 && stumble.Swap(false) {
				return status.Error(codes.Unknown, "some trouble")
			}
			if ok {
				cidrs[i].Store(r.RuntimeConfig.NetworkConfig.PodCidr)
			}
			return nil
		})
	}
	update := func(cidr string) error {
		_, err := n.UpdateRuntimeConfig(t.Context(), &runtimeapi.UpdateRuntimeConfigRequest{
			RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: cidr}},
		})
		return err
	}
	refuse.Store(true)
	wantCode(t, update("10.1.0.0/24"), codes.InvalidArgument, "not this one")
	if cidrs[1].Load() != "10.1.0.0/24" {
		t.Errorf("b was told %q", cidrs[1].Load())
	}
	refuse.Store(false)
	n.b.stop()
	eventually(t, "b is away", func() bool { return n.server.set.Get("b").Check() != nil })
	wantCode(t, update("10.2.0.0/24"), codes.Unavailable, `"b"`)
	if cidrs[0].Load() != "10.2.0.0/24" {
		t.Errorf("a was told %q", cidrs[0].Load())
	}
	n.b.start(t)
	eventually(t, "b is told when it is back", func() bool { return cidrs[1].Load() == "10.2.0.0/24" })
	// So is one that was there and could not answer.
	stumble.Store(true)
	wantCode(t, update("10.3.0.0/24"), codes.Unknown)
	eventually(t, "b is told once more", func() bool { return cidrs[1].Load() == "10.3.0.0/24" })
	// Not again and again.
	calls := n.b.called("UpdateRuntimeConfig")
	time.Sleep(100 * time.Millisecond)
	if got := n.b.called("UpdateRuntimeConfig"); got != calls {
		t.Errorf("it was told %d times more", got-calls)
	}
}

// TestRuntimeConfigOfARuntimeThatCameBack: one that was restarted after it took
// the config, while another was still asked, is owed it.
func TestRuntimeConfigOfARuntimeThatCameBack(t *testing.T) {
	n := newIdleNode(t)
	a := n.server.attendants["a"]
	n.b.during("UpdateRuntimeConfig", func() {
		eventually(t, "a has been asked", func() bool { return n.a.called("UpdateRuntimeConfig") == 1 })
		a.healthChanged(backends.Health{Up: true})
	})
	n.do(t, runtimeapi.RuntimeService_UpdateRuntimeConfig_FullMethodName, &runtimeapi.UpdateRuntimeConfigRequest{
		RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: "10.1.0.0/24"}},
	})
	if !n.server.settings.tell(t.Context(), a) || n.a.called("UpdateRuntimeConfig") != 2 {
		t.Errorf("it was told %d times", n.a.called("UpdateRuntimeConfig"))
	}
}

// TestACgroupDriverOfBefore is not that of the runtime that has come back.
func TestACgroupDriverOfBefore(t *testing.T) {
	n := newIdleNode(t)
	b := n.server.attendants["b"]
	n.b.during("RuntimeConfig", func() { b.healthChanged(backends.Health{Up: true}) })
	if b.learn(t.Context()) {
		t.Error("what the runtime said before it was restarted counts")
	}
	if !b.learn(t.Context()) || b.cgroupDriver() != "cgroupfs" {
		t.Errorf("driver %q", b.cgroupDriver())
	}
}

// TestACgroupDriverBehindAnOutage: who asks for a pod right after the runtime is
// seen to be back, and while it is asked, is not told by what was before.
func TestACgroupDriverBehindAnOutage(t *testing.T) {
	n := newIdleNode(t)
	b := n.server.attendants["b"]
	b.learnPresent(t.Context())
	if asked := n.b.called("RuntimeConfig"); asked != 1 || b.cgroupDriver() != "cgroupfs" {
		t.Fatalf("asked %d times, driver %q", asked, b.cgroupDriver())
	}
	b.healthChanged(backends.Health{})
	n.b.during("RuntimeConfig", func() { b.healthChanged(backends.Health{Up: true}) })
	b.learnPresent(t.Context())
	if asked := n.b.called("RuntimeConfig"); asked != 3 {
		t.Errorf("asked %d times, once before the outage", asked)
	}
}

// TestStatsOfSome: of statistics a part is better than nothing, and a runtime
// that has none is passed over; it is an error where none has.
func TestStatsOfSome(t *testing.T) {
	one := says(&runtimeapi.ListPodSandboxStatsResponse{Stats: []*runtimeapi.PodSandboxStats{{Attributes: &runtimeapi.PodSandboxAttributes{Id: "s"}}}})
	for _, row := range []struct {
		a, b func() (proto.Message, error)
		code codes.Code
		n    int
	}{
		{one, one, codes.OK, 2},
		{fails(codes.Unimplemented), one, codes.OK, 1},
		{one, fails(codes.Unimplemented), codes.OK, 1},
		{one, fails(codes.Unavailable), codes.OK, 1},
		{fails(codes.Unimplemented), fails(codes.Unimplemented), codes.Unimplemented, 0},
		// The kubelet would take Unimplemented for good.
		{fails(codes.Unimplemented), fails(codes.Unavailable), codes.Unavailable, 0},
		{fails(codes.Unavailable), fails(codes.Unimplemented), codes.Unavailable, 0},
	} {
		n := answeringNode(t, "", answers{"ListPodSandboxStats": row.a}, answers{"ListPodSandboxStats": row.b})
		r, err := n.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{})
		if status.Code(err) != row.code || len(r.GetStats()) != row.n {
			t.Errorf("got %v, %v; want %d and %s", r, err, row.n, row.code)
		}
	}
}
