package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/backends/docker/crilog"
	"github.com/crimux/crimux/cni"
)

// fakeEngine is a small Engine with knobs for faults. A method that it lacks
// panics on the nil interface.
type fakeEngine struct {
	engine
	dir string

	mu         sync.Mutex
	trace      *trace
	containers map[string]*container.InspectResponse
	made       int
	// before and after fail a call by name, without and with its effect.
	before, after map[string]error
	images        map[string]map[string]string // labels by name
	progress      string                       // of pulls
	auth          string                       // of the last pull
	messages      chan events.Message
	containerd    string // its version
}

// trace is what was called, in order.
type trace struct {
	mu    sync.Mutex
	calls []string
}

func (t *trace) add(call string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = append(t.calls, call)
}

// effects are the calls so far that change something; it starts anew.
func (t *trace) effects() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := slices.DeleteFunc(t.calls, func(c string) bool {
		return slices.Contains([]string{"inspect", "list", "info", "image", "cached", "plan"}, c)
	})
	t.calls = nil
	return out
}

func (e *fakeEngine) call(name string, effect func() error) error {
	e.trace.add(name)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.before[name]; err != nil {
		return err
	}
	if err := effect(); err != nil {
		return err
	}
	if errors.Is(e.after[name], errPanic) {
		panic("injected")
	}
	return e.after[name]
}

// fail has a call fail from now on; nil lets it be.
func (b *bench) fail(name string, err error) {
	b.engine.mu.Lock()
	defer b.engine.mu.Unlock()
	b.engine.before[name] = err
}

func (e *fakeEngine) get(id string) (*container.InspectResponse, error) {
	for _, c := range e.containers {
		if c.ID == id || c.Name == "/"+id {
			return c, nil
		}
	}
	return nil, fmt.Errorf("no such container: %w", cerrdefs.ErrNotFound)
}

func (e *fakeEngine) ClientVersion() string { return "1.41" }

func (e *fakeEngine) Ping(context.Context) (types.Ping, error) { return types.Ping{}, nil }

func (e *fakeEngine) NegotiateAPIVersionPing(types.Ping) {}

// Events lets through what the filter asks for.
func (e *fakeEngine) Events(ctx context.Context, o events.ListOptions) (<-chan events.Message, <-chan error) {
	out := make(chan events.Message)
	go func() {
		for m := range e.messages {
			if !o.Filters.ExactMatch("event", string(m.Action)) {
				continue
			}
			select {
			case out <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, make(chan error)
}

func (e *fakeEngine) Info(context.Context) (info system.Info, err error) {
	return info, e.call("info", func() error {
		info = system.Info{
			ServerVersion: "20.10.24", CgroupDriver: "cgroupfs", DockerRootDir: e.dir,
			SecurityOptions: []string{"name=seccomp,profile=default"}, DefaultRuntime: "runc",
			MemoryLimit: true, SwapLimit: true, CPUCfsQuota: true, CPUSet: true,
			Runtimes: map[string]system.RuntimeWithStatus{"runc": {}, "kata": {}}, ContainerdCommit: system.Commit{ID: e.containerd},
		}
		return nil
	})
}

func (e *fakeEngine) ImageInspect(_ context.Context, ref string, _ ...client.ImageInspectOption) (img image.InspectResponse, err error) {
	return img, e.call("image", func() error {
		labels, ok := e.images[ref]
		if !ok {
			return fmt.Errorf("no such image: %w", cerrdefs.ErrNotFound)
		}
		img = image.InspectResponse{ID: "sha256:" + strings.Repeat("1", 64), Config: &dockerspec.DockerOCIImageConfig{
			ImageConfig: ocispec.ImageConfig{Labels: labels}}}
		return nil
	})
}

func (e *fakeEngine) ContainerCreate(_ context.Context, c *container.Config, h *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, name string) (r container.CreateResponse, err error) {
	return r, e.call("create", func() error {
		if _, err := e.get(name); err == nil {
			return fmt.Errorf("name in use: %w", cerrdefs.ErrConflict)
		}
		e.made++
		r.ID = fmt.Sprintf("%064x", e.made)
		resolv := filepath.Join(e.dir, r.ID)
		if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
			return err
		}
		labels := map[string]string{}
		for k, v := range e.images[c.Image] {
			labels[k] = v
		}
		for k, v := range c.Labels {
			labels[k] = v
		}
		config := *c
		config.Labels = labels
		e.containers[r.ID] = &container.InspectResponse{
			ContainerJSONBase: &container.ContainerJSONBase{
				ID: r.ID, Name: "/" + name, Created: time.Now().Format(time.RFC3339Nano), HostConfig: h, ResolvConfPath: resolv,
				State: &container.State{Status: container.StateCreated, StartedAt: "0001-01-01T00:00:00Z", FinishedAt: "0001-01-01T00:00:00Z"},
			},
			Config: &config,
		}
		return nil
	})
}

func (e *fakeEngine) ContainerStart(_ context.Context, id string, _ container.StartOptions) error {
	return e.call("start", func() error {
		c, err := e.get(id)
		if err != nil {
			return err
		}
		// Our own process has a network namespace that can be looked at.
		c.State.Status, c.State.Running, c.State.Pid = container.StateRunning, true, os.Getpid()
		c.State.StartedAt = time.Now().Format(time.RFC3339Nano)
		return nil
	})
}

func (e *fakeEngine) end(name, id string) error {
	return e.call(name, func() error {
		c, err := e.get(id)
		if err != nil {
			return err
		}
		c.State.Status, c.State.Running, c.State.Pid = container.StateExited, false, 0
		c.State.FinishedAt = time.Now().Format(time.RFC3339Nano)
		return nil
	})
}

func (e *fakeEngine) ContainerStop(_ context.Context, id string, _ container.StopOptions) error {
	return e.end("stop", id)
}

// ContainerKill ends a container whatever the signal, but for the one that
// ends nothing.
func (e *fakeEngine) ContainerKill(_ context.Context, id, signal string) error {
	if signal == endsSignal {
		return e.call("point at "+id, func() error { return nil })
	}
	return e.end("kill", id)
}

func (e *fakeEngine) ContainerRemove(_ context.Context, id string, _ container.RemoveOptions) error {
	return e.call("remove", func() error {
		c, err := e.get(id)
		if err != nil {
			return err
		}
		delete(e.containers, c.ID)
		return nil
	})
}

func (e *fakeEngine) ContainerInspect(_ context.Context, id string) (r container.InspectResponse, err error) {
	return r, e.call("inspect", func() error {
		c, err := e.get(id)
		if err != nil {
			return err
		}
		base, state, config := *c.ContainerJSONBase, *c.State, *c.Config
		base.State = &state
		r = container.InspectResponse{ContainerJSONBase: &base, Config: &config, NetworkSettings: c.NetworkSettings}
		return nil
	})
}

func (e *fakeEngine) ContainerList(_ context.Context, o container.ListOptions) (all []container.Summary, err error) {
	return all, e.call("list", func() error {
		for _, c := range e.containers {
			if !o.Filters.MatchKVList("label", c.Config.Labels) {
				continue
			}
			s := container.Summary{ID: c.ID, Names: []string{c.Name}, Labels: c.Config.Labels, State: c.State.Status, Image: c.Config.Image}
			s.HostConfig.NetworkMode = string(c.HostConfig.NetworkMode)
			s.Created = engineTime(c.Created).Unix()
			all = append(all, s)
		}
		return nil
	})
}

// fakeNet makes real plans and carries none of them out.
type fakeNet struct {
	networks
	trace *trace

	mu       sync.Mutex
	fail     map[string]error
	attached map[string]*cni.Plan
	// adding, if set, is called in the middle of an ADD.
	adding func()
}

func (n *fakeNet) call(name string, effect func()) error {
	n.trace.add(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.fail[name]; err != nil {
		return err
	}
	effect()
	return nil
}

func (n *fakeNet) Add(_ context.Context, p *cni.Plan) (cni.Result, error) {
	if n.adding != nil {
		n.adding()
	}
	return cni.Result{IPs: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}},
		n.call("ADD", func() { n.attached[p.ID()] = p })
}

func (n *fakeNet) Del(_ context.Context, p *cni.Plan, _ string) error {
	return n.call("DEL", func() { delete(n.attached, p.ID()) })
}

func (n *fakeNet) Quiesce(context.Context, string) error { return n.call("quiesce", func() {}) }

func (n *fakeNet) Cached(id string) (p *cni.Plan, r cni.Result, ok bool, err error) {
	err = n.call("cached", func() { p, ok = n.attached[id] })
	return p, r, ok, err
}

// fakeLogs copies nothing.
type fakeLogs struct{ *trace }

func (l fakeLogs) Follow(crilog.File) error                   { l.add("follow"); return nil }
func (l fakeLogs) Convert(context.Context, crilog.File) error { l.add("convert"); return nil }
func (l fakeLogs) Drain(context.Context, string) error        { l.add("drain"); return nil }
func (l fakeLogs) Reopen(context.Context, string) error       { l.add("reopen"); return nil }
func (l fakeLogs) Finish(context.Context, string) error       { l.add("finish"); return nil }
func (l fakeLogs) Forget(string)                              {}
func (l fakeLogs) Close() error                               { return nil }

// fakePins keeps nothing.
type fakePins struct{ *trace }

func (p fakePins) pin(_ string, pid int) (string, error) { return netnsOf(pid), nil }
func (p fakePins) find(string) string                    { return "" }
func (p fakePins) unpin(string) error                    { return nil }

// bench is a server on fakes.
type bench struct {
	*server
	backend *Backend
	engine  *fakeEngine
	net     *fakeNet
	trace   *trace
}

const testConflist = `{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"fake","capabilities":{"portMappings":true}}]}`

func newBench(t testing.TB) *bench {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"net/10-test.conflist": testConflist, "bin/fake": "#!/bin/false\n"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	plans, err := cni.New(cni.Config{ConfDir: dir + "/net", BinDirs: []string{dir + "/bin"}, CacheDir: dir + "/cache"})
	if err != nil {
		t.Fatal(err)
	}
	tr := &trace{}
	e := &fakeEngine{
		dir: dir, trace: tr, containers: map[string]*container.InspectResponse{}, before: map[string]error{}, after: map[string]error{},
		messages: make(chan events.Message),
		images:   map[string]map[string]string{"pause": nil, "busybox": nil},
	}
	e.images["sha256:"+strings.Repeat("1", 64)] = nil
	n := &fakeNet{networks: plans, trace: tr, fail: map[string]error{}, attached: map[string]*cni.Plan{}}
	o, err := Options{Name: "docker", Endpoint: "unix:///run/none.sock", PodInfraImage: "pause", CheckpointDirs: []string{dir + "/checkpoints"}, Logger: slog.New(slog.DiscardHandler)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(o, e, n, fakeLogs{tr}, fakePins{tr})
	if err != nil {
		t.Fatal(err)
	}
	s.node.pageSizes = []string{"2MB", "1GB"}
	b := &bench{server: s, backend: &Backend{name: o.Name, log: o.Logger, srv: s}, engine: e, net: n, trace: tr}
	b.resync(t)
	return b
}

// withContainer makes a pod with a container that is not started.
func (b *bench) withContainer(t *testing.T) (sandbox string, r *runtimeapi.CreateContainerResponse) {
	t.Helper()
	sandbox, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	if r, err = b.CreateContainer(t.Context(), createRequest(sandbox)); err != nil {
		t.Fatal(err)
	}
	return sandbox, r
}

// resync has the cache read everything anew: somebody changed the Engine.
func (b *bench) resync(t testing.TB) {
	t.Helper()
	err := b.sync(context.Background())
	b.cache.attempted(err)
	if err != nil {
		t.Fatal(err)
	}
}

// fakeJournal records steps and lets durability fail.
type fakeJournal struct {
	op      string
	durable error

	mu    sync.Mutex
	steps []backends.Step
	trace *trace
}

func (j *fakeJournal) Op() string { return j.op }

func (j *fakeJournal) Step(s backends.Step) func(context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.steps = append(j.steps, s)
	return func(context.Context) error {
		if j.trace != nil {
			j.trace.add("durable")
		}
		return j.durable
	}
}

// errPanic has a call panic after its effect.
var errPanic = errors.New("panic")

var errInjected = errors.New("injected")

// ListContainers asks as the front does, in frames.
func (b *bench) ListContainers(ctx context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	out := &runtimeapi.ListContainersResponse{}
	return out, b.list(ctx, runtimeapi.RuntimeService_ListContainers_FullMethodName, r, out)
}

// ListPodSandbox asks as the front does, in frames.
func (b *bench) ListPodSandbox(ctx context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	out := &runtimeapi.ListPodSandboxResponse{}
	return out, b.list(ctx, runtimeapi.RuntimeService_ListPodSandbox_FullMethodName, r, out)
}

func (b *bench) list(ctx context.Context, method string, r, out proto.Message) error {
	body, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	a, err := b.backend.Invoke(ctx, &backends.Call{Method: method, Request: backends.NewFrame(body), Journal: backends.NoJournal})
	if err != nil {
		return err
	}
	return proto.Unmarshal(a.Body.Bytes(), out)
}
