package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// TestOutageInTurns has dockerd stand on the CRI's containerd. That one dies
// first, and dockerd, which lives on or hangs, may not hear of what ends until
// the two are connected again.
func TestOutageInTurns(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Options{Layout: lab.SharedContainerd, Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("lame", func(t *testing.T) { newOutage(t, l).lame() })
	t.Run("frozen", func(t *testing.T) { newOutage(t, l).frozen() })
}

// lame has only containerd away: dockerd answers, and can start nothing.
func (o *outage) lame() {
	o.t.Helper()
	ctx := o.t.Context()
	leaving := o.pod("leaving", "docker")
	created, err := o.n.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: o.d.Sandbox, SandboxConfig: o.d.Config,
		Config: node.ContainerConfig("second", o.l.Image("busybox"), "sleep", "1000000")})
	o.must(err)
	before := o.lists()
	d, c := o.pid(o.d), o.pid(o.c)
	o.must(o.l.KillContainerd(ctx))
	o.must(errors.Join(syscall.Kill(d, syscall.SIGKILL), syscall.Kill(c, syscall.SIGKILL)))
	o.away("containerd", o.c)
	o.same("with dockerd's containerd away", before)

	// A probe that ended with an exit code would count as failed.
	probe := &runtimeapi.ExecSyncRequest{ContainerId: leaving.Container, Cmd: []string{"true"}, Timeout: 5}
	if r, err := o.n.ExecSync(ctx, probe); status.Code(err) != codes.Unavailable {
		o.t.Errorf("a probe that cannot be started: %v, %v", r, err)
	}
	_, err = o.n.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId})
	if err == nil || status.Code(err) == codes.DeadlineExceeded || status.Code(err) == codes.NotFound {
		o.t.Errorf("starting a container that cannot be: %v", err)
	}
	// dockerd does not answer this one before its containerd is back.
	stopped := make(chan error, 1)
	go func() {
		_, err := o.n.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: leaving.Container, Timeout: 1})
		stopped <- err
	}()
	before[created.ContainerId] = runtimeapi.ContainerState_CONTAINER_EXITED.String()
	o.same("after a start that failed", before)

	o.must(o.l.StartContainerd(ctx))
	o.seen("an exit behind a dead containerd", o.c, time.Now())
	back := time.Now()
	o.pod("again-c", "containerd")
	o.podAgain("again-d")
	o.missed(back)
	if err := <-stopped; err != nil {
		o.t.Errorf("a container that was told to stop meanwhile: %v", err)
	}
}

// frozen kills containerd and freezes dockerd, and has them return in this
// order.
func (o *outage) frozen() {
	o.t.Helper()
	ctx := o.t.Context()
	before := o.lists()
	d, c := o.pid(o.d), o.pid(o.c)
	o.must(o.l.KillContainerd(ctx))
	o.must(o.l.PauseDocker(ctx))
	frozen := true
	defer func() {
		if frozen {
			o.must(o.l.ResumeDocker(context.WithoutCancel(ctx)))
		}
	}()
	o.same("right after", before)
	o.must(syscall.Kill(c, syscall.SIGKILL))
	o.away("containerd", o.c)
	o.away("docker", o.d)
	o.same("with both away", before)

	o.must(o.l.StartContainerd(ctx))
	o.seen("an exit behind a dead containerd", o.c, time.Now())
	later := o.pod("later", "containerd")
	o.told(fmt.Sprintf("STARTED %s of %s", later.Container, later.Config.Metadata.Uid))
	if got := o.lists(); got[o.d.Container] != before[o.d.Container] || got[o.d.Sandbox] != before[o.d.Sandbox] {
		o.t.Errorf("what is on the frozen dockerd is listed as %v", got)
	}
	o.away("docker", o.d)
	_, err := o.n.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig("refused", logs(o.t)), RuntimeHandler: "docker"})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `"docker"`) {
		o.t.Errorf("a pod for the frozen dockerd: %v", err)
	}

	// containerd tells those who listen, and dockerd does not yet.
	o.must(syscall.Kill(d, syscall.SIGKILL))
	o.ended(o.d)
	frozen = false
	o.must(o.l.ResumeDocker(ctx))
	back := time.Now()
	o.podAgain("again")
	o.missed(back)
}

// podAgain runs a pod on dockerd as a kubelet does, which asks again: newer
// Engines take a second to find their containerd.
func (o *outage) podAgain(name string) {
	o.t.Helper()
	config := node.PodConfig(name, logs(o.t))
	eventually(o.t, "dockerd takes pods again", func() error {
		_, err := o.n.RunPodSandbox(o.t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: "docker"})
		return err
	})
}

// ended waits until containerd knows that a container of dockerd's has ended.
func (o *outage) ended(p *node.Pod) {
	o.t.Helper()
	eventually(o.t, "containerd knows of the end", func() error {
		out, err := exec.CommandContext(o.t.Context(), "ctr", "--address", o.l.ContainerdSocket, "--namespace", "moby", "tasks", "list").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, p.Container) && strings.Contains(line, "STOPPED") {
				return nil
			}
		}
		return &notYet{string(out)}
	})
}

// missed waits until dockerd knows of an end that no event may have told it
// of, and checks that crimux does then. dockerd takes ten seconds over it.
func (o *outage) missed(back time.Time) {
	o.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for {
		c, err := o.l.Docker().ContainerInspect(o.t.Context(), o.d.Container)
		o.must(err)
		if !c.State.Running {
			break
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("dockerd still shows a container as running whose process has ended; crimux lists %v", o.lists()[o.d.Container])
		}
		time.Sleep(50 * time.Millisecond)
	}
	o.t.Logf("dockerd knows it %s after it was back", time.Since(back).Round(10*time.Millisecond))
	o.seen("an exit that dockerd missed", o.d, time.Now())
	out, err := o.n.Run(o.t.Context(), "timeline", o.d.Config.Metadata.Name)
	// 255 is that nobody knows: newer containerds forget what ended meanwhile.
	if err != nil || !strings.Contains(out, "exit 137") && !strings.Contains(out, "exit 255") {
		o.t.Errorf("the timeline does not say how it ended: %v\n%s", err, out)
	}
}
