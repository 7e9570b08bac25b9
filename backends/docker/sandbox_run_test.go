package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

func podConfig() *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:  &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "shop", Uid: "u-1", Attempt: 2},
		Hostname:  "web",
		DnsConfig: &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}},
		Labels:    map[string]string{"app": "web"}, Annotations: map[string]string{"a": "b"},
	}
}

func (b *bench) runPod(j backends.Journal, c *runtimeapi.PodSandboxConfig) (string, error) {
	r, err := b.RunPodSandbox(withJournal(context.Background(), j), &runtimeapi.RunPodSandboxRequest{Config: c})
	return r.GetPodSandboxId(), err
}

// listedPods are the sandboxes in the list, with their state.
func (b *bench) listedPods(t *testing.T) map[string]runtimeapi.PodSandboxState {
	t.Helper()
	r, err := b.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]runtimeapi.PodSandboxState{}
	for _, p := range r.Items {
		out[p.Id] = p.State
	}
	return out
}

func TestRunPodSandbox(t *testing.T) {
	b := newBench(t)
	j := &fakeJournal{op: "op-1", trace: b.trace}
	id, err := b.runPod(j, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := b.trace.effects(), []string{"create", "start", "durable", "ADD"}; !slices.Equal(got, want) {
		t.Errorf("effects %q, want %q", got, want)
	}
	if len(j.steps) != 2 || j.steps[0].Name != stepCreated || j.steps[0].ID != id || !strings.Contains(string(j.steps[0].Data), `"name":"test"`) {
		t.Errorf("steps %+v", j.steps)
	}
	if got := j.steps[1]; got.Name != "network.attached" || got.ID != "10.0.0.2,fd00::2" {
		t.Errorf("the network's step is %+v", got)
	}
	c := b.engine.containers[id]
	if c.Name != "/k8s_POD_web_shop_u-1_2" || c.Config.Labels[labelOp] != "op-1" || c.Config.Labels["annotation.a"] != "b" {
		t.Errorf("container %s %v", c.Name, c.Config.Labels)
	}
	if conf, err := os.ReadFile(c.ResolvConfPath); err != nil || string(conf) != "nameserver 10.96.0.10\n" {
		t.Errorf("resolv.conf %q, %v", conf, err)
	}
	if got := b.listedPods(t); got[id] != runtimeapi.PodSandboxState_SANDBOX_READY || len(got) != 1 {
		t.Errorf("list %v", got)
	}
	st, err := b.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		t.Fatal(err)
	}
	if st.Status.Network.Ip != "10.0.0.2" || len(st.Status.Network.AdditionalIps) != 1 || st.Status.Network.AdditionalIps[0].Ip != "fd00::2" {
		t.Errorf("network %v", st.Status.Network)
	}
}

// TestNetworkStepOfStop: taking down the network is told once, by the stop
// that does it.
func TestNetworkStepOfStop(t *testing.T) {
	b := newBench(t)
	id, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	j := &fakeJournal{op: "op-2", trace: b.trace}
	for range 2 {
		if _, err := b.StopPodSandbox(withJournal(t.Context(), j), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Fatal(err)
		}
	}
	if len(j.steps) != 1 || j.steps[0].Name != "network.detached" || j.steps[0].ID != id {
		t.Errorf("steps %+v", j.steps)
	}
}

// TestRunPodSandboxUndo: whatever fails, what was done is taken back in
// reverse, and the first error is the one returned.
func TestRunPodSandboxUndo(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after string // of the engine
		net           string
		durable       error
		err           error
		want          []string
		code          codes.Code
	}{
		{name: "create refused", before: "create", err: cerrdefs.ErrInvalidArgument, want: []string{"create"}, code: codes.InvalidArgument},
		{name: "create unanswered", after: "create", err: cerrdefs.ErrUnavailable, want: []string{"create", "quiesce", "remove"}, code: codes.Unavailable},
		{name: "create timed out without effect", before: "create", err: context.DeadlineExceeded, want: []string{"create"}, code: codes.DeadlineExceeded},
		{name: "start", before: "start", err: cerrdefs.ErrInternal, want: []string{"create", "start", "remove"}, code: codes.Internal},
		{name: "panic in create", after: "create", err: errPanic, want: []string{"create", "quiesce", "remove"}, code: codes.Internal},
		{name: "panic", after: "start", err: errPanic, want: []string{"create", "start", "remove"}, code: codes.Internal},
		{name: "start unanswered", after: "start", err: context.DeadlineExceeded, want: []string{"create", "start", "remove"}, code: codes.DeadlineExceeded},
		{name: "inspect", before: "inspect", err: cerrdefs.ErrUnavailable, want: []string{"create", "start", "remove"}, code: codes.Unavailable},
		{name: "step", durable: status.Error(codes.ResourceExhausted, "log full"), want: []string{"create", "start", "durable", "remove"}, code: codes.ResourceExhausted},
		{name: "ADD", net: "ADD", err: errInjected, want: []string{"create", "start", "durable", "ADD", "DEL", "remove"}, code: codes.Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.engine.before[c.before], b.engine.after[c.after] = c.err, c.err
			b.net.fail[c.net] = c.err
			_, err := b.runPod(&fakeJournal{op: "op-1", trace: b.trace, durable: c.durable}, podConfig())
			if status.Code(err) != c.code {
				t.Errorf("error %v, want code %s", err, c.code)
			}
			if got := b.trace.effects(); !slices.Equal(got, c.want) {
				t.Errorf("effects %q, want %q", got, c.want)
			}
			if len(b.engine.containers) != 0 || len(b.net.attached) != 0 {
				t.Errorf("left: %d containers, %d networks", len(b.engine.containers), len(b.net.attached))
			}
		})
	}
}

// TestRunPodSandboxCannotUndo: what cannot be undone is listed as not ready,
// and a stop and a removal finish it.
func TestRunPodSandboxCannotUndo(t *testing.T) {
	for _, c := range []struct {
		name        string
		engine, net []string
	}{
		{name: "DEL", net: []string{"ADD", "DEL"}},
		{name: "DEL and kill", net: []string{"ADD", "DEL"}, engine: []string{"kill"}},
		{name: "remove", net: []string{"ADD"}, engine: []string{"remove"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			for _, n := range c.net {
				b.net.fail[n] = fmt.Errorf("%s: %w", n, errInjected)
			}
			for _, n := range c.engine {
				b.engine.before[n] = cerrdefs.ErrInternal
			}
			_, err := b.runPod(&fakeJournal{op: "op-1"}, podConfig())
			if !strings.Contains(fmt.Sprint(err), "ADD: injected; and it could not be undone") {
				t.Errorf("error %v", err)
			}
			got := b.listedPods(t)
			if len(got) != 1 {
				t.Fatalf("list %v", got)
			}
			for id, state := range got {
				if state != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
					t.Errorf("state %s", state)
				}
				clear(b.net.fail)
				clear(b.engine.before)
				b.trace.effects()
				if _, err := b.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
					t.Error(err)
				}
				if c.name != "remove" && !slices.Contains(b.trace.effects(), "DEL") {
					t.Error("stop did not carry out the DEL that is owed")
				}
				if _, err := b.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
					t.Error(err)
				}
			}
			if len(b.engine.containers) != 0 {
				t.Error("container left")
			}
		})
	}
}

// TestInFlightIsHidden: a sandbox that is being made is in no list, and its id
// leads nowhere.
func TestInFlightIsHidden(t *testing.T) {
	b := newBench(t)
	b.net.adding = func() {
		if got := b.listedPods(t); len(got) != 0 {
			t.Errorf("list %v", got)
		}
		for id := range b.engine.containers {
			if _, err := b.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}); status.Code(err) != codes.NotFound {
				t.Errorf("status: %v", err)
			}
		}
		if _, err := b.runPod(&fakeJournal{op: "op-2"}, podConfig()); status.Code(err) != codes.Aborted {
			t.Errorf("second attempt meanwhile: %v", err)
		}
	}
	if _, err := b.runPod(&fakeJournal{op: "op-1"}, podConfig()); err != nil {
		t.Fatal(err)
	}
	if got := b.listedPods(t); len(got) != 1 {
		t.Errorf("list %v", got)
	}
}

// TestNameTaken: the container that has the name is named, and lives.
func TestNameTaken(t *testing.T) {
	b := newBench(t)
	id, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.runPod(backends.NoJournal, podConfig())
	if status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), id) {
		t.Errorf("error %v", err)
	}
	if got := b.listedPods(t); got[id] != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("list %v", got)
	}
}

func TestPauseThatEndsAtOnce(t *testing.T) {
	b := newBench(t)
	b.server.engine = endsAtOnce{b.engine}
	_, err := b.runPod(backends.NoJournal, podConfig())
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "ended at once") {
		t.Errorf("error %v", err)
	}
	if len(b.engine.containers) != 0 {
		t.Error("container left")
	}
}

// endsAtOnce is an Engine whose containers do not stay.
type endsAtOnce struct{ *fakeEngine }

func (e endsAtOnce) ContainerStart(ctx context.Context, id string, o container.StartOptions) error {
	return errors.Join(e.fakeEngine.ContainerStart(ctx, id, o), e.end("exit", id))
}

func TestStopPodSandboxOwesDel(t *testing.T) {
	b := newBench(t)
	id, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	b.net.fail["DEL"] = errInjected
	for range 2 {
		if _, err := b.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err == nil {
			t.Error("stop succeeded without its DEL")
		}
		if _, err := b.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err == nil {
			t.Error("removal succeeded without its DEL")
		}
	}
	clear(b.net.fail)
	b.trace.effects()
	for range 2 {
		if _, err := b.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Error(err)
		}
	}
	if got, want := b.trace.effects(), []string{"DEL", "stop"}; !slices.Equal(got, want) {
		t.Errorf("effects of two stops %q, want %q", got, want)
	}
}
