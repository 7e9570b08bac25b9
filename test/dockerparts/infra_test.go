package dockerparts

import (
	"context"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"github.com/crimux/crimux/backends/docker/infra"
)

// TestInfraImage loads the built-in image and holds a pod's namespaces with it.
func TestInfraImage(t *testing.T) {
	needEngine(t)
	ctx := t.Context()
	archive, err := infra.Archive()
	check(t, err)
	loaded, err := engine.ImageLoad(ctx, archive)
	check(t, err)
	said, err := io.ReadAll(loaded.Body)
	check(t, err)
	check(t, loaded.Body.Close())
	t.Cleanup(func() {
		_, err := engine.ImageRemove(context.Background(), infra.Reference, image.RemoveOptions{Force: true})
		check(t, err)
	})
	img, err := infra.Image()
	check(t, err)
	want, err := img.ConfigName()
	check(t, err)
	seen, err := engine.ImageInspect(ctx, infra.Reference)
	if err != nil {
		t.Fatalf("%v after the load said %s", err, said)
	}
	if seen.ID != want.String() {
		t.Errorf("the Engine's id is %s, ours %s", seen.ID, want)
	}

	pod := run(t, container.Config{Image: infra.Reference}, container.HostConfig{IpcMode: "shareable"})
	// A member of the pod whose orphans the infra process has to reap.
	member := run(t, container.Config{Cmd: []string{"sh", "-c", "(sleep 0.1 & sleep 0.2 &); exec sleep 600"}}, container.HostConfig{
		NetworkMode: container.NetworkMode("container:" + pod), IpcMode: container.IpcMode("container:" + pod), PidMode: container.PidMode("container:" + pod),
	})
	pid := strconv.Itoa(pidOf(t, pod))
	time.Sleep(300 * time.Millisecond)
	eventually(t, "the orphans to be reaped", func() bool {
		out, err := exec.Command("ps", "--ppid", pid, "-o", "stat=").Output()
		return err != nil || !strings.Contains(string(out), "Z")
	})
	check(t, engine.ContainerKill(ctx, member, "KILL"))

	begin, patience := time.Now(), 60
	check(t, engine.ContainerStop(ctx, pod, container.StopOptions{Timeout: &patience}))
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("stop took %v", d)
	}
	c, err := engine.ContainerInspect(ctx, pod)
	check(t, err)
	if c.State.ExitCode != 0 {
		t.Errorf("exit code %d", c.State.ExitCode)
	}
}

// TestLoopbackIsUp: the Engine brings lo up in a namespace without a network,
// so that CNI's loopback plugin is not needed.
func TestLoopbackIsUp(t *testing.T) {
	pid := strconv.Itoa(pidOf(t, sleeper(t)))
	out, err := exec.Command("nsenter", "-t", pid, "-n", "ip", "-o", "addr", "show", "lo").CombinedOutput()
	check(t, err)
	if !strings.Contains(string(out), "127.0.0.1/8") {
		t.Errorf("lo in a pod without a network: %s", out)
	}
	out, err = exec.Command("nsenter", "-t", pid, "-n", "ip", "-o", "link", "show", "lo").CombinedOutput()
	check(t, err)
	if !strings.Contains(string(out), "UP") {
		t.Errorf("lo in a pod without a network: %s", out)
	}
}
