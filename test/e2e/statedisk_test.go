package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/node"
)

// TestFullStateDisk: when the disk of the event log is full, nothing new is
// begun and nothing of it is left, what is there can be looked at, stopped and
// removed, and when there is room again all is as before, without a restart.
func TestFullStateDisk(t *testing.T) {
	disk := smallDisk(t, "-t", "tmpfs", "-o", "size=32m", "tmpfs")
	n := start(t, node.Options{StateDir: filepath.Join(disk, "state")})
	var pods []*node.Pod
	for _, handler := range []string{"docker", "containerd"} {
		pods = append(pods, runSleep(t, n, handler, "stays-"+handler), runSleep(t, n, handler, "goes-"+handler))
	}
	hog := filepath.Join(disk, "hog")
	fill(t, hog)
	attempt := 0
	eventually(t, "a new pod is refused", func() error {
		attempt++ // each another pod: one that was made is returned when it is asked for again
		r, err := n.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig(fmt.Sprint("early-", attempt), logs(t))})
		if err == nil {
			return errors.Join(&notYet{r}, n.RemovePod(t.Context(), r.PodSandboxId))
		}
		return exhausted(err)
	})
	for _, handler := range []string{"docker", "containerd"} {
		_, err := n.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig("new-"+handler, logs(t)), RuntimeHandler: handler})
		if err := exhausted(err); err != nil {
			t.Errorf("a new pod on %s: %v", handler, err)
		}
	}
	for _, p := range pods {
		_, err := n.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{
			PodSandboxId: p.Sandbox, Config: node.ContainerConfig("second", shared.Image("busybox"), "true"), SandboxConfig: p.Config,
		})
		if err := exhausted(err); err != nil {
			t.Errorf("a new container in %s: %v", p.Config.Metadata.Name, err)
		}
		if r, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: p.Container, Cmd: []string{"echo", "here"}, Timeout: 5}); err != nil || string(r.Stdout) != "here\n" {
			t.Errorf("exec: %v, %v", r, err)
		}
	}
	if got := sandboxes(t, n); len(got) != len(pods) {
		t.Errorf("the list is %v", got)
	}
	for _, p := range pods {
		if strings.HasPrefix(p.Config.Metadata.Name, "goes") {
			if err := n.RemovePod(t.Context(), p.Sandbox); err != nil {
				t.Errorf("take %s down: %v", p.Config.Metadata.Name, err)
			}
		}
	}
	if got := sandboxes(t, n); len(got) != len(pods)/2 {
		t.Errorf("after two were taken down the list is %v", got)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is room", func() error {
		_, err := n.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig("again", logs(t)), RuntimeHandler: "docker"})
		return err
	})
	if out, err := n.Run(t.Context(), "verify"); err != nil {
		t.Errorf("verify: %s%v", out, err)
	}
	out, err := n.Run(t.Context(), "events")
	if err != nil || !strings.Contains(out, "again") || strings.Contains(out, "new-docker") {
		t.Errorf("the log is\n%s%v", out, err)
	}
}

// exhausted checks that an error says that there is no room, and where.
func exhausted(err error) error {
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "make room") {
		return &notYet{err}
	}
	return nil
}

// fill writes until there is no room.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err = f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the disk is not full: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
