package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/node"
)

const rehearsalLabel = "crimux.dev/rehearsal"

// rehearsed is what replay --json prints.
type rehearsed struct {
	ID          string
	Agreed      bool
	Differences []string
	Operations  []struct {
		Method, Container   string
		Recorded, Rehearsed *struct {
			Code, Message string
			Nanoseconds   int64
		}
	}
	Containers []struct {
		Name      string
		Recorded  struct{ State string }
		Rehearsed *struct {
			State    string
			ExitCode int
		}
	}
	LeftOut, Missing, Notes []string
	Undone                  bool
}

// replay carries the command out and checks its exit code.
func replay(t *testing.T, n *node.Node, exit int, args ...string) (r rehearsed, said string) {
	t.Helper()
	out, err := n.Run(t.Context(), append([]string{"replay", "--json"}, args...)...)
	code := 0
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		code = ended.ExitCode()
	}
	if err != nil {
		said = err.Error()
	}
	if code != exit {
		t.Fatalf("replay %v exits %d, want %d:\n%s%v", args, code, exit, out, err)
	}
	if exit == 2 {
		return r, said
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !r.Undone {
		t.Errorf("replay %v leaves something: %+v", args, r)
	}
	return r, said
}

// onContainerdNow are the rehearsals' sandboxes that containerd itself has,
// onDockerNow the containers of the Engine's.
func onContainerdNow(t *testing.T) (ids []string) {
	list, err := shared.CRI().ListPodSandbox(context.WithoutCancel(t.Context()), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Error(err)
		return nil
	}
	for _, sb := range list.Items {
		if sb.Labels[rehearsalLabel] != "" {
			ids = append(ids, sb.Id)
		}
	}
	return ids
}

func onDockerNow(t *testing.T) (ids []string) {
	list, err := shared.Docker().ContainerList(context.WithoutCancel(t.Context()), container.ListOptions{All: true})
	if err != nil {
		t.Error(err)
		return nil
	}
	for _, c := range list {
		if c.Labels[rehearsalLabel] != "" && c.Labels["io.kubernetes.docker.type"] == "podsandbox" {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// hidden looks at the CRI socket, all the time until the returned function is
// called, which tells what the engines had meanwhile.
func hidden(t *testing.T, n *node.Node, own ...string) (end func() (seen []string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	mine := make(map[string]bool)
	for _, id := range own {
		mine[id] = true
	}
	events, err := n.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Header(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			e, err := events.Recv()
			if err != nil {
				return
			}
			if !mine[e.ContainerId] {
				t.Errorf("an event tells of %s: %v", e.ContainerId, e)
			}
		}
	})
	there := make(map[string]bool)
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, id := range append(onContainerdNow(t), onDockerNow(t)...) {
				there[id] = true
				_, err := n.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
				if status.Code(err) != codes.NotFound && ctx.Err() == nil {
					t.Errorf("the status of a rehearsal is answered with %v", err)
				}
				_, err = n.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
				// Stopping what nobody knows, yet or any more, is no error in the
				// CRI; that it is not stopped shows in what the rehearsal tells.
				if err != nil && status.Code(err) != codes.NotFound && ctx.Err() == nil {
					t.Errorf("stopping a rehearsal is answered with %v", err)
				}
			}
			for _, id := range listed(ctx, t, n) {
				if !mine[id] {
					t.Errorf("a list has %s", id)
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return func() (seen []string) {
		cancel()
		wg.Wait()
		for id := range there {
			seen = append(seen, id)
		}
		return seen
	}
}

// listed are the ids in all lists.
func listed(ctx context.Context, t *testing.T, n *node.Node) (ids []string) {
	sandboxes, err1 := n.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	containers, err2 := n.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	stats, err3 := n.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
	pods, err4 := n.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		if ctx.Err() == nil {
			t.Error(err)
		}
		return nil
	}
	for _, v := range sandboxes.Items {
		ids = append(ids, v.Id)
	}
	for _, v := range containers.Containers {
		ids = append(ids, v.Id)
	}
	for _, v := range stats.Stats {
		ids = append(ids, v.Attributes.GetId())
	}
	for _, v := range pods.Stats {
		ids = append(ids, v.Attributes.GetId())
	}
	return ids
}

// TestReplay rehearses a pod of Docker on containerd and back at all levels:
// it agrees, the kubelet sees none of it, and nothing is left.
func TestReplay(t *testing.T) {
	n := start(t, node.Options{})
	var own []string
	for _, way := range []struct{ from, on string }{{"docker", "containerd"}, {"containerd", "docker"}} {
		name := "moves-from-" + way.from
		ctr := node.ContainerConfig("main", shared.Image("alt"), "sh", "-c", `test "$SECRET" = canary-value && test "$(id -u)" = 1001 && exec sleep 1000000`)
		ctr.Envs = []*runtimeapi.KeyValue{{Key: "SECRET", Value: []byte("canary-value")}}
		ctr.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1001}
		ctr.Mounts = []*runtimeapi.Mount{{HostPath: t.TempDir(), ContainerPath: "/data"}}
		p, err := n.RunPod(t.Context(), way.from, node.PodConfig(name, logs(t)), ctr)
		if err != nil {
			t.Fatal(err)
		}
		own = append(own, p.Sandbox, p.Container)
		for _, args := range [][]string{{}, {"--level", "start"}, {"--level", "start", "--network", "--host-mounts"}} {
			all := append([]string{name, "--on", way.on}, args...)
			end := hidden(t, n, own...)
			r, _ := replay(t, n, 0, all...)
			if seen := end(); len(seen) != 1 {
				t.Errorf("%v: the engines had the rehearsals %v", all, seen)
			}
			if !r.Agreed || len(r.Operations) < 2 || r.Operations[0].Rehearsed.Code != "OK" || r.Operations[0].Recorded == nil {
				t.Errorf("%v: %+v", all, r)
			}
			started := len(r.Containers) == 1 && r.Containers[0].Rehearsed != nil && r.Containers[0].Rehearsed.State == "running"
			if started != (len(args) > 0) {
				t.Errorf("%v: the containers are %+v", all, r.Containers)
			}
			if left := fmt.Sprint(r.LeftOut); strings.Contains(left, "/data") == false {
				t.Errorf("%v: what is left out is %v", all, r.LeftOut)
			}
		}
		if ids := append(onContainerdNow(t), onDockerNow(t)...); len(ids) > 0 {
			t.Errorf("it is left: %v", ids)
		}
	}
	if b, err := os.ReadFile(n.EventsFile); err != nil || strings.Contains(string(b), "canary-value") {
		t.Errorf("the log has the environment, or %v", err)
	}
}

// TestReplayNetworkIsDown: what needs the network ends otherwise, unless the
// network is left up.
func TestReplayNetworkIsDown(t *testing.T) {
	n := start(t, node.Options{})
	for _, way := range []struct{ from, on string }{{"docker", "containerd"}, {"containerd", "docker"}} {
		name := "needs-network-" + way.from
		p, err := n.RunPod(t.Context(), way.from, node.PodConfig(name, logs(t)),
			node.ContainerConfig("main", shared.Image("busybox"), "sh", "-c", `test "$(cat /sys/class/net/eth0/operstate)" = up || exit 3`))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has ended", func() error {
			st, err := n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: p.Container})
			if err == nil && (st.Status.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.Status.ExitCode != 0) {
				return &notYet{st.Status}
			}
			return err
		})
		eventually(t, "the log knows", func() error {
			if out, err := n.Run(t.Context(), "state"); err != nil || !strings.Contains(out, "0/1") {
				return &notYet{out}
			}
			return nil
		})
		r, _ := replay(t, n, 0, name, "--on", way.on, "--level", "start", "--network")
		if len(r.Containers) != 1 || r.Containers[0].Rehearsed == nil || r.Containers[0].Rehearsed.State != "exited" {
			t.Errorf("with the network: %+v", r)
		}
		r, _ = replay(t, n, 1, name, "--on", way.on, "--level", "start")
		if len(r.Differences) != 1 || r.Containers[0].Rehearsed.ExitCode != 3 {
			t.Errorf("without the network: %+v", r)
		}
		if err := n.RemovePod(t.Context(), p.Sandbox); err != nil {
			t.Error(err)
		}
	}
}

// TestReplayDiffers: a field that the other runtime refuses is told by its
// name, before the pod moves there.
func TestReplayDiffers(t *testing.T) {
	n := start(t, node.Options{})
	ctr := node.ContainerConfig("main", shared.Image("busybox"), "sleep", "1000000")
	ctr.Labels["annotation.odd"] = "containerd minds no label"
	if _, err := n.RunPod(t.Context(), "containerd", node.PodConfig("odd", logs(t)), ctr); err != nil {
		t.Fatal(err)
	}
	r, _ := replay(t, n, 1, "odd", "--on", "docker")
	if len(r.Differences) != 1 || !strings.Contains(r.Differences[0], "InvalidArgument") || !strings.Contains(r.Differences[0], `config.labels["annotation.odd"]`) {
		t.Errorf("the differences are %q", r.Differences)
	}
	for what, args := range map[string][]string{
		"no such pod":  {"nobody", "--on", "docker"},
		"no backend":   {"odd", "--on", "podman"},
		"no such file": {"odd", "--on", "docker", "--env-file", "/nowhere"},
	} {
		if _, said := replay(t, n, 2, args...); !strings.Contains(said, what) {
			t.Errorf("replay %v says %q", args, said)
		}
	}
}

// TestReplayIsUndoneAfterACrash kills the daemon in the middle of rehearsals.
func TestReplayIsUndoneAfterACrash(t *testing.T) {
	n := start(t, node.Options{})
	own := make(map[string]bool)
	for _, way := range []struct {
		from, on string
		there    func(*testing.T) []string
	}{{"docker", "containerd", onContainerdNow}, {"containerd", "docker", onDockerNow}} {
		p := runSleep(t, n, way.from, "crash-"+way.from)
		own[p.Sandbox], own[p.Container] = true, true
		for _, after := range []time.Duration{0, 500 * time.Millisecond, 2 * time.Second} {
			for !killedInRehearsal(t, n, []string{"replay", "crash-" + way.from, "--on", way.on, "--level", "start"}, way.there, after) {
				t.Logf("after %s the rehearsal was over", after)
			}
			if err := n.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, id := range listed(t.Context(), t, n) {
				if !own[id] {
					t.Errorf("after the crash a list has %s", id)
				}
			}
			eventually(t, "nothing is left", func() error {
				logs, err := os.ReadDir(filepath.Join(n.Dir, "state", "rehearsals"))
				if ids := way.there(t); len(ids) > 0 || len(logs) > 0 {
					return &notYet{append(ids, fmt.Sprint(logs, err))}
				}
				return nil
			})
			if err := n.WaitBackends(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// killedInRehearsal begins a rehearsal and kills the daemon a while after it is
// seen to be there, or tells that it was too late for that.
func killedInRehearsal(t *testing.T, n *node.Node, command []string, there func(*testing.T) []string, after time.Duration) bool {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := n.Run(t.Context(), command...)
		done <- err
	}()
	eventually(t, "the rehearsal is there", func() error {
		if len(there(t)) == 0 {
			return &notYet{"nothing"}
		}
		return nil
	})
	time.Sleep(after)
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
		return false
	default:
	}
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("a rehearsal whose daemon was killed has ended well")
	}
	return true
}

// TestReplayInterrupted: who ends the command ends the rehearsal.
func TestReplayInterrupted(t *testing.T) {
	n := start(t, node.Options{})
	runSleep(t, n, "docker", "interrupted")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := n.Run(ctx, "replay", "interrupted", "--on", "containerd", "--level", "start")
		done <- err
	}()
	eventually(t, "the rehearsal is there", func() error {
		if len(onContainerdNow(t)) == 0 {
			return &notYet{"nothing"}
		}
		return nil
	})
	cancel()
	<-done
	eventually(t, "nothing is left", func() error {
		if ids := onContainerdNow(t); len(ids) > 0 {
			return &notYet{ids}
		}
		return nil
	})
}
