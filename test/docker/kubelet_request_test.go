package docker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kubeletRequest reads a request of a stock kubelet.
func kubeletRequest(t *testing.T, name string, into proto.Message) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "backends", "docker", "testdata", "kubelet", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

// TestStockKubelet: what a kubelet v1.36 sends for an ordinary pod runs, that
// of a node with cgroup v2 on one with v1 too: nothing that it adds unasked
// keeps a pod from running.
func TestStockKubelet(t *testing.T) {
	for _, version := range []string{"cgroup1", "cgroup2"} {
		t.Run(version, func(t *testing.T) {
			noLeak(t)
			c := kubelet(t)
			image := c.pull("busybox")
			var run runtimeapi.RunPodSandboxRequest
			kubeletRequest(t, version+"-run", &run)
			var create runtimeapi.CreateContainerRequest
			kubeletRequest(t, version+"-create", &create)
			// What belongs to the kubelet's node and cluster, and not to the request.
			mine := pod(t)
			run.Config.Metadata, run.Config.LogDirectory = mine.Metadata, mine.LogDirectory
			run.Config.Linux.CgroupParent = ""
			create.Config.Image = &runtimeapi.ImageSpec{Image: c.image(image).Id, UserSpecifiedImage: image}
			create.Config.Command = []string{"sleep", "1000"}
			volumes := t.TempDir()
			for _, m := range create.Config.Mounts {
				m.HostPath = filepath.Join(volumes, filepath.Base(m.HostPath))
				if strings.HasPrefix(m.ContainerPath, "/var") {
					continue
				}
				if err := os.WriteFile(m.HostPath, []byte("of the kubelet\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			id := must[runtimeapi.RunPodSandboxResponse](c, runtimeService+"RunPodSandbox", &run).PodSandboxId
			t.Cleanup(func() { c.removePod(id) })
			create.PodSandboxId, create.SandboxConfig = id, run.Config
			ctr := must[runtimeapi.CreateContainerResponse](c, runtimeService+"CreateContainer", &create).ContainerId
			c.start(ctr)
			c.inside(ctr, map[string]string{
				"hostname": run.Config.Hostname, "cat /etc/hosts": "of the kubelet", "id -u": "0",
				"echo $KUBERNETES_SERVICE_HOST": "10.96.0.1",
				"head -1 /etc/resolv.conf":      "nameserver 10.96.0.10",
				"cat /proc/1/oom_score_adj":     "996",
				"touch /var/run/secrets/kubernetes.io/serviceaccount/x 2>/dev/null || echo ro": "ro",
				"wc -c </proc/timer_list 2>/dev/null || echo 0":                                "0",
			})
			if st := c.status(ctr); st.Image.Image != image || st.ImageId != c.image(image).Id || st.Annotations["io.kubernetes.container.hash"] != "5e1fd2c3" {
				t.Errorf("status %v", st)
			}
			// As it resizes the pod.
			must[runtimeapi.UpdatePodSandboxResourcesResponse](c, runtimeService+"UpdatePodSandboxResources", &runtimeapi.UpdatePodSandboxResourcesRequest{
				PodSandboxId: id, Overhead: run.Config.Linux.Overhead, Resources: run.Config.Linux.Resources})
			resized := proto.CloneOf(create.Config.Linux.Resources)
			resized.MemoryLimitInBytes *= 2
			resized.OomScoreAdj = 998
			if resized.MemorySwapLimitInBytes != 0 {
				resized.MemorySwapLimitInBytes *= 2
			}
			must[runtimeapi.UpdateContainerResourcesResponse](c, runtimeService+"UpdateContainerResources", &runtimeapi.UpdateContainerResourcesRequest{ContainerId: ctr, Linux: resized})
			if got := c.status(ctr).Resources.Linux.MemoryLimitInBytes; got != 256<<20 {
				t.Errorf("memory limit %d", got)
			}
			if got := c.sh(ctr, "cat /proc/1/oom_score_adj"); got != "998" {
				t.Errorf("oom_score_adj %s", got)
			}
		})
	}
}

// TestNodeNamespaces: pids and ipc of the node, and ipc of the pod.
func TestNodeNamespaces(t *testing.T) {
	of := func(kind string) string {
		t.Helper()
		ns, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}
	const look = "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc"
	host := newSandbox(t, func(p *runtimeapi.PodSandboxConfig) {
		o := p.Linux.SecurityContext.NamespaceOptions
		o.Pid, o.Ipc = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE
	})
	ctr := host.started(sec(func(sc *runtimeapi.LinuxContainerSecurityContext) {
		sc.NamespaceOptions.Pid, sc.NamespaceOptions.Ipc = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE
	}))
	if got, want := host.sh(ctr, look), of("pid")+"\n"+of("ipc"); got != want {
		t.Errorf("of the node: %q, want %q", got, want)
	}
	own := newSandbox(t, plain)
	a, b := own.started(func(*runtimeapi.ContainerConfig) {}), own.started(func(*runtimeapi.ContainerConfig) {})
	own.sh(a, "echo shared >/dev/shm/x")
	if got := own.sh(b, "cat /dev/shm/x"); got != "shared" {
		t.Errorf("/dev/shm of the pod: %q", got)
	}
	pidA, ipcA, _ := strings.Cut(own.sh(a, look), "\n")
	pidB, ipcB, _ := strings.Cut(own.sh(b, look), "\n")
	if pidA == pidB || ipcA != ipcB || pidA == of("pid") || ipcA == of("ipc") {
		t.Errorf("pids %s and %s, ipc %s and %s", pidA, pidB, ipcA, ipcB)
	}
}
