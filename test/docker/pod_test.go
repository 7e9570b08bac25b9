package docker

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestNode(t *testing.T) {
	c := kubelet(t)
	v := must[runtimeapi.VersionResponse](c, runtimeService+"Version", &runtimeapi.VersionRequest{})
	if v.RuntimeName != "docker" || v.RuntimeApiVersion != "v1" || v.Version != "0.1.0" || v.RuntimeVersion == "" {
		t.Errorf("version %v", v)
	}
	st := must[runtimeapi.StatusResponse](c, runtimeService+"Status", &runtimeapi.StatusRequest{Verbose: true})
	for _, cond := range st.Status.Conditions {
		if !cond.Status {
			t.Errorf("condition %v", cond)
		}
	}
	if len(st.RuntimeHandlers) < 2 || st.RuntimeHandlers[0].Name != "" || st.Info["config"] == "" {
		t.Errorf("status %v", st)
	}
	rc := must[runtimeapi.RuntimeConfigResponse](c, runtimeService+"RuntimeConfig", &runtimeapi.RuntimeConfigRequest{})
	if rc.Linux == nil {
		t.Errorf("runtime config %v", rc)
	}
	fs := must[runtimeapi.ImageFsInfoResponse](c, imageService+"ImageFsInfo", &runtimeapi.ImageFsInfoRequest{})
	if len(fs.ImageFilesystems) != 1 || fs.ImageFilesystems[0].FsId.Mountpoint == "" || len(fs.ContainerFilesystems) != 1 {
		t.Errorf("file systems %v", fs)
	}
}

func TestPodLifecycle(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	ref := c.pull("busybox")
	cfg := pod(t)
	id := c.run(cfg)

	st := c.podStatus(id)
	ip, err := netip.ParseAddr(st.GetNetwork().GetIp())
	if err != nil || !netip.MustParsePrefix(node.lab.Subnet).Contains(ip) {
		t.Errorf("pod address %q is not in %s", st.GetNetwork().GetIp(), node.lab.Subnet)
	}
	listed := c.pods()[id]
	if st.State != runtimeapi.PodSandboxState_SANDBOX_READY || listed.GetState() != st.State || listed.CreatedAt != st.CreatedAt {
		t.Errorf("status %v, listed %v", st, listed)
	}
	if !proto.Equal(st.Metadata, cfg.Metadata) || len(st.Labels) != 2 || st.Labels["app"] != "test" ||
		len(st.Annotations) != 1 || st.Annotations["note"] != "x=y:z" {
		t.Errorf("identity %v %v %v", st.Metadata, st.Labels, st.Annotations)
	}
	if o := st.Linux.Namespaces.Options; o.Network != runtimeapi.NamespaceMode_POD || o.Pid != runtimeapi.NamespaceMode_CONTAINER {
		t.Errorf("namespaces %v", o)
	}

	ctr := c.create(id, cfg, ctrConfig(ref, "cat /etc/resolv.conf; hostname; ip -4 -o addr show eth0; ls /proc/1/exe >/dev/null && exit 3"))
	created := c.status(ctr)
	if created.State != runtimeapi.ContainerState_CONTAINER_CREATED || created.StartedAt != 0 || created.FinishedAt != 0 {
		t.Errorf("created container %v", created)
	}
	c.start(ctr)
	end := c.exited(ctr)
	if end.ExitCode != 3 || end.Reason != "Error" || end.StartedAt < end.CreatedAt || end.FinishedAt < end.StartedAt {
		t.Errorf("ended container %v", end)
	}
	log, err := os.ReadFile(filepath.Join(cfg.LogDirectory, "main/0.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" stdout F nameserver 10.96.0.10\n", " stdout F search svc.cluster.local\n", " stdout F options ndots:5\n", " stdout F pod\n", ip.String()} {
		if !strings.Contains(string(log), want) {
			t.Errorf("log lacks %q:\n%s", want, log)
		}
	}
	if err := c.try(runtimeService+"StartContainer", &runtimeapi.StartContainerRequest{ContainerId: ctr}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("start of an ended container: %v", err)
	}
	removedTwice(c, id, ctr)
}

// removedTwice stops and removes a container and its pod, each more than once.
func removedTwice(c cri, id, ctr string) {
	t := c.t
	t.Helper()
	for range 2 {
		must[runtimeapi.StopContainerResponse](c, runtimeService+"StopContainer", &runtimeapi.StopContainerRequest{ContainerId: ctr, Timeout: 1})
	}
	for range 2 {
		must[runtimeapi.RemoveContainerResponse](c, runtimeService+"RemoveContainer", &runtimeapi.RemoveContainerRequest{ContainerId: ctr})
	}
	if err := c.try(runtimeService+"ContainerStatus", &runtimeapi.ContainerStatusRequest{ContainerId: ctr}); status.Code(err) != codes.NotFound {
		t.Errorf("status of a removed container: %v", err)
	}

	for range 3 {
		must[runtimeapi.StopPodSandboxResponse](c, runtimeService+"StopPodSandbox", &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	}
	if st := c.podStatus(id); st.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("stopped pod %v", st)
	}
	for range 3 {
		must[runtimeapi.RemovePodSandboxResponse](c, runtimeService+"RemovePodSandbox", &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	}
	if err := c.try(runtimeService+"PodSandboxStatus", &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}); status.Code(err) != codes.NotFound {
		t.Errorf("status of a removed pod: %v", err)
	}
}
