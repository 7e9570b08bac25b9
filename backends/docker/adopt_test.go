package docker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/backends/docker/checkpoint"
)

// checkpoints are the files that cri-dockerd would read.
func (b *bench) checkpoints(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(b.engine.dir + "/checkpoints/*")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestCheckpointLivesWithItsSandbox: it is there with the pod's host ports as
// long as the sandbox, and not a moment longer.
func TestCheckpointLivesWithItsSandbox(t *testing.T) {
	b := newBench(t)
	config := podConfig()
	config.PortMappings = []*runtimeapi.PortMapping{{Protocol: runtimeapi.Protocol_UDP, ContainerPort: 53, HostPort: 5353, HostIp: "192.0.2.1"}}
	id, err := b.runPod(backends.NoJournal, config)
	if err != nil {
		t.Fatal(err)
	}
	c, ok, err := b.pods.kept.Read(id)
	if err != nil || !ok || c.Name != "web" || c.Namespace != "shop" || c.HostNetwork ||
		!slices.Equal(c.PortMappings, []checkpoint.PortMapping{{Protocol: "udp", ContainerPort: 53, HostPort: 5353, HostIP: "192.0.2.1"}}) {
		t.Errorf("checkpoint %+v, %v, %v", c, ok, err)
	}
	host := podConfig()
	host.Metadata.Uid = "u-2"
	host.Linux = &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
	}}
	second, err := b.runPod(backends.NoJournal, host)
	if err != nil {
		t.Fatal(err)
	}
	if c, ok, err := b.pods.kept.Read(second); err != nil || !ok || !c.HostNetwork {
		t.Errorf("checkpoint on the host's network %+v, %v, %v", c, ok, err)
	}
	for _, one := range []string{id, second} {
		if _, err := b.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: one}); err != nil {
			t.Fatal(err)
		}
	}
	if left := b.checkpoints(t); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestUndoneSandboxLeavesNoCheckpoint: neither a failure nor a crash leaves one,
// which cri-dockerd would show as a pod.
func TestUndoneSandboxLeavesNoCheckpoint(t *testing.T) {
	for _, call := range []string{"start", "inspect"} {
		b := newBench(t)
		b.fail(call, errInjected)
		if _, err := b.runPod(backends.NoJournal, podConfig()); err == nil {
			t.Fatalf("%s: it ran", call)
		}
		if left := b.checkpoints(t); len(left) != 0 {
			t.Errorf("%s: left: %q", call, left)
		}
	}
	for name, vanish := range map[string]bool{"killed": false, "killed, and the container removed": true} {
		b, id, op := crashed(t)
		if len(b.checkpoints(t)) != 1 {
			t.Fatal("there is none to leave")
		}
		if vanish {
			delete(b.engine.containers, id)
		}
		if _, err := b.backend.Recover(t.Context(), op, backends.NoJournal); err != nil {
			t.Fatal(err)
		}
		if left := b.checkpoints(t); len(left) != 0 {
			t.Errorf("%s: left: %q", name, left)
		}
	}
}

// TestCheckpointCannotBeWritten: a pod that cri-dockerd could not take over
// with its host ports is not made.
func TestCheckpointCannotBeWritten(t *testing.T) {
	b := newBench(t)
	if err := os.WriteFile(b.engine.dir+"/checkpoints", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.runPod(backends.NoJournal, podConfig()); err == nil || !strings.Contains(err.Error(), "checkpoint") {
		t.Errorf("error %v", err)
	}
	if left := b.listedPods(t); len(left) != 0 || len(b.engine.containers) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestStopOfAVanishedSandbox takes down what the CNI cache or a checkpoint
// tells of it, once. One that is still being made is let be.
func TestStopOfAVanishedSandbox(t *testing.T) {
	stop := func(t *testing.T, b *bench, id string) error {
		t.Helper()
		_, err := b.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
		return err
	}
	for name, cached := range map[string]bool{"cached": true, "checkpoint only": false} {
		b, id, _ := crashed(t)
		delete(b.engine.containers, id)
		b.resync(t)
		if !cached {
			delete(b.net.attached, id)
		}
		b.trace.effects()
		for range 2 {
			if err := stop(t, b, id); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := b.trace.effects(); !slices.Equal(got, []string{"DEL"}) {
			t.Errorf("%s: effects %q", name, got)
		}
		if left := b.checkpoints(t); len(left) != 0 {
			t.Errorf("%s: left: %q", name, left)
		}
	}
	b, id, _ := crashed(t)
	b.ops.set("op-1", opRunning)
	if err := stop(t, b, id); err != nil {
		t.Error(err)
	}
	if got := b.trace.effects(); len(got) != 0 || len(b.checkpoints(t)) != 1 {
		t.Errorf("effects on a sandbox under way: %q, checkpoints %q", got, b.checkpoints(t))
	}
	if err := os.WriteFile(b.engine.dir+"/checkpoints/"+strings.Repeat("f", 64), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stop(t, b, strings.Repeat("f", 64)); err == nil || len(b.checkpoints(t)) != 2 {
		t.Errorf("a damaged checkpoint: %v, %q", err, b.checkpoints(t))
	}
	for _, id := range []string{"abc", strings.Repeat("x", 64)} {
		if err := stop(t, b, id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// foreign makes a container as another shim does, and returns its id.
func (b *bench) foreign(t *testing.T, logPath string, running bool) string {
	t.Helper()
	made, err := b.engine.ContainerCreate(t.Context(), &container.Config{Image: "busybox", Labels: map[string]string{
		labelType: typeContainer, labelSandboxID: "1", labelLogPath: logPath,
	}}, &container.HostConfig{LogConfig: container.LogConfig{Type: "json-file"}}, nil, nil, "k8s_main_web_shop_u-1_0")
	if err != nil {
		t.Fatal(err)
	}
	if running {
		if err := b.engine.ContainerStart(t.Context(), made.ID, container.StartOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	b.engine.containers[made.ID].LogPath = filepath.Join(b.engine.dir, "engine.log")
	b.resync(t)
	b.trace.effects()
	return made.ID
}

// TestForeignLogs: which logs are copied is decided by what lies at their path.
func TestForeignLogs(t *testing.T) {
	for _, c := range []struct {
		name    string
		running bool
		lies    func(path string) error
		want    []string
	}{
		{"a link", true, func(p string) error { return os.Symlink("/engine", p) }, nil},
		{"a rotated link", true, func(p string) error { return os.Symlink("/engine", p+".20260102-150405") }, nil},
		{"nothing", true, func(string) error { return nil }, []string{"follow"}},
		{"a log", true, func(p string) error { return os.WriteFile(p, nil, 0o640) }, []string{"follow"}},
		{"nothing, ended", false, func(string) error { return nil }, nil},
		{"a link, ended", false, func(p string) error { return os.Symlink("/engine", p) }, nil},
		{"a log, ended", false, func(p string) error { return os.WriteFile(p, nil, 0o640) }, []string{"follow"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			path := filepath.Join(t.TempDir(), "0.log")
			if err := c.lies(path); err != nil {
				t.Fatal(err)
			}
			id := b.foreign(t, path, c.running)
			f, err := b.inspect(t.Context(), typeContainer, id)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.logs.follow(f); err != nil {
				t.Fatal(err)
			}
			if got := b.trace.effects(); !slices.Equal(got, c.want) {
				t.Errorf("did %q, want %q", got, c.want)
			}
		})
	}
}

// TestReopenConvertsFirst: and removing the container takes a link along.
func TestReopenConvertsFirst(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(t.TempDir(), "0.log")
	id := b.foreign(t, path, true)
	reopen := func() error {
		_, err := b.ReopenContainerLog(t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
		return err
	}
	if err := reopen(); err != nil {
		t.Fatal(err)
	}
	if got, want := b.trace.effects(), []string{"convert", "follow", "reopen"}; !slices.Equal(got, want) {
		t.Errorf("did %q, want %q", got, want)
	}
	b.engine.containers[id].LogPath, b.engine.containers[id].HostConfig.LogConfig.Type = "", "journald"
	if err := reopen(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), `"journald"`) {
		t.Errorf("reopen with another driver: %v", err)
	}
	if err := os.Symlink("/engine", path); err != nil {
		t.Fatal(err)
	}
	if _, err := b.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the link is left: %v", err)
	}
}

// slowPins are namespaces in memory; letGo runs between letting one go and the
// answer.
type slowPins struct {
	mu     sync.Mutex
	pinned map[string]bool
	letGo  func()
}

func (p *slowPins) pin(id string, pid int) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pinned[id] = true
	return netnsOf(pid), nil
}

func (p *slowPins) find(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pinned[id] {
		return "/run/netns/" + id
	}
	return ""
}

func (p *slowPins) unpin(id string) error {
	p.mu.Lock()
	delete(p.pinned, id)
	p.mu.Unlock()
	p.letGo()
	return nil
}

// stopLookedAt stops a sandbox at which somebody looks, who saw it run, as soon as
// its namespace is let go of, and checks that it is not kept.
func (b *bench) stopLookedAt(t *testing.T, pins *slowPins, f *found) {
	t.Helper()
	var look sync.WaitGroup
	pins.letGo = func() {
		looked := make(chan error, 1)
		look.Go(func() { looked <- b.pods.adopt(f, false) })
		select {
		case err := <-looked:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(50 * time.Millisecond): // it waits for us
		}
	}
	if _, err := b.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: f.ID}); err != nil {
		t.Fatal(err)
	}
	look.Wait()
	if at := pins.find(f.ID); at != "" {
		t.Errorf("kept: %s", at)
	}
}

// TestLookWhileStopping: whoever looks at a sandbox while its network is taken
// down, and still saw it run, does not keep its namespace after all.
func TestLookWhileStopping(t *testing.T) {
	b := newBench(t)
	pins := &slowPins{pinned: map[string]bool{}}
	b.pods.pins = pins
	id, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	f, err := b.inspect(t.Context(), typeSandbox, id)
	if err != nil {
		t.Fatal(err)
	}
	b.stopLookedAt(t, pins, f)
}

// TestLookWhileStoppingWithoutNetwork: nor where the node has no network any
// more to detach an adopted pod from, whose infra container still runs then.
func TestLookWhileStoppingWithoutNetwork(t *testing.T) {
	b := newBench(t)
	pins := &slowPins{pinned: map[string]bool{}}
	b.pods.pins = pins
	id, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	// As after a restart, and another shim made it.
	delete(b.engine.containers[id].Config.Labels, labelOp)
	delete(b.net.attached, id)
	b.pods.forget(id)
	f, err := b.inspect(t.Context(), typeSandbox, id)
	if err != nil {
		t.Fatal(err)
	}
	b.pods.set(id, attachment{state: netAttached}) // its eth0 has an address
	if err := os.Remove(filepath.Join(b.engine.dir, "net", "10-test.conflist")); err != nil {
		t.Fatal(err)
	}
	b.stopLookedAt(t, pins, f)
}
