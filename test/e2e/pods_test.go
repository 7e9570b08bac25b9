package e2e

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// TestTwoRuntimesOneSocket is the first thing that must work: a pod on each
// engine, both reachable, both in one list, each with exec and logs.
func TestTwoRuntimesOneSocket(t *testing.T) {
	n := start(t, node.Options{})
	pods := map[string]*node.Pod{"docker": runWeb(t, n, "docker", "on-docker"), "containerd": runWeb(t, n, "containerd", "on-containerd")}
	for backend, p := range pods {
		if body, err := get(p.IP); err != nil || !strings.Contains(body, strings.TrimSpace(lab.WebBody)) {
			t.Errorf("%s: the pod at %q answers %q, %v", backend, p.IP, body, err)
		}
		r, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: p.Container, Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, Timeout: 10})
		if err != nil || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" || r.ExitCode != 3 {
			t.Errorf("%s: exec gave %v, %v", backend, r, err)
		}
		st, err := n.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.Sandbox})
		if err != nil || st.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY || st.Status.RuntimeHandler != backend {
			t.Errorf("%s: sandbox status %v, %v", backend, st, err)
		}
	}
	got := sandboxes(t, n)
	for backend, p := range pods {
		if s, ok := got[p.Sandbox]; !ok || s != runtimeapi.PodSandboxState_SANDBOX_READY {
			t.Errorf("%s: sandbox %s is listed as %v (%v)", backend, p.Sandbox, s, ok)
		}
	}
	if len(got) != 2 {
		t.Errorf("the merged list has %v", got)
	}
	ctrs, err := n.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(ctrs.Containers) != 2 {
		t.Errorf("the merged list of containers is %v, %v", ctrs, err)
	}
}

func TestLogsAndExit(t *testing.T) {
	n := start(t, node.Options{})
	for _, handler := range []string{"docker", "containerd"} {
		p, err := n.RunPod(t.Context(), handler, node.PodConfig("logs-"+handler, logs(t)),
			node.ContainerConfig("main", shared.Image("busybox"), "sh", "-c", "echo to stdout; echo to stderr >&2; exit 5"))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, handler+": the log is there", func() error {
			if err := logHas(p.LogPath, "to stdout"); err != nil {
				return err
			}
			return logHas(p.LogPath, "to stderr")
		})
		eventually(t, handler+": the container has exited", func() error {
			st, err := n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: p.Container})
			if err != nil {
				return err
			}
			if s := st.Status; s.State != runtimeapi.ContainerState_CONTAINER_EXITED || s.ExitCode != 5 || s.Reason != "Error" {
				return &notYet{s}
			}
			return nil
		})
		eventually(t, handler+": its exit is in the timeline", func() error {
			out, err := n.Run(t.Context(), "timeline", "logs-"+handler)
			if err == nil && !strings.Contains(out, "exit 5") {
				return &notYet{out}
			}
			return err
		})
		if handler == "docker" {
			networkIsTold(t, n, p)
		}
	}
}

// networkIsTold stops a pod and looks in its timeline for when it got its
// address and lost it.
func networkIsTold(t *testing.T, n *node.Node, p *node.Pod) {
	t.Helper()
	st, err := n.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.Sandbox})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.Sandbox}); err != nil {
		t.Fatal(err)
	}
	out, err := n.Run(t.Context(), "timeline", p.Config.Metadata.Name)
	if err != nil || !strings.Contains(out, "network.attached "+st.Status.Network.Ip) || !strings.Contains(out, "network.detached "+p.Sandbox[:12]) {
		t.Errorf("the timeline does not tell of the network:\n%s%v", out, err)
	}
}

// TestDefaultAndUnknownHandler: a pod without a RuntimeClass goes to the
// default; a handler that no route has is refused and leaves no trace.
func TestDefaultAndUnknownHandler(t *testing.T) {
	n := start(t, node.Options{Default: "containerd"})
	p := runSleep(t, n, "", "plain")
	list, err := shared.CRI().ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{Id: p.Sandbox}})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("containerd has %v, %v", list, err)
	}
	_, err = n.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig("lost", logs(t)), RuntimeHandler: "gvisor"})
	wantInvalid(t, err, "gvisor", "docker", "containerd")
	if got := sandboxes(t, n); len(got) != 1 {
		t.Errorf("the list has %v", got)
	}
}

// TestSharedContainerd has dockerd stand on the containerd that is also the
// CRI's, as Docker's and Debian's packages install them.
func TestSharedContainerd(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Options{Layout: lab.SharedContainerd})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
	})
	n := startOn(t, l, node.Options{})
	for _, handler := range []string{"docker", "containerd"} {
		p, err := n.RunPod(t.Context(), handler, node.PodConfig("on-"+handler, logs(t)), node.ContainerConfig("web", l.Image("web")))
		if err != nil {
			t.Fatal(err)
		}
		if body, err := get(p.IP); err != nil || body == "" {
			t.Errorf("%s: the pod answers %q, %v", handler, body, err)
		}
	}
	if got := sandboxes(t, n); len(got) != 2 {
		t.Errorf("the merged list has %v", got)
	}
}
