package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// handBack is the script of the guide that readies a node for cri-dockerd.
func handBack(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile("../../docs/migration-from-cri-dockerd.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "# hand-back\n")
	script, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("the guide has no script to hand a node back with")
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", script)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+node.lab.DockerSocket)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// quittable is started, and may be quit before the test's end.
func quittable(t *testing.T) (c cri, quit func()) {
	t.Helper()
	b, err := newBackend("")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	quit = sync.OnceFunc(func() {
		stop()
		if err := errors.Join(<-ended, b.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(quit)
	return cri{t: t, Backend: b}, quit
}

// TestWayBack: a pod of ours is one that cri-dockerd knows how to show, to stop
// and to remove; after the guide's script, its log is whole and grows. And then
// the node comes to us once more.
func TestWayBack(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	cfg := pod(t)
	cfg.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 8080, HostPort: 38096}}
	first, quit := quittable(t)
	id := must[runtimeapi.RunPodSandboxResponse](first, runtimeService+"RunPodSandbox", &runtimeapi.RunPodSandboxRequest{Config: cfg}).PodSandboxId
	ctr := first.create(id, cfg, ctrConfig(c.pull("busybox"), counter))
	first.start(ctr)
	logPath := filepath.Join(cfg.LogDirectory, "main/0.log")
	eventually(t, "lines", func() bool {
		_, err := os.Stat(logPath)
		return err == nil && count(t, logPath) > 10
	})
	dir := filepath.Join(node.lab.Dir, "cri-dockerd", "sandbox")
	want := fmt.Sprintf(`{"version":"v1","name":"%s","namespace":"default","data":{"port_mappings":[{"protocol":"tcp","container_port":8080,"host_port":38096}]},"checksum":`, cfg.Metadata.Name)
	if b, err := os.ReadFile(filepath.Join(dir, id)); err != nil || !strings.HasPrefix(string(b), want) {
		t.Errorf("checkpoint %s, %v; want %s", b, err, want)
	}
	if _, err := os.Stat(filepath.Join(node.lab.CNICacheDir, "results", node.lab.Bridge+"-"+id+"-eth0")); err != nil {
		t.Errorf("what a DEL needs: %v", err)
	}
	quit()
	handBack(t)
	if st, err := os.Lstat(logPath); err != nil || st.Mode().Type() != fs.ModeSymlink {
		t.Errorf("log %v, %v", st, err)
	}
	before := count(t, logPath)
	eventually(t, "lines without us", func() bool { return count(t, logPath) > before })
	if _, err := os.Stat("/run/netns/crimux-" + id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a namespace is kept: %v", err)
	}

	again, quit := quittable(t)
	if st := again.podStatus(id); st.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("back again: %v", st)
	}
	rotated := logPath + ".20260102-000001"
	if err := os.Rename(logPath, rotated); err != nil {
		t.Fatal(err)
	}
	must[runtimeapi.ReopenContainerLogResponse](again, runtimeService+"ReopenContainerLog", &runtimeapi.ReopenContainerLogRequest{ContainerId: ctr})
	eventually(t, "lines of ours", func() bool { return count(t, rotated, logPath) > before+20 })
	quit()
	handBack(t)
	removedAsCRIDockerd(t, cfg, id, ctr, dir)
}

// removedAsCRIDockerd stops and removes a pod of ours as cri-dockerd does: with
// today's configuration and the checkpoint's ports.
func removedAsCRIDockerd(t *testing.T, cfg *runtimeapi.PodSandboxConfig, id, ctr, checkpoints string) {
	t.Helper()
	s, engine, now := shim{t: t}, node.lab.Docker(), 0
	c, err := engine.ContainerInspect(t.Context(), id)
	s.check(err)
	s.detach(&shimPod{
		id: id, pid: strconv.Itoa(c.State.Pid), name: cfg.Metadata.Name, namespace: cfg.Metadata.Namespace, ports: []shimPort{{"tcp", 8080, 38096}},
	})
	s.check(engine.ContainerStop(t.Context(), ctr, container.StopOptions{Timeout: &now}))
	s.check(engine.ContainerStop(t.Context(), id, container.StopOptions{Timeout: &now}))
	for _, one := range []string{ctr, id} {
		s.check(engine.ContainerRemove(t.Context(), one, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	}
	s.check(os.Remove(filepath.Join(checkpoints, id)))
}
