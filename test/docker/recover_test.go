package docker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// journal is the log of one operation, which a test may make fail.
type journal struct {
	op string
	// durable is called while a step is on its way to the disk.
	durable func() error

	mu    sync.Mutex
	steps []backends.Step
}

func (j *journal) Op() string { return j.op }

func (j *journal) Step(s backends.Step) func(context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.steps = append(j.steps, s)
	return func(context.Context) error {
		if j.durable != nil {
			return j.durable()
		}
		return nil
	}
}

// restarted is a backend as it is after the daemon was killed: with nothing in
// memory.
func restarted(t *testing.T) cri {
	t.Helper()
	return started(t, "")
}

// started is a running backend of the test's own, on the network that is
// configured in confDir; empty is the lab's.
func started(t *testing.T, confDir string) cri {
	t.Helper()
	b, err := newBackend(confDir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, b.Close()); err != nil {
			t.Error(err)
		}
	})
	return cri{t: t, Backend: b}
}

func TestFailedRunIsUndone(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	j := &journal{op: "op-" + t.Name(), durable: func() error { return status.Error(codes.ResourceExhausted, "the log is full") }}
	err := invoke(t, c.Backend, runtimeService+"RunPodSandbox", j, &runtimeapi.RunPodSandboxRequest{Config: pod(t)}, discard())
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "the log is full") {
		t.Errorf("error %v", err)
	}
}

// TestFailedAddIsUndone: the second plugin of the list fails, when the first
// has made a link and taken an address.
func TestFailedAddIsUndone(t *testing.T) {
	noLeak(t)
	confs, err := filepath.Glob(node.lab.CNIConfDir + "/*.conflist")
	if err != nil || len(confs) != 1 {
		t.Fatal(confs, err)
	}
	conf, err := os.ReadFile(confs[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// Plugins of the lab's list, and then one that cannot succeed.
	i := strings.LastIndex(string(conf), "]")
	broken := string(conf)[:i] + `,{"type":"tuning","sysctl":{"net.ipv4.no.such.sysctl":"1"}}` + string(conf)[i:]
	if err := os.WriteFile(filepath.Join(dir, "10-broken.conflist"), []byte(broken), 0o644); err != nil {
		t.Fatal(err)
	}
	err = invoke(t, started(t, dir).Backend, runtimeService+"RunPodSandbox", backends.NoJournal, &runtimeapi.RunPodSandboxRequest{Config: pod(t)}, discard())
	if err == nil || !strings.Contains(err.Error(), "set up the network") || strings.Contains(err.Error(), "could not be undone") {
		t.Errorf("error %v", err)
	}
}

// TestRecoverRun kills the daemon, in effect, with the pod complete but for
// its outcome, with half of it, and with the infra container gone.
func TestRecoverRun(t *testing.T) {
	engine := node.lab.Docker()
	for _, c := range []struct {
		name  string
		after func(t *testing.T, id string)
	}{
		{"network attached", func(*testing.T, string) {}},
		{"pause died", func(t *testing.T, id string) {
			if err := engine.ContainerKill(t.Context(), id, "KILL"); err != nil {
				t.Fatal(err)
			}
		}},
		{"pause vanished", func(t *testing.T, id string) {
			if err := engine.ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		}},
		{"result not cached", func(t *testing.T, id string) {
			cached, err := filepath.Glob(node.lab.CNICacheDir + "/results/*" + id + "*")
			if err != nil || len(cached) == 0 {
				t.Fatal(cached, err)
			}
			for _, f := range cached {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			noLeak(t)
			j := &journal{op: "op-" + strings.ReplaceAll(t.Name(), "/", "-")}
			first := restarted(t)
			cfg := pod(t)
			if err := invoke(t, first.Backend, runtimeService+"RunPodSandbox", j, &runtimeapi.RunPodSandboxRequest{Config: cfg}, discard()); err != nil {
				t.Fatal(err)
			}
			c.after(t, j.steps[0].ID)
			again := restarted(t)
			op := backends.Unfinished{Op: j.op, Method: runtimeService + "RunPodSandbox", Steps: j.steps}
			for range 2 {
				got, err := again.Recover(t.Context(), op, j)
				if err != nil || got.Code != codes.Aborted {
					t.Errorf("recovered %+v, %v", got, err)
				}
			}
			if p, ok := again.pods()[j.steps[0].ID]; ok {
				t.Errorf("listed: %v", p)
			}
			// The identical retry makes a pod.
			again.run(cfg)
		})
	}
}

// TestRecoverEarlyRun: killed before the step, there is only the label.
func TestRecoverEarlyRun(t *testing.T) {
	for _, started := range []bool{false, true} {
		name := map[bool]string{false: "created", true: "started"}[started]
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			engine := node.lab.Docker()
			kubelet(t).run(pod(t)) // has the infra image loaded
			op := "op-" + strings.ReplaceAll(t.Name(), "/", "-")
			made, err := engine.ContainerCreate(t.Context(), &container.Config{
				Image: "crimux.invalid/pause:1", Labels: map[string]string{
					"io.kubernetes.docker.type": "podsandbox", "io.kubernetes.container.name": "POD", "crimux.dev/op": op,
				},
			}, &container.HostConfig{NetworkMode: "none"}, nil, nil, "k8s_POD_early-"+name+"_default_uid_0")
			if err != nil {
				t.Fatal(err)
			}
			if started {
				if err := engine.ContainerStart(t.Context(), made.ID, container.StartOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			again := restarted(t)
			if p := again.pods()[made.ID]; p.GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
				t.Errorf("half a pod is listed as %v", p)
			}
			got, err := again.Recover(t.Context(), backends.Unfinished{Op: op, Method: runtimeService + "RunPodSandbox"}, backends.NoJournal)
			if err != nil || got.Code != codes.Aborted {
				t.Errorf("recovered %+v, %v", got, err)
			}
		})
	}
}

func TestRecoverContainer(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	ref := c.pull("busybox")
	cfg := pod(t)
	id := c.run(cfg)
	j := &journal{op: "op-" + t.Name()}
	req := &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: ctrConfig(ref, "sleep 100"), SandboxConfig: cfg}
	if err := invoke(t, c.Backend, runtimeService+"CreateContainer", j, req, discard()); err != nil {
		t.Fatal(err)
	}
	recovered := func(method, op, ctr string, want codes.Code) {
		t.Helper()
		got, err := c.Recover(t.Context(), backends.Unfinished{Op: op, Method: runtimeService + method, SandboxID: id, ContainerID: ctr}, j)
		if err != nil || got.Code != want {
			t.Errorf("%s: %+v, %v; want %s", method, got, err, want)
		}
	}
	recovered("CreateContainer", j.op, "", codes.Aborted)
	ctr := c.create(id, cfg, ctrConfig(ref, "sleep 100"))
	recovered("StartContainer", "op-2", ctr, codes.Aborted)
	c.start(ctr)
	recovered("StartContainer", "op-2", ctr, codes.OK)
	recovered("StopPodSandbox", "op-3", "", codes.OK)
	if st := c.status(ctr); st.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("after the sandbox's stop: %v", st)
	}
	recovered("RemoveContainer", "op-4", ctr, codes.OK)
	recovered("RemovePodSandbox", "op-5", "", codes.OK)
	left, err := node.lab.Docker().ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "io.kubernetes.sandbox.id="+id))})
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestRestart: after a restart everything is as it was, and can be managed.
func TestRestart(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	ref := c.pull("busybox")
	cfg := pod(t)
	id := c.run(cfg)
	ctr := c.create(id, cfg, ctrConfig(ref, "sleep 100"))
	c.start(ctr)
	before, beforePod, list := c.status(ctr), c.podStatus(id), c.pods()
	again := restarted(t)
	if got := again.status(ctr); got.String() != before.String() {
		t.Errorf("container was %v and is %v", before, got)
	}
	if got := again.podStatus(id); got.String() != beforePod.String() {
		t.Errorf("pod was %v and is %v", beforePod, got)
	}
	if got := again.pods(); got[id].String() != list[id].String() {
		t.Errorf("pod was listed as %v and is as %v", list[id], got[id])
	}
	again.removePod(id)
	if p, ok := again.pods()[id]; ok {
		t.Errorf("still listed: %v", p)
	}
	// To the other one it was somebody else's doing.
	eventually(t, "it is gone everywhere", func() bool {
		_, ok := c.pods()[id]
		return !ok
	})
}

// TestLateCreate: the Engine finishes a create although its caller has died,
// and may do so after the operation was undone. What comes then is removed,
// and is not in the way.
func TestLateCreate(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	cfg := pod(t)
	j := &journal{op: "op-" + t.Name()}
	// The same pod, failed after the create, tells what such a container is.
	j.durable = func() error { return status.Error(codes.ResourceExhausted, "full") }
	if err := invoke(t, c.Backend, runtimeService+"RunPodSandbox", j, &runtimeapi.RunPodSandboxRequest{Config: cfg}, discard()); err == nil {
		t.Fatal("no error")
	}
	m := cfg.Metadata
	made, err := node.lab.Docker().ContainerCreate(t.Context(), &container.Config{
		Image: c.pull("busybox"), Labels: map[string]string{"io.kubernetes.docker.type": "podsandbox", "crimux.dev/op": j.op},
	}, &container.HostConfig{NetworkMode: "none"}, nil, nil, "k8s_POD_"+m.Name+"_"+m.Namespace+"_"+m.Uid+"_0")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is removed", func() bool {
		_, there := engineStates(t)[made.ID]
		return !there
	})
	c.run(cfg)
}
