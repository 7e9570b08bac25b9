package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// addresses counts the pod addresses that a lab's IPAM holds.
func addresses(t *testing.T, l *lab.Lab) int {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(l.IPAMDir, l.Bridge))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		if strings.Count(f.Name(), ".") == 3 {
			n++
		}
	}
	return n
}

// pauses returns the ids of the Engine's pause containers of a pod.
func pauses(t *testing.T, pod string) []string {
	t.Helper()
	list, err := shared.Docker().ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", "io.kubernetes.docker.type=podsandbox"), filters.Arg("label", "io.kubernetes.pod.name="+pod))})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

// exactlyOne checks that of the pod there is one sandbox, in the list, on the
// Engine and in the pod network, and that it is ready.
func exactlyOne(t *testing.T, n *node.Node, pod, id string, others int) {
	t.Helper()
	list, err := n.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{
		Filter: &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"io.kubernetes.pod.name": pod}},
	})
	if err != nil || len(list.Items) != 1 || list.Items[0].Id != id || list.Items[0].State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("the list has %v, %v; want %s", list.GetItems(), err, id)
	}
	if got := pauses(t, pod); len(got) != 1 || got[0] != id {
		t.Errorf("the engine has %v, want %s", got, id)
	}
	if got := addresses(t, shared); got != others+1 {
		t.Errorf("%d addresses are held, want %d", got, others+1)
	}
}

// killDuring begins a RunPodSandbox and kills the daemon at the moment given.
func killDuring(t *testing.T, n *node.Node, req *runtimeapi.RunPodSandboxRequest, moment func(context.Context)) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		_, err := n.RunPodSandbox(ctx, req)
		answered <- err
	}()
	moment(ctx)
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	return <-answered
}

// onEngine returns a moment: when the Engine reports the event.
func onEngine(t *testing.T, event string) func(context.Context) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	seen, failed := shared.Docker().Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", "container"), filters.Arg("event", event))})
	return func(ctx context.Context) {
		select {
		case <-seen:
		case err := <-failed:
			t.Errorf("events of the engine: %v", err)
		case <-ctx.Done():
		case <-time.After(time.Minute):
			t.Errorf("the engine reported no %q", event)
		}
	}
}

// TestKilledInTheMiddleOfRunPodSandbox: whenever the daemon dies, the retry
// ends in exactly one sandbox and no address is leaked.
func TestKilledInTheMiddleOfRunPodSandbox(t *testing.T) {
	n := start(t, node.Options{})
	other := runSleep(t, n, "docker", "bystander")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	type moment func(context.Context)
	moments := map[string]func(*testing.T) moment{
		"at once": func(*testing.T) moment { return func(context.Context) {} },
		"create":  func(t *testing.T) moment { return onEngine(t, "create") },
		"start":   func(t *testing.T) moment { return onEngine(t, "start") },
	}
	for i := range 6 {
		after := time.Duration(random.IntN(500)) * time.Millisecond
		moments[fmt.Sprintf("random %d: after %s", i, after)] = func(*testing.T) moment {
			return func(context.Context) { time.Sleep(after) }
		}
	}
	for name, moment := range moments {
		t.Run(name, func(t *testing.T) {
			pod := "crash-" + strings.Map(letters, name)
			req := &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig(pod, logs(t)), RuntimeHandler: "docker"}
			first := killDuring(t, n, req, moment(t))
			if err := n.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			retry, err := n.RunPodSandbox(t.Context(), req)
			if err != nil {
				t.Fatalf("the retry after %v: %v", first, err)
			}
			exactlyOne(t, n, pod, retry.PodSandboxId, 1)
			if err := n.RemovePod(t.Context(), retry.PodSandboxId); err != nil {
				t.Error(err)
			}
			if got := addresses(t, shared); got != 1 {
				t.Errorf("after the removal %d addresses are held, want 1", got)
			}
		})
	}
	if s := sandboxes(t, n)[other.Sandbox]; s != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("the bystander is %v", s)
	}
	if out, err := n.Run(t.Context(), "verify"); err != nil {
		t.Errorf("verify: %s, %v", out, err)
	}
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return -1
}

// TestNothingIsLeftWithoutARetry: what a crash left is undone although nobody
// asks again.
func TestNothingIsLeftWithoutARetry(t *testing.T) {
	n := start(t, node.Options{})
	req := &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig("gone", logs(t)), RuntimeHandler: "docker"}
	for killDuring(t, n, req, onEngine(t, "start")) == nil {
		// The kill came after the answer: such a pod is nothing to undo.
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.RemovePods(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(pauses(t, "gone")) != 1 {
		t.Fatal("the crash left nothing to undo: the test looks at the wrong moment")
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is undone", func() error {
		if left := pauses(t, "gone"); len(left) > 0 {
			return &notYet{left}
		}
		return nil
	})
	eventually(t, "the timeline tells", func() error {
		out, err := n.Run(t.Context(), "timeline", "gone")
		if err == nil && !strings.Contains(out, "undone") {
			return &notYet{out}
		}
		return err
	})
}

// TestPodsOutliveTheDaemon: killed while idle, pods on both engines live on
// and are managed again.
func TestPodsOutliveTheDaemon(t *testing.T) {
	n := start(t, node.Options{})
	pods := []*node.Pod{runWeb(t, n, "docker", "d"), runWeb(t, n, "containerd", "c")}
	for range 2 {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, p := range pods {
			if _, err := get(p.IP); err != nil {
				t.Errorf("without the daemon: %v", err)
			}
		}
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.WaitBackends(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pods {
		r, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: p.Container, Cmd: []string{"true"}, Timeout: 5})
		if err != nil || r.ExitCode != 0 {
			t.Errorf("exec after the crash: %v, %v", r, err)
		}
		if _, err := n.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: p.Container}); err != nil {
			t.Errorf("stop after the crash: %v", err)
		}
	}
}

// TestACallerThatGivesUp: on Docker its end ends only the wait, and the
// identical retry gets what the first call makes.
func TestACallerThatGivesUp(t *testing.T) {
	n := start(t, node.Options{})
	req := &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig("impatient", logs(t)), RuntimeHandler: "docker"}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := n.RunPodSandbox(ctx, req); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("the first call: %v", err)
	}
	r, err := n.RunPodSandbox(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	exactlyOne(t, n, "impatient", r.PodSandboxId, 0)
}
