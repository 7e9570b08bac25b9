package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/versions"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// engineAPI is the newest API that the Engine speaks.
func engineAPI(t *testing.T) string {
	t.Helper()
	v, err := node.lab.Docker().ServerVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v.APIVersion
}

// lastWords runs a container of a pod to its end and returns what it printed.
func (c cri) lastWords(sandbox string, p *runtimeapi.PodSandboxConfig, cfg *runtimeapi.ContainerConfig) string {
	c.t.Helper()
	id := c.create(sandbox, p, cfg)
	c.start(id)
	c.exited(id)
	var out string
	eventually(c.t, "its log", func() bool {
		b, err := os.ReadFile(filepath.Join(p.LogDirectory, cfg.LogPath))
		out = string(b)
		return err == nil && out != ""
	})
	return out
}

// TestReadOnlyMounts: read-only is not recursive unless that is asked for,
// whatever the Engine would do by itself: from 25 on it would. Asked for, it
// is refused where the Engine cannot, as before 25.
func TestReadOnlyMounts(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	dir := t.TempDir()
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("below", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(below, 0); err != nil {
			t.Error(err)
		}
	})
	image, p := c.pull("busybox"), pod(t)
	sandbox := c.run(p)
	write := func(name string, recursive bool) *runtimeapi.ContainerConfig {
		cfg := ctrConfig(image, "for f in /m/x /m/below/x; do touch $f 2>/dev/null && echo $f is written || echo $f is not; done")
		cfg.Metadata.Name, cfg.LogPath = name, name+".log"
		cfg.Mounts = []*runtimeapi.Mount{{ContainerPath: "/m", HostPath: dir, Readonly: true, RecursiveReadOnly: recursive}}
		return cfg
	}
	if out := c.lastWords(sandbox, p, write("flat", false)); !strings.Contains(out, "/m/x is not") || !strings.Contains(out, "/m/below/x is written") {
		t.Errorf("read-only:\n%s", out)
	}
	can := versions.GreaterThanOrEqualTo(engineAPI(t), "1.44")
	handlers := must[runtimeapi.StatusResponse](c, runtimeService+"Status", &runtimeapi.StatusRequest{}).RuntimeHandlers
	if said := handlers[0].Features.GetRecursiveReadOnlyMounts(); said != can {
		t.Errorf("recursive read-only mounts are said to be %v on an Engine of API %s", said, engineAPI(t))
	}
	if can {
		if out := c.lastWords(sandbox, p, write("deep", true)); !strings.Contains(out, "/m/x is not") || !strings.Contains(out, "/m/below/x is not") {
			t.Errorf("recursively read-only:\n%s", out)
		}
		return
	}
	err := c.try(runtimeService+"CreateContainer", &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, Config: write("deep", true), SandboxConfig: p})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "recursive_read_only") {
		t.Errorf("recursively read-only: %v", err)
	}
}

// TestCDI: a device is injected where the Engine has CDI, as from 28 on, and
// refused by name where it has not.
func TestCDI(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	info, err := node.lab.Docker().Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	image, p := c.pull("busybox"), pod(t)
	sandbox := c.run(p)
	cfg := ctrConfig(image, "echo device $CDI_DEVICE")
	cfg.CDIDevices = []*runtimeapi.CDIDevice{{Name: "crimux.test/kind=one"}}
	if len(info.CDISpecDirs) == 0 {
		err := c.try(runtimeService+"CreateContainer", &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, Config: cfg, SandboxConfig: p})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "CDI_devices") {
			t.Errorf("without CDI: %v", err)
		}
		if versions.GreaterThanOrEqualTo(engineAPI(t), "1.51") {
			t.Error("an Engine of 28 or newer has CDI")
		}
		return
	}
	dir := info.CDISpecDirs[len(info.CDISpecDirs)-1]
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := filepath.Join(dir, fmt.Sprintf("crimux-test-%d.json", os.Getpid()))
	t.Cleanup(func() { os.Remove(spec) })
	body := `{"cdiVersion":"0.5.0","kind":"crimux.test/kind","devices":[{"name":"one","containerEdits":{"env":["CDI_DEVICE=injected"]}}]}`
	if err := os.WriteFile(spec, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := c.lastWords(sandbox, p, cfg); !strings.Contains(out, "device injected") {
		t.Errorf("the device is not there: %s", out)
	}
}

// TestKilledForMemory: every Engine says so, each at a moment of its own.
func TestKilledForMemory(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	image, p := c.pull("busybox"), pod(t)
	sandbox := c.run(p)
	cfg := ctrConfig(image, "tail /dev/zero")
	cfg.Command = []string{"tail", "/dev/zero"}
	cfg.Linux.Resources.MemoryLimitInBytes = 20 << 20
	id := c.create(sandbox, p, cfg)
	c.start(id)
	if st := c.exited(id); st.ExitCode != 137 || st.Reason != "OOMKilled" {
		t.Errorf("it ended with %d, %q", st.ExitCode, st.Reason)
	}
}
