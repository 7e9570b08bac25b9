package proxy

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/backends/cri"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store"
)

// node is a front over two fakes, a and b; a is the default.
type node struct {
	runtimeapi.RuntimeServiceClient
	images runtimeapi.ImageServiceClient
	conn   *grpc.ClientConn
	a, b   *fakeRuntime
	server *Server
	log    *store.Log
	dir    string
	stop   func()
	// away tells of backends that begin need not wait for; nil is none.
	away func(name string) bool
	// downAfter replaces that of the configuration where it is not 0.
	downAfter time.Duration
	// maxLog is the most that the log may have; 0 is no bound.
	maxLog int64
	// extra is configuration beside nodeConfig.
	extra string
	// adjust changes what extra cannot say; nil is nothing.
	adjust func(*policy.Config)
	// wrap stands before the client of a fake; nil is nothing.
	wrap func(*fakeRuntime, backends.Backend) backends.Backend
}

const nodeConfig = `apiVersion: crimux.dev/v1
kind: Config
listen: unix:///run/unused.sock
stateDir: %s
backends:
  a: {type: cri, endpoint: "unix://%s"}
  b: {type: cri, endpoint: "unix://%s"}
routes:
  - {handler: front-a, backend: a, backendHandler: own-a}
  - {handler: front-b, backend: b}
default: a
health: {probeInterval: 20ms, downAfter: 10s}
runtimeName: containerd
`

func newNode(t testing.TB) *node {
	n := &node{a: newFake(t, "a"), b: newFake(t, "b"), dir: t.TempDir()}
	n.begin(t)
	return n
}

// newIdleNode is a node whose daemon does nothing on its own: a test takes its
// steps, in the order that it wants.
func newIdleNode(t testing.TB) *node {
	n := &node{a: newFake(t, "a"), b: newFake(t, "b"), dir: t.TempDir()}
	set := n.assemble(t, n.config(t))
	t.Cleanup(func() { set.Close(); n.log.Close() })
	for _, l := range n.server.lanes {
		l.clear()
	}
	return n
}

// begin starts a run of the daemon on the node's folder.
func (n *node) begin(t testing.TB) {
	t.Helper()
	n.start(t, n.config(t))
}

func (n *node) config(t testing.TB) *policy.Config {
	t.Helper()
	cfg, err := policy.Parse("config.yaml", append(fmt.Appendf(nil, nodeConfig, n.dir, n.a.socket, n.b.socket), n.extra...))
	if err != nil {
		t.Fatal(err)
	}
	if n.adjust != nil {
		n.adjust(cfg)
	}
	return cfg
}

// start has a daemon with cfg serve.
func (n *node) start(t testing.TB, cfg *policy.Config) {
	t.Helper()
	n.serve(t, n.assemble(t, cfg))
}

// assemble makes a daemon with cfg.
func (n *node) assemble(t testing.TB, cfg *policy.Config) *backends.Set {
	t.Helper()
	var err error
	if n.log, err = store.Open(filepath.Join(n.dir, "events.db"), store.Options{NoSync: true, MaxSize: n.maxLog}); err != nil {
		t.Fatal(err)
	}
	var list []backends.Backend
	for i, b := range cfg.Backends {
		c, err := cri.New(b.Name, b.Endpoint)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
		if n.wrap != nil {
			list[i] = n.wrap([]*fakeRuntime{n.a, n.b}[i], c)
		}
	}
	set, err := backends.NewSet(backends.Probing{Interval: cfg.Health.ProbeInterval, DownAfter: cmp.Or(n.downAfter, cfg.Health.DownAfter), ListTimeout: cfg.Health.ListTimeout}, list...)
	if err != nil {
		t.Fatal(err)
	}
	n.server, err = New(Options{Config: cfg, Backends: set, Log: n.log, Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// restart ends the daemon and starts one with its configuration changed.
func (n *node) restart(t testing.TB, adjust func(*policy.Config)) {
	t.Helper()
	n.stop()
	n.adjust = adjust
	n.begin(t)
}

// beginWith is begin while some backends are away.
func (n *node) beginWith(t testing.TB, away func(name string) bool) {
	t.Helper()
	n.away = away
	n.begin(t)
	n.away = nil
}

func (n *node) serve(t testing.TB, set *backends.Set) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "front.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.server.Run(ctx) })
	wg.Go(func() { n.server.Serve(l) })
	if n.conn, err = grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2*backends.MaxMessage), grpc.MaxCallSendMsgSize(2*backends.MaxMessage))); err != nil {
		t.Fatal(err)
	}
	n.RuntimeServiceClient, n.images = runtimeapi.NewRuntimeServiceClient(n.conn), runtimeapi.NewImageServiceClient(n.conn)
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		n.conn.Close()
		sctx, done := context.WithTimeout(context.Background(), time.Second)
		n.server.Shutdown(sctx)
		done()
		cancel()
		wg.Wait()
		set.Close()
		n.log.Close()
	}
	t.Cleanup(n.stop)
	n.waitUp(t)
}

// waitUp waits until both backends have been seen and recovered.
func (n *node) waitUp(t testing.TB) {
	t.Helper()
	eventually(t, "both backends are up", func() bool {
		for _, m := range n.server.set.All() {
			if ready := m.Health().Up && n.server.lanes[m.Name()].isClear(); !ready && (n.away == nil || !n.away(m.Name())) {
				return false
			}
		}
		return true
	})
}

// eventually waits for what must come, which takes a second on an idle machine
// and may take many on a busy one.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never so: %s", what)
		}
	}
}

func runRequest(name, handler string) *runtimeapi.RunPodSandboxRequest {
	return &runtimeapi.RunPodSandboxRequest{
		RuntimeHandler: handler,
		Config: &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name},
			Labels:   map[string]string{"app": name},
		},
	}
}

func (n *node) run(t testing.TB, name, handler string) string {
	t.Helper()
	r, err := n.RunPodSandbox(t.Context(), runRequest(name, handler))
	if err != nil {
		t.Fatalf("run %s: %v", name, err)
	}
	return r.PodSandboxId
}

func (n *node) create(t testing.TB, sandbox, name string) string {
	t.Helper()
	r, err := n.CreateContainer(t.Context(), createRequest(sandbox, name))
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	return r.ContainerId
}

func createRequest(sandbox, name string) *runtimeapi.CreateContainerRequest {
	return &runtimeapi.CreateContainerRequest{
		PodSandboxId: sandbox,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name},
			Image:    &runtimeapi.ImageSpec{Image: "busybox"},
		},
	}
}

func mustSet(t testing.TB, list ...backends.Backend) *backends.Set {
	t.Helper()
	s, err := backends.NewSet(backends.Probing{}, list...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
