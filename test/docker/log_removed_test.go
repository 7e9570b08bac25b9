package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestLogOutlivesItsContainer: a container that is removed right after it has
// written much, whether or not it has ended, leaves all of that in its log.
func TestLogOutlivesItsContainer(t *testing.T) {
	const lines = 300_000
	noLeak(t)
	c := kubelet(t)
	for _, how := range []struct {
		name, script string
		state        runtimeapi.ContainerState
		remove       func(pod, ctr string)
	}{
		{"ended", "", runtimeapi.ContainerState_CONTAINER_EXITED, func(_, ctr string) {
			must[runtimeapi.RemoveContainerResponse](c, runtimeService+"RemoveContainer", &runtimeapi.RemoveContainerRequest{ContainerId: ctr})
		}},
		{"ended, with its pod", "", runtimeapi.ContainerState_CONTAINER_EXITED, func(pod, _ string) { c.removePod(pod) }},
		{"running", "; touch /done; sleep 1000", runtimeapi.ContainerState_CONTAINER_RUNNING, func(_, ctr string) {
			c.sh(ctr, "while ! test -e /done; do usleep 10000; done")
			must[runtimeapi.RemoveContainerResponse](c, runtimeService+"RemoveContainer", &runtimeapi.RemoveContainerRequest{ContainerId: ctr})
		}},
	} {
		cfg := pod(t)
		config := ctrConfig(c.pull("busybox"), fmt.Sprintf("seq 1 %d%s", lines, how.script))
		id := c.run(cfg)
		ctr := c.create(id, cfg, config)
		c.start(ctr)
		eventually(t, how.name, func() bool { return c.listed(ctr) == how.state })
		how.remove(id, ctr)
		b, err := os.ReadFile(filepath.Join(cfg.LogDirectory, config.LogPath))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), "\n"); n != lines {
			t.Errorf("%s: %d lines in the log, want %d", how.name, n, lines)
		}
		c.removePod(id)
	}
}

// listed is a container's state in the list, which unlike its status waits for
// no log.
func (c cri) listed(id string) runtimeapi.ContainerState {
	c.t.Helper()
	all := must[runtimeapi.ListContainersResponse](c, runtimeService+"ListContainers", &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{Id: id}})
	if len(all.Containers) != 1 {
		c.t.Fatalf("listed %v", all)
	}
	return all.Containers[0].State
}
