package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// chaosRounds is how many pods live at least while the daemon is killed again
// and again, and chaosKills how often it is.
const (
	chaosRounds = 8
	chaosKills  = 4
)

// TestKilledAtAnyMoment takes pods through their whole life on Docker,
// repeating each call as the kubelet would until it is answered, while the
// daemon is killed every few hundred milliseconds. In the end nothing is left
// on the machine and the log is whole.
func TestKilledAtAnyMoment(t *testing.T) {
	n := start(t, node.Options{NoContainerd: true})
	chaos(t, shared, n, "docker")
	nothingLeft(t, shared, n)
}

// TestKilledAtAnyMomentOfPassThrough is the same for containerd, in a lab of
// its own: containerd kills its CNI plugins when its caller goes away, as any
// caller that is killed does, and may then leave a NAT rule or a shim behind, or
// a sandbox that is half made and listed as not ready, of which nobody was told.
// That is not held against the daemon; everything that it is asked for is, and
// such a sandbox can be removed as the kubelet does.
func TestKilledAtAnyMomentOfPassThrough(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Options{NoDocker: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var leaks *lab.LeakError
		if err := l.Stop(); errors.As(err, &leaks) {
			t.Logf("containerd left behind: %v", leaks)
		} else if err != nil {
			t.Error(err)
		}
	})
	n := prepare(t, l, node.Options{NoDocker: true})
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	chaos(t, l, n, "containerd")
	for id, state := range sandboxes(t, n) {
		if state == runtimeapi.PodSandboxState_SANDBOX_READY {
			t.Errorf("sandbox %s is left, and ready", id)
		}
		if err := n.RemovePod(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	nothingLeft(t, l, n)
}

// chaos runs pods on one backend while the daemon is killed.
func chaos(t *testing.T, l *lab.Lab, n *node.Node, handler string) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	image := l.Image("busybox")
	if _, err := n.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var kills atomic.Int32
	stop, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		killAgainAndAgain(t, n, rand.New(rand.NewPCG(seed, 1)), stop, &kills)
	}()
	for i := 0; !t.Failed() && (i < chaosRounds || kills.Load() < chaosKills); i++ {
		if err := live(ctx, n, handler, fmt.Sprintf("chaos-%d", i), image, t.TempDir()); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
	}
	close(stop)
	<-over
	t.Logf("the daemon was killed %d times", kills.Load())
	if err := n.WaitBackends(ctx); err != nil {
		t.Error(err)
	}
}

// nothingLeft checks that of the pods nothing is left, and the log whole.
func nothingLeft(t *testing.T, l *lab.Lab, n *node.Node) {
	t.Helper()
	if got := sandboxes(t, n); len(got) != 0 {
		t.Errorf("sandboxes are left: %v", got)
	}
	if got := addresses(t, l); got != 0 {
		t.Errorf("%d addresses are left", got)
	}
	if out, err := n.Run(t.Context(), "verify"); err != nil || strings.Contains(out, "open") {
		t.Errorf("verify: %s%v", out, err)
	}
}

// killAgainAndAgain kills the daemon at random moments and starts it again at
// once, until stop is closed; then the daemon runs.
func killAgainAndAgain(t *testing.T, n *node.Node, random *rand.Rand, stop <-chan struct{}, kills *atomic.Int32) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(lifetime(random)):
		}
		if err := n.Kill(); err != nil {
			t.Error(err)
			return
		}
		kills.Add(1)
		if err := n.Start(t.Context()); err != nil {
			t.Error(err)
			return
		}
	}
}

// lifetime is how long the daemon is let live. Each fourth time it is longer: on
// a busy machine nothing would ever come to its end otherwise.
func lifetime(random *rand.Rand) time.Duration {
	d := time.Duration(100+random.IntN(700)) * time.Millisecond
	if random.IntN(4) == 0 {
		d *= 4
	}
	return d
}

// live takes one pod through its life.
func live(ctx context.Context, n *node.Node, handler, name, image, logs string) error {
	cfg := node.PodConfig(name, logs)
	sandbox, err := runUntilReady(ctx, n, handler, cfg)
	if err != nil {
		return err
	}
	id, err := runContainer(ctx, n, sandbox, cfg, image)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		call func(context.Context) error
	}{
		{"StopContainer", func(ctx context.Context) error {
			_, err := n.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id})
			return err
		}},
		{"StopPodSandbox", func(ctx context.Context) error {
			_, err := n.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox})
			return err
		}},
		{"RemovePodSandbox", func(ctx context.Context) error {
			_, err := n.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox})
			return err
		}},
	} {
		if err := untilOK(ctx, step.call); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// runUntilReady is how the kubelet gets a sandbox: it asks again, and where a
// runtime keeps a half-made one of that attempt, stops and removes it and
// asks for the next attempt.
func runUntilReady(ctx context.Context, n *node.Node, handler string, cfg *runtimeapi.PodSandboxConfig) (id string, err error) {
	err = untilOK(ctx, func(ctx context.Context) error {
		r, err := n.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: handler})
		id = r.GetPodSandboxId()
		if err == nil || status.Code(err) == codes.Unavailable {
			return err
		}
		list, lerr := n.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{
			Filter: &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"io.kubernetes.pod.uid": cfg.Metadata.Uid}},
		})
		if lerr != nil {
			return lerr
		}
		for _, sb := range list.Items {
			if rerr := n.RemovePod(ctx, sb.Id); rerr != nil {
				return rerr
			}
		}
		cfg.Metadata.Attempt++
		return err
	})
	return id, err
}

// runContainer is how the kubelet gets a container: one that was started and
// has ended, as containerd's does when the caller of StartContainer goes away,
// is followed by the next attempt.
func runContainer(ctx context.Context, n *node.Node, sandbox string, pod *runtimeapi.PodSandboxConfig, image string) (id string, err error) {
	ctr := node.ContainerConfig("main", image, "sleep", "1000000")
	err = untilOK(ctx, func(ctx context.Context) error {
		r, err := n.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, Config: ctr, SandboxConfig: pod})
		if err != nil {
			return fmt.Errorf("create: %w", err)
		}
		id = r.ContainerId
		_, err = n.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
		return startOutcome(ctx, n, ctr, id, err)
	})
	return id, err
}

// startOutcome looks at what came of a start that failed or whose answer was
// lost.
func startOutcome(ctx context.Context, n *node.Node, ctr *runtimeapi.ContainerConfig, id string, err error) error {
	for err != nil {
		st, serr := n.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
		if serr != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("start: %w", err)
			}
			time.Sleep(50 * time.Millisecond)
			continue
		}
		switch st.Status.State {
		case runtimeapi.ContainerState_CONTAINER_RUNNING:
			return nil
		case runtimeapi.ContainerState_CONTAINER_EXITED:
			ctr.Metadata.Attempt++
			return fmt.Errorf("start: %w", err)
		}
		_, err = n.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	}
	return nil
}

// untilOK repeats a call until it succeeds.
func untilOK(ctx context.Context, call func(context.Context) error) error {
	for {
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := call(one)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
