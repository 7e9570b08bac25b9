package docker

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
)

// running is a pod with one running container in it.
func running(t *testing.T, c cri, change func(*runtimeapi.PodSandboxConfig, *runtimeapi.ContainerConfig)) (pod_, ctr string, cfg *runtimeapi.PodSandboxConfig) {
	t.Helper()
	cfg = pod(t)
	config := ctrConfig(c.pull("busybox"), "trap 'exit 0' TERM; sleep 1000 & wait")
	change(cfg, config)
	pod_ = c.run(cfg)
	ctr = c.create(pod_, cfg, config)
	c.start(ctr)
	return pod_, ctr, cfg
}

func unchanged(*runtimeapi.PodSandboxConfig, *runtimeapi.ContainerConfig) {}

// sh runs a script in a container and returns what it prints.
func (c cri) sh(ctr, script string) string {
	c.t.Helper()
	r := must[runtimeapi.ExecSyncResponse](c, runtimeService+"ExecSync", &runtimeapi.ExecSyncRequest{ContainerId: ctr, Cmd: []string{"sh", "-c", script}, Timeout: 10})
	if r.ExitCode != 0 {
		c.t.Errorf("%s: exit code %d, %s", script, r.ExitCode, r.Stderr)
	}
	return strings.TrimSpace(string(r.Stdout))
}

func TestExec(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	id, ctr, _ := running(t, c, unchanged)
	r := must[runtimeapi.ExecSyncResponse](c, runtimeService+"ExecSync", &runtimeapi.ExecSyncRequest{ContainerId: ctr, Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}})
	if string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" || r.ExitCode != 7 {
		t.Errorf("exec %v", r)
	}
	err := c.try(runtimeService+"ExecSync", &runtimeapi.ExecSyncRequest{ContainerId: ctr, Cmd: []string{"sleep", "61"}, Timeout: 1})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("exec that takes too long: %v", err)
	}
	if got := c.sh(ctr, "ps | grep -c '[s]leep 61' || true"); got != "0" {
		t.Errorf("%s processes of the exec that timed out are left", got)
	}
	for method, at := range map[string]string{
		"exec":        must[runtimeapi.ExecResponse](c, runtimeService+"Exec", &runtimeapi.ExecRequest{ContainerId: ctr, Cmd: []string{"sh"}, Stdout: true}).Url,
		"attach":      must[runtimeapi.AttachResponse](c, runtimeService+"Attach", &runtimeapi.AttachRequest{ContainerId: ctr, Stdout: true}).Url,
		"portforward": must[runtimeapi.PortForwardResponse](c, runtimeService+"PortForward", &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: []int32{80}}).Url,
	} {
		if u, err := url.Parse(at); err != nil || u.Scheme != "http" || !strings.HasPrefix(u.Host, "127.0.0.1:") {
			t.Errorf("%s: %q, %v", method, at, err)
		}
	}
	must[runtimeapi.StopContainerResponse](c, runtimeService+"StopContainer", &runtimeapi.StopContainerRequest{ContainerId: ctr, Timeout: 10})
	if st := c.status(ctr); st.ExitCode != 0 || st.Reason != "Completed" {
		t.Errorf("stopped gracefully: %v", st)
	}
	for _, err := range []error{
		c.try(runtimeService+"ExecSync", &runtimeapi.ExecSyncRequest{ContainerId: ctr, Cmd: []string{"true"}}),
		c.try(runtimeService+"Exec", &runtimeapi.ExecRequest{ContainerId: ctr, Cmd: []string{"true"}, Stdout: true}),
	} {
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("exec in an ended container: %v", err)
		}
	}
}

// TestFieldsTakeEffect looks from inside at what was asked for.
func TestFieldsTakeEffect(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	host := t.TempDir()
	_, ctr, _ := running(t, c, func(p *runtimeapi.PodSandboxConfig, r *runtimeapi.ContainerConfig) {
		p.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "81"}
		r.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("b c=d")}}
		r.WorkingDir = "/tmp"
		r.Mounts = []*runtimeapi.Mount{
			{HostPath: filepath.Join(host, "made:here"), ContainerPath: "/data"},
			{HostPath: host, ContainerPath: "/ro", Readonly: true},
		}
		r.Linux.Resources.MemoryLimitInBytes, r.Linux.Resources.CpuQuota, r.Linux.Resources.CpuPeriod = 64<<20, 50000, 100000
		sc := r.Linux.SecurityContext
		sc.RunAsUser, sc.RunAsGroup, sc.SupplementalGroups = &runtimeapi.Int64Value{Value: 1234}, &runtimeapi.Int64Value{Value: 2345}, []int64{3456}
		sc.ReadonlyRootfs, sc.NoNewPrivs = true, true
		sc.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
	})
	for script, want := range map[string]string{
		"id -u; id -g; id -G":                               "1234\n2345\n2345 3456",
		"echo $A; pwd":                                      "b c=d\n/tmp",
		"touch /x 2>/dev/null || echo ro":                   "ro",
		"touch /ro/x 2>/dev/null || echo ro":                "ro",
		"grep NoNewPrivs: /proc/self/status":                "NoNewPrivs:\t1",
		"grep Seccomp: /proc/self/status":                   "Seccomp:\t2",
		"grep CapBnd /proc/self/status":                     "CapBnd:\t0000000000000000",
		"cat /proc/sys/net/ipv4/ip_unprivileged_port_start": "81",
		"cat /proc/1/oom_score_adj":                         "0",
		"ls /proc/1/ns | wc -l | xargs test 0 -lt && ps | wc -l | xargs test 9 -gt && echo own": "own",
	} {
		if got := c.sh(ctr, script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	st := c.status(ctr)
	if len(st.Mounts) != 2 || st.Mounts[0].HostPath != filepath.Join(host, "made:here") || !st.Mounts[1].Readonly {
		t.Errorf("mounts %v", st.Mounts)
	}
	if u := st.GetUser().GetLinux(); u.GetUid() != 1234 || u.GetGid() != 2345 || !slices.Contains(u.GetSupplementalGroups(), 3456) {
		t.Errorf("user %v", u)
	}
	if r := st.Resources.Linux; r.MemoryLimitInBytes != 64<<20 || r.CpuQuota != 50000 {
		t.Errorf("resources %v", r)
	}
	must[runtimeapi.UpdateContainerResourcesResponse](c, runtimeService+"UpdateContainerResources", &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: ctr, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20, CpuQuota: 70000},
	})
	if r := c.status(ctr).Resources.Linux; r.MemoryLimitInBytes != 96<<20 || r.CpuQuota != 70000 || r.CpuPeriod != 100000 {
		t.Errorf("resources after the update %v", r)
	}
}

func TestHostNetwork(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	id, ctr, _ := running(t, c, func(p *runtimeapi.PodSandboxConfig, r *runtimeapi.ContainerConfig) {
		p.Hostname = ""
		p.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER, Ipc: runtimeapi.NamespaceMode_NODE}
		r.Linux.SecurityContext.NamespaceOptions = proto.CloneOf(p.Linux.SecurityContext.NamespaceOptions)
	})
	st := c.podStatus(id)
	if st.State != runtimeapi.PodSandboxState_SANDBOX_READY || st.Network.GetIp() != "" || st.Linux.Namespaces.Options.Network != runtimeapi.NamespaceMode_NODE {
		t.Errorf("status %v", st)
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.sh(ctr, "hostname; readlink /proc/self/ns/net; head -1 /etc/resolv.conf"); got != name+"\n"+ours+"\nnameserver 10.96.0.10" {
		t.Errorf("inside: %q", got)
	}
}

// TestSharedProcesses: one pid namespace for the pod, and one for a container
// that looks into another.
func TestSharedProcesses(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	id, ctr, cfg := running(t, c, func(p *runtimeapi.PodSandboxConfig, r *runtimeapi.ContainerConfig) {
		p.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		r.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	})
	if got := c.sh(ctr, "readlink /proc/1/exe || cat /proc/1/cmdline"); !strings.Contains(got, "pause") {
		t.Errorf("process 1 is %q", got)
	}
	if o := c.podStatus(id).Linux.Namespaces.Options; o.Pid != runtimeapi.NamespaceMode_POD {
		t.Errorf("namespaces %v", o)
	}
	debug := ctrConfig(node.lab.Image("busybox"), "sleep 1000")
	debug.Metadata.Name = "debug"
	debug.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: ctr}
	other := c.create(id, cfg, debug)
	c.start(other)
	if got := c.sh(other, "ps | grep -c '[t]rap'"); got == "0" {
		t.Error("the target's processes are not seen")
	}
}

func TestFailedStart(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	cfg := pod(t)
	id := c.run(cfg)
	config := ctrConfig(c.pull("busybox"), "")
	config.Command = []string{"/no/such/program"}
	ctr := c.create(id, cfg, config)
	if err := c.try(runtimeService+"StartContainer", &runtimeapi.StartContainerRequest{ContainerId: ctr}); err == nil {
		t.Error("it started")
	}
	st := c.status(ctr)
	if st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.Reason != "ContainerCannotRun" || st.ExitCode == 0 || !strings.Contains(st.Message, "/no/such/program") {
		t.Errorf("status %v", st)
	}
	all := must[runtimeapi.ListContainersResponse](c, runtimeService+"ListContainers", &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: id}}).Containers
	if len(all) != 1 || all[0].State != st.State || all[0].CreatedAt != st.CreatedAt {
		t.Errorf("listed %v", all)
	}
}

func TestListFilters(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	id, ctr, cfg := running(t, c, unchanged)
	second := ctrConfig(node.lab.Image("busybox"), "true")
	second.Metadata.Name, second.Labels["tier"] = "second", "back"
	created := c.create(id, cfg, second)
	for _, f := range []struct {
		filter *runtimeapi.ContainerFilter
		want   string
	}{
		{&runtimeapi.ContainerFilter{Id: ctr}, ctr},
		{&runtimeapi.ContainerFilter{Id: ctr[:13]}, ctr},
		{&runtimeapi.ContainerFilter{PodSandboxId: id, State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_CREATED}}, created},
		{&runtimeapi.ContainerFilter{PodSandboxId: id, State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}}, ctr},
		{&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"tier": "back"}}, created},
		{&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"crimux.dev/op": ""}}, ""},
		{&runtimeapi.ContainerFilter{PodSandboxId: ctr}, ""},
	} {
		all := must[runtimeapi.ListContainersResponse](c, runtimeService+"ListContainers", &runtimeapi.ListContainersRequest{Filter: f.filter}).Containers
		var ids []string
		for _, one := range all {
			ids = append(ids, one.Id)
		}
		if strings.Join(ids, " ") != f.want {
			t.Errorf("%v: %v, want %q", f.filter, ids, f.want)
		}
	}
}

// TestWeb: the pod answers on its address and on its host port.
func TestWeb(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	cfg := pod(t)
	const hostPort = 38080
	cfg.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 8080, HostPort: hostPort}}
	id := c.run(cfg)
	config := ctrConfig(c.pull("web"), "")
	config.Command = nil
	c.start(c.create(id, cfg, config))
	for _, at := range []string{c.podStatus(id).Network.Ip + ":8080", hostAddress(t) + ":" + strconv.Itoa(hostPort)} {
		get(t, "http://"+at)
	}
}

// get expects the web image's answer.
func get(t *testing.T, at string) {
	t.Helper()
	client := http.Client{Timeout: time.Second}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		r, err := client.Get(at)
		if err == nil {
			body := make([]byte, 100)
			n, _ := r.Body.Read(body)
			r.Body.Close()
			if string(body[:n]) == lab.WebBody {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", at, err)
		}
	}
}
