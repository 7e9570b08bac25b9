package docker

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/backends/docker"
)

const (
	runtimeService = "/runtime.v1.RuntimeService/"
	imageService   = "/runtime.v1.ImageService/"
)

// cri is a kubelet's view of the backend.
type cri struct {
	t *testing.T
	*docker.Backend
}

func kubelet(t *testing.T) cri { return cri{t: t, Backend: node.backend} }

// must makes a call that has to succeed.
func must[A any, PA interface {
	*A
	proto.Message
}](c cri, method string, req proto.Message) PA {
	c.t.Helper()
	out := PA(new(A))
	if err := invoke(c.t, c.Backend, method, backends.NoJournal, req, out); err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
	return out
}

// try makes a call that may fail.
func (c cri) try(method string, req proto.Message) error {
	c.t.Helper()
	return invoke(c.t, c.Backend, method, backends.NoJournal, req, discard())
}

// discard takes any answer: its fields are all unknown to it.
func discard() proto.Message { return &runtimeapi.StopPodSandboxResponse{} }

var serial struct {
	sync.Mutex
	n int
}

// pod is the configuration of a pod with a name of its own.
func pod(t *testing.T) *runtimeapi.PodSandboxConfig {
	t.Helper()
	serial.Lock()
	defer serial.Unlock()
	serial.n++
	name := fmt.Sprintf("%s-%d", strings.ToLower(strings.Map(func(r rune) rune {
		if r == '/' || r == '_' {
			return '-'
		}
		return r
	}, t.Name())), serial.n)
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: fmt.Sprintf("uid-%d-%d", time.Now().UnixNano(), serial.n)},
		Hostname: "pod", LogDirectory: t.TempDir(),
		DnsConfig:   &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"svc.cluster.local"}, Options: []string{"ndots:5"}},
		Labels:      map[string]string{"app": "test", "io.kubernetes.pod.name": name},
		Annotations: map[string]string{"note": "x=y:z"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}
}

// run runs a pod and removes it with the test.
func (c cri) run(cfg *runtimeapi.PodSandboxConfig) string {
	c.t.Helper()
	id := must[runtimeapi.RunPodSandboxResponse](c, runtimeService+"RunPodSandbox", &runtimeapi.RunPodSandboxRequest{Config: cfg}).PodSandboxId
	c.t.Cleanup(func() { c.removePod(id) })
	return id
}

func (c cri) removePod(id string) {
	c.t.Helper()
	ctx := cri{t: c.t, Backend: c.Backend}
	for _, m := range []struct {
		name string
		req  proto.Message
	}{
		{"StopPodSandbox", &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}},
		{"RemovePodSandbox", &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}},
	} {
		body, err := proto.Marshal(m.req)
		if err != nil {
			c.t.Fatal(err)
		}
		// Not the test's context: it is over when clean-ups run.
		bounded, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		_, err = ctx.Invoke(bounded, &backends.Call{Method: runtimeService + m.name, Request: backends.NewFrame(body), Journal: backends.NoJournal})
		cancel()
		if err != nil {
			c.t.Errorf("%s: %v", m.name, err)
		}
	}
}

// ctrConfig is the configuration of a container that runs a shell script.
func ctrConfig(image, script string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, Image: &runtimeapi.ImageSpec{Image: image},
		Command: []string{"sh", "-c", script}, LogPath: "main/0.log",
		Labels:      map[string]string{"io.kubernetes.container.name": "main"},
		Annotations: map[string]string{"io.kubernetes.container.hash": "abc"},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{
				CpuShares: 102, OomScoreAdj: -997, HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}},
				Unified: map[string]string{"memory.oom.group": "1"},
			},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
				MaskedPaths:      []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"},
				Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

// pull makes sure that an image is there and returns its reference.
func (c cri) pull(name string) string {
	c.t.Helper()
	ref := node.lab.Image(name)
	must[runtimeapi.PullImageResponse](c, imageService+"PullImage", &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	return ref
}

func (c cri) create(sandbox string, p *runtimeapi.PodSandboxConfig, cfg *runtimeapi.ContainerConfig) string {
	c.t.Helper()
	return must[runtimeapi.CreateContainerResponse](c, runtimeService+"CreateContainer",
		&runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, Config: cfg, SandboxConfig: p}).ContainerId
}

func (c cri) start(id string) {
	c.t.Helper()
	must[runtimeapi.StartContainerResponse](c, runtimeService+"StartContainer", &runtimeapi.StartContainerRequest{ContainerId: id})
}

func (c cri) status(id string) *runtimeapi.ContainerStatus {
	c.t.Helper()
	return must[runtimeapi.ContainerStatusResponse](c, runtimeService+"ContainerStatus", &runtimeapi.ContainerStatusRequest{ContainerId: id}).Status
}

func (c cri) podStatus(id string) *runtimeapi.PodSandboxStatus {
	c.t.Helper()
	return must[runtimeapi.PodSandboxStatusResponse](c, runtimeService+"PodSandboxStatus", &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}).Status
}

// pods lists all sandboxes by id.
func (c cri) pods() map[string]*runtimeapi.PodSandbox {
	c.t.Helper()
	all := map[string]*runtimeapi.PodSandbox{}
	for _, p := range must[runtimeapi.ListPodSandboxResponse](c, runtimeService+"ListPodSandbox", &runtimeapi.ListPodSandboxRequest{}).Items {
		all[p.Id] = p
	}
	return all
}

// eventually waits until a condition holds, for less than the half minute after
// which the backend looks at all there is.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(25 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: waited too long", what)
		}
	}
}

// exited waits for a container's end.
func (c cri) exited(id string) *runtimeapi.ContainerStatus {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if st := c.status(id); st.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			return st
		}
		if time.Now().After(end) {
			c.t.Fatalf("container %s did not end", id)
		}
	}
}

// noLeak fails the test if the node afterwards is not as it was before.
func noLeak(t *testing.T) {
	t.Helper()
	before, err := node.lab.Footprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var diff []string
		// The kernel takes a moment for links of a dead namespace, or longer.
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			now, err := node.lab.Footprint(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			if diff = before.Diff(now); len(diff) == 0 {
				return
			}
		}
		t.Errorf("left behind:\n%s", strings.Join(diff, "\n"))
	})
}

// hostAddress is an address of this machine that is not loopback.
func hostAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}
