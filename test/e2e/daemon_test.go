package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/node"
)

func TestSocketsHaveTheirModes(t *testing.T) {
	n := start(t, node.Options{NoDocker: true})
	for path, want := range map[string]os.FileMode{n.Socket: 0o660, n.AdminSocket: 0o600, n.EventsFile: 0o600} {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := fi.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	h, err := healthpb.NewHealthClient(n.Conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
}

// TestASecondDaemonIsTurnedAway within a second, and is told who is there.
func TestASecondDaemonIsTurnedAway(t *testing.T) {
	n := start(t, node.Options{NoDocker: true})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	_, err := n.Run(ctx, "serve")
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", n.PID())) {
		t.Errorf("the second daemon says %v", err)
	}
	if took := time.Since(began); took > 20*time.Second { // and not as long as the first one lives
		t.Errorf("it took %s", took)
	}
	if _, err := n.Version(ctx, &runtimeapi.VersionRequest{}); err != nil {
		t.Errorf("the first daemon: %v", err)
	}
}

func TestADeadSocketIsReplaced(t *testing.T) {
	n := start(t, node.Options{NoDocker: true})
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.Socket); err != nil {
		t.Fatalf("a crash leaves the socket: %v", err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an orderly end leaves the socket: %v", err)
	}
}

// TestSocketActivation passes the listener on as systemd does.
func TestSocketActivation(t *testing.T) {
	n := prepare(t, shared, node.Options{NoDocker: true})
	b, err := os.ReadFile(n.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte("listen: unix://"+n.Socket), []byte("listen: fd://"), 1)
	if err := os.WriteFile(n.ConfigFile, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	// LISTEN_PID must be the daemon's own, which the shell that becomes it
	// knows.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve --config "$1"`, binary, n.ConfigFile)
	cmd.ExtraFiles = []*os.File{f}
	out := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := n.Version(ctx, &runtimeapi.VersionRequest{}); err != nil {
		t.Errorf("through the passed socket: %v", err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v:\n%s", err, out)
	}
}

// TestStartsWhileABackendIsDown and says so, and goes on without a restart
// when the backend is there.
func TestStartsWhileABackendIsDown(t *testing.T) {
	n := prepare(t, shared, node.Options{})
	if err := shared.StopDocker(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := n.Start(t.Context())
	if err != nil {
		t.Error(err)
	}
	conditions := func() map[string]string {
		got := make(map[string]string)
		r, err := n.Status(t.Context(), &runtimeapi.StatusRequest{})
		if err != nil {
			t.Error(err)
		}
		for _, c := range r.GetStatus().GetConditions() {
			got[c.Type] = fmt.Sprint(c.Status, " ", c.Message)
		}
		return got
	}
	eventually(t, "containerd is there and docker is not", func() error {
		got := conditions()
		if !strings.HasPrefix(got["RuntimeReady"], "true") || !strings.HasPrefix(got["Backend/containerd"], "true") || !strings.HasPrefix(got["Backend/docker"], "false") {
			return &notYet{got}
		}
		return nil
	})
	_, err = n.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig("p", logs(t)), RuntimeHandler: "docker"})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `"docker"`) {
		t.Errorf("a pod for the missing engine: %v", err)
	}
	if err := shared.StartDocker(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "docker is there too", func() error {
		if got := conditions(); !strings.HasPrefix(got["Backend/docker"], "true") {
			return &notYet{got}
		}
		return nil
	})
}

// TestAHungEngineIsOnlyItself: while dockerd hangs, lists stay whole and pods
// on containerd are made as ever.
func TestAHungEngineIsOnlyItself(t *testing.T) {
	n := start(t, node.Options{Extra: "health: {probeInterval: 200ms, downAfter: 4s}\n"})
	p := runSleep(t, n, "docker", "frozen")
	if err := shared.PauseDocker(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := shared.ResumeDocker(context.Background()); err != nil {
			t.Error(err)
		}
		eventually(t, "docker is back", func() error {
			_, err := n.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.Sandbox})
			return err
		})
	}()
	c := runSleep(t, n, "containerd", "lively")
	got := sandboxes(t, n)
	if len(got) != 2 || got[p.Sandbox] != runtimeapi.PodSandboxState_SANDBOX_READY || got[c.Sandbox] != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("the list is %v", got)
	}
	eventually(t, "a call for the hung engine is answered at once", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := n.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.Sandbox})
		if status.Code(err) != codes.Unavailable {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
}

// TestTheLog: the commands tell the same from the daemon and from the file,
// and secrets are nowhere.
func TestTheLog(t *testing.T) {
	n := start(t, node.Options{})
	for _, handler := range []string{"docker", "containerd"} {
		ctr := node.ContainerConfig("main", shared.Image("busybox"), "sh", "-c", "echo canary-argument; sleep 1000000")
		ctr.Envs = []*runtimeapi.KeyValue{{Key: "TOKEN", Value: []byte("canary-environment")}}
		p, err := n.RunPod(t.Context(), handler, node.PodConfig("told-"+handler, logs(t)), ctr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: p.Container, Cmd: []string{"echo", "canary-output"}, Timeout: 5}); err != nil {
			t.Fatal(err)
		}
		_, err = n.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{
			Image: &runtimeapi.ImageSpec{Image: shared.Image("missing")}, SandboxConfig: p.Config,
			Auth: &runtimeapi.AuthConfig{Username: "canary-user", Password: "canary-password"},
		})
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: pulling what is not there: %v", handler, err)
		}
	}
	eventually(t, "the log is quiet", func() error {
		a, err := n.Run(t.Context(), "events", "--json")
		time.Sleep(1200 * time.Millisecond)
		b, err2 := n.Run(t.Context(), "events", "--json")
		if a != b {
			return errors.New("events were added")
		}
		return errors.Join(err, err2)
	})
	online := commands(t, n)
	pods := sandboxes(t, n)
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	offline := commands(t, n)
	for cmd, want := range online {
		if offline[cmd] != want {
			t.Errorf("%s: from the daemon\n%s\nfrom the file\n%s", cmd, want, offline[cmd])
		}
		if strings.Contains(want, "canary") {
			t.Errorf("%s prints a secret:\n%s", cmd, want)
		}
	}
	for id := range pods {
		if !strings.Contains(online["state --json"], id) || !strings.Contains(online["events --json"], id) {
			t.Errorf("sandbox %s is not in the state or the events", id)
		}
	}
	noCanary(t, n)
}

// commands runs those whose output does not change with the clock.
func commands(t *testing.T, n *node.Node) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, cmd := range []string{"events --json", "state --json", "timeline told-docker --json", "timeline told-containerd --json", "verify"} {
		got, err := n.Run(t.Context(), strings.Fields(cmd)...)
		if err != nil {
			t.Error(err)
		}
		out[cmd] = got
	}
	return out
}

// noCanary greps everything that the daemon wrote.
func noCanary(t *testing.T, n *node.Node) {
	t.Helper()
	if strings.Contains(n.Output(), "canary") {
		t.Errorf("the daemon's own output has a secret:\n%s", n.Output())
	}
	err := filepath.WalkDir(filepath.Dir(n.EventsFile), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if i := bytes.Index(b, []byte("canary")); i >= 0 {
			t.Errorf("%s has %q", path, b[i:min(i+40, len(b))])
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestWhatHappensBehindItsBack is observed and recorded.
func TestWhatHappensBehindItsBack(t *testing.T) {
	n := start(t, node.Options{})
	d, c := runSleep(t, n, "docker", "killed-d"), runSleep(t, n, "containerd", "killed-c")
	timeout := 0
	if err := shared.Docker().ContainerStop(t.Context(), d.Container, containerStop(timeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := shared.CRI().StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: c.Container}); err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"killed-d", "killed-c"} {
		eventually(t, pod+"'s exit is in its timeline", func() error {
			out, err := n.Run(t.Context(), "timeline", pod)
			if err == nil && !strings.Contains(out, "exit 137") {
				return &notYet{out}
			}
			return err
		})
	}
}

// TestAHungRuntimeDoesNotHoldUpLists: long before a runtime that hangs counts as
// away, lists and Status come without it.
func TestAHungRuntimeDoesNotHoldUpLists(t *testing.T) {
	n := start(t, node.Options{Extra: "health: {downAfter: 10m, listTimeout: 500ms}\n"})
	d, c := runSleep(t, n, "docker", "lively"), runSleep(t, n, "containerd", "frozen")
	if err := shared.PauseContainerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := shared.ResumeContainerd(context.Background()); err != nil {
			t.Error(err)
		}
		eventually(t, "containerd is back", func() error {
			_, err := n.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: c.Sandbox})
			return err
		})
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a safety deadline
	defer cancel()
	list, err := n.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		t.Fatalf("ListContainers: %v", err)
	}
	got := map[string]runtimeapi.ContainerState{}
	for _, ctr := range list.Containers {
		got[ctr.Id] = ctr.State
	}
	if want := (map[string]runtimeapi.ContainerState{d.Container: runtimeapi.ContainerState_CONTAINER_RUNNING, c.Container: runtimeapi.ContainerState_CONTAINER_RUNNING}); !maps.Equal(got, want) {
		t.Errorf("ListContainers: %v, want %v", got, want)
	}
	if _, err := n.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{}); err != nil {
		t.Errorf("ListContainerStats: %v", err)
	}
	st, err := n.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatalf("Status: %v", err)
	}
	for _, cond := range st.Status.Conditions {
		if want := cond.Type != "Backend/containerd"; cond.Status != want {
			t.Errorf("condition %s is %v (%s), want %v", cond.Type, cond.Status, cond.Message, want)
		}
	}
}
