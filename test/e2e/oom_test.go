package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// TestKilledForMemory: that a container ended because it was out of memory is
// in the log although nobody has asked how it ended.
func TestKilledForMemory(t *testing.T) {
	t.Run("docker", func(t *testing.T) { killedForMemory(t, shared, start(t, node.Options{}), "docker") })
	t.Run("containerd", func(t *testing.T) { killedForMemory(t, shared, start(t, node.Options{}), "containerd") })
	t.Run("containerd 2", func(t *testing.T) {
		l, err := lab.Start(t.Context(), lab.Options{Containerd: lab.V2, NoDocker: true, Log: os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Stop(); err != nil {
				t.Error(err)
			}
		})
		killedForMemory(t, l, startOn(t, l, node.Options{NoDocker: true}), "containerd")
	})
}

func killedForMemory(t *testing.T, l *lab.Lab, n *node.Node, handler string) {
	t.Helper()
	const told = "container main RUNNING → EXITED, exit 137 (OOMKilled)"
	greedy := node.ContainerConfig("main", l.Image("busybox"), "tail", "/dev/zero")
	greedy.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 20 << 20}
	p, err := n.RunPod(t.Context(), handler, node.PodConfig("greedy", logs(t)), greedy)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "its timeline says why it ended", func() error {
		out, err := n.Run(t.Context(), "timeline", "greedy")
		if err == nil && !strings.Contains(out, told) {
			return &notYet{out}
		}
		return err
	})
	out, err := n.Run(t.Context(), "events", "--json")
	if err != nil || !strings.Contains(out, fmt.Sprintf("%q", p.Container)) || !strings.Contains(out, `"OOMKilled"`) {
		t.Errorf("the events do not say it: %v\n%s", err, out)
	}
	if out, err := n.Run(t.Context(), "events"); err != nil || !strings.Contains(out, "exit 137 (OOMKilled)") {
		t.Errorf("the events do not say it: %v\n%s", err, out)
	}
}
