package e2e

import (
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/crimux/crimux/test/node"
)

// TestAPodThatSomebodyRemoved: who removes a pod's containers on the Engine
// itself leaves its network, which nobody would ever ask to give back. Crimux
// does, whether or not it was running at the time; the check is what is left
// at the end of the test.
func TestAPodThatSomebodyRemoved(t *testing.T) {
	n := start(t, node.Options{NoContainerd: true})
	remove := func(p *node.Pod) {
		t.Helper()
		for _, id := range []string{p.Container, p.Sandbox} {
			if err := shared.Docker().ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone := func() error {
		if got := sandboxes(t, n); len(got) != 0 {
			return &notYet{got}
		}
		return nil
	}
	remove(runSleep(t, n, "docker", "removed-before-its-eyes"))
	eventually(t, "the pod is gone", gone)

	p := runSleep(t, n, "docker", "removed-behind-its-back")
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	remove(p)
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod is gone after a restart", gone)
}
