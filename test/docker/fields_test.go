package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
)

// inside expects what scripts print in a container.
func (c cri) inside(ctr string, want map[string]string) {
	c.t.Helper()
	for script, w := range want {
		if got := c.sh(ctr, script); got != w {
			c.t.Errorf("%s: %q, want %q", script, got, w)
		}
	}
}

// sandboxOf is a running pod for several containers.
type sandboxOf struct {
	cri
	id  string
	cfg *runtimeapi.PodSandboxConfig
	n   int
}

func newSandbox(t *testing.T, change func(*runtimeapi.PodSandboxConfig)) *sandboxOf {
	t.Helper()
	noLeak(t)
	c := kubelet(t)
	cfg := pod(t)
	change(cfg)
	c.pull("busybox")
	return &sandboxOf{cri: c, id: c.run(cfg), cfg: cfg}
}

// add makes another container of the pod.
func (s *sandboxOf) add(change func(*runtimeapi.ContainerConfig)) string {
	s.t.Helper()
	s.n++
	config := ctrConfig(node.lab.Image("busybox"), "trap 'exit 0' TERM; sleep 1000 & wait")
	config.Metadata.Name = fmt.Sprintf("c%d", s.n)
	change(config)
	return s.create(s.id, s.cfg, config)
}

// start makes and starts another container of the pod.
func (s *sandboxOf) started(change func(*runtimeapi.ContainerConfig)) string {
	s.t.Helper()
	id := s.add(change)
	s.start(id)
	return id
}

func plain(*runtimeapi.PodSandboxConfig) {}

// sec changes a container's security context.
func sec(change func(*runtimeapi.LinuxContainerSecurityContext)) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { change(c.Linux.SecurityContext) }
}

func TestUsers(t *testing.T) {
	s := newSandbox(t, plain)
	for _, u := range []struct {
		change func(*runtimeapi.LinuxContainerSecurityContext)
		want   string
	}{
		{func(*runtimeapi.LinuxContainerSecurityContext) {}, "0 0 0"},
		{func(sc *runtimeapi.LinuxContainerSecurityContext) { sc.RunAsUser = &runtimeapi.Int64Value{Value: 4321} }, "4321 0 0"},
		{func(sc *runtimeapi.LinuxContainerSecurityContext) { sc.RunAsUsername = "root" }, "0 0 0"},
		{func(sc *runtimeapi.LinuxContainerSecurityContext) {
			sc.RunAsUsername, sc.RunAsGroup, sc.SupplementalGroups = "root", &runtimeapi.Int64Value{Value: 7}, []int64{8, 9}
		}, "0 7 7 8 9"},
	} {
		ctr := s.started(sec(u.change))
		if got := s.sh(ctr, "echo $(id -u) $(id -g) $(id -G)"); got != u.want {
			t.Errorf("id %q, want %q", got, u.want)
		}
		seen := s.status(ctr).GetUser().GetLinux()
		if got := fmt.Sprintf("%d %d", seen.GetUid(), seen.GetGid()); seen == nil || !strings.HasPrefix(u.want, got+" ") {
			t.Errorf("status says %q, want %q", seen, u.want)
		}
		for _, g := range seen.GetSupplementalGroups() {
			if !slices.Contains(strings.Fields(u.want)[2:], strconv.FormatInt(g, 10)) {
				t.Errorf("status says groups %d, want %q", seen.SupplementalGroups, u.want)
			}
		}
	}
}

// capability is a bit of CapEff.
const (
	capChown    = 1 << 0
	capNetAdmin = 1 << 12
	capNetRaw   = 1 << 13
)

func TestCapabilities(t *testing.T) {
	s := newSandbox(t, plain)
	caps := func(add, drop []string) uint64 {
		t.Helper()
		ctr := s.started(sec(func(sc *runtimeapi.LinuxContainerSecurityContext) {
			sc.Capabilities = &runtimeapi.Capability{AddCapabilities: add, DropCapabilities: drop}
		}))
		bits, err := strconv.ParseUint(s.sh(ctr, "sed -n 's/^CapEff:\t*//p' /proc/self/status"), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return bits
	}
	if got := caps(nil, nil); got&capChown == 0 || got&capNetAdmin != 0 {
		t.Errorf("default %x", got)
	}
	if got := caps([]string{"NET_ADMIN"}, []string{"ALL"}); got != capNetAdmin {
		t.Errorf("one only %x", got)
	}
	if got := caps([]string{"CAP_NET_ADMIN"}, []string{"CAP_CHOWN"}); got&capNetAdmin == 0 || got&capChown != 0 || got&capNetRaw == 0 {
		t.Errorf("with the prefix %x", got)
	}
	if got := caps([]string{"NET_ADMIN", "ALL"}, []string{"all", "CAP_NET_RAW"}); got != capNetAdmin {
		t.Errorf("all added and dropped %x", got)
	}
	if got := caps([]string{"CHOWN", "NET_ADMIN"}, []string{"CAP_CHOWN"}); got&capChown != 0 || got&capNetAdmin == 0 {
		t.Errorf("added and dropped %x", got)
	}
	err := s.try(runtimeService+"CreateContainer", &runtimeapi.CreateContainerRequest{PodSandboxId: s.id, SandboxConfig: s.cfg, Config: func() *runtimeapi.ContainerConfig {
		c := ctrConfig(node.lab.Image("busybox"), "true")
		c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NO_SUCH"}}
		return c
	}()})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("unknown capability: %v", err)
	}
}

func TestMaskedAndReadonlyPaths(t *testing.T) {
	s := newSandbox(t, plain)
	s.inside(s.started(sec(func(sc *runtimeapi.LinuxContainerSecurityContext) {
		sc.MaskedPaths, sc.ReadonlyPaths = []string{"/proc/version", "/sys/kernel"}, []string{"/tmp"}
	})), map[string]string{
		"wc -c </proc/version": "0", "ls /sys/kernel | wc -l": "0", "touch /tmp/x 2>/dev/null || echo ro": "ro",
	})
	// procMount: Unmasked.
	s.inside(s.started(sec(func(sc *runtimeapi.LinuxContainerSecurityContext) { sc.MaskedPaths, sc.ReadonlyPaths = nil, nil })), map[string]string{
		"test $(wc -c </proc/version) -gt 0 && echo seen": "seen", "grep -c ' /proc/' /proc/self/mounts || true": "0",
	})
}

// denyMkdir is a seccomp profile.
const denyMkdir = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`

func TestSeccomp(t *testing.T) {
	s := newSandbox(t, plain)
	profile := filepath.Join(t.TempDir(), "deny.json")
	if err := os.WriteFile(profile, []byte(denyMkdir), 0o644); err != nil {
		t.Fatal(err)
	}
	const script = "sed -n 's/^Seccomp:\t*//p' /proc/self/status; mkdir /tmp/d 2>/dev/null && echo made"
	for _, c := range []struct {
		name   string
		change func(*runtimeapi.LinuxContainerSecurityContext)
		want   string
	}{
		{"runtime default", func(*runtimeapi.LinuxContainerSecurityContext) {}, "2\nmade"},
		{"unconfined", func(sc *runtimeapi.LinuxContainerSecurityContext) {
			sc.Seccomp.ProfileType = runtimeapi.SecurityProfile_Unconfined
		}, "0\nmade"},
		{"node's", func(sc *runtimeapi.LinuxContainerSecurityContext) {
			sc.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: profile}
		}, "2"},
		{"text", func(sc *runtimeapi.LinuxContainerSecurityContext) {
			//lint:ignore SA1019 older kubelets know no other field
			sc.Seccomp, sc.SeccompProfilePath = nil, "localhost/"+profile
		}, "2"},
	} {
		ctr := s.started(sec(c.change))
		if got := s.sh(ctr, script+" || true"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestPrivileged: all capabilities, all devices, nothing masked, whatever else
// is asked for.
func TestPrivileged(t *testing.T) {
	s := newSandbox(t, func(p *runtimeapi.PodSandboxConfig) { p.Linux.SecurityContext.Privileged = true })
	ctr := s.add(sec(func(sc *runtimeapi.LinuxContainerSecurityContext) {
		sc.Privileged, sc.MaskedPaths, sc.ReadonlyPaths = true, []string{"/proc/version"}, []string{"/proc/sys"}
	}))
	err := s.try(runtimeService+"StartContainer", &runtimeapi.StartContainerRequest{ContainerId: ctr})
	if err != nil && strings.Contains(err.Error(), "apply caps") && !allCapabilities(t) {
		// Older Engines give all there are, and this machine has not all to give.
		if st := s.status(ctr); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || !strings.Contains(st.Message, "apply caps") {
			t.Errorf("status %v", st)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	s.inside(ctr, map[string]string{
		"test $(wc -c </proc/version) -gt 0 && echo seen":   "seen",
		"sed -n 's/^Seccomp:\t*//p' /proc/self/status":      "0",
		"touch /proc/sys/kernel/hostname && echo rw":        "rw",
		"test -e /dev/kmsg && echo seen":                    "seen",
		"mkdir /tmp/m && mount -t tmpfs t /tmp/m && echo y": "y",
	})
}

// allCapabilities reports whether this machine lets us have all that its kernel knows.
func allCapabilities(t *testing.T) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(last)))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), fmt.Sprintf("CapBnd:\t%016x\n", uint64(1)<<(n+1)-1))
}

func TestNoNewPrivileges(t *testing.T) {
	s := newSandbox(t, plain)
	for _, want := range []bool{false, true} {
		ctr := s.started(sec(func(sc *runtimeapi.LinuxContainerSecurityContext) { sc.NoNewPrivs = want }))
		if got := s.sh(ctr, "sed -n 's/^NoNewPrivs:\t*//p' /proc/self/status"); (got == "1") != want {
			t.Errorf("no_new_privs %v: %q", want, got)
		}
	}
}

func TestSysctls(t *testing.T) {
	s := newSandbox(t, func(p *runtimeapi.PodSandboxConfig) {
		p.Linux.Sysctls = map[string]string{"net/core/somaxconn": "77", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "9"}
	})
	s.inside(s.started(func(*runtimeapi.ContainerConfig) {}), map[string]string{
		"cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max": "77\n1\n9",
	})
	for name, change := range map[string]func(*runtimeapi.PodSandboxConfig){
		"vm.swappiness": func(*runtimeapi.PodSandboxConfig) {},
		"net.core.somaxconn": func(p *runtimeapi.PodSandboxConfig) {
			p.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
		},
		"kernel.shm_rmid_forced": func(p *runtimeapi.PodSandboxConfig) {
			p.Linux.SecurityContext.NamespaceOptions.Ipc = runtimeapi.NamespaceMode_NODE
		},
	} {
		p := pod(t)
		change(p)
		p.Linux.Sysctls = map[string]string{name: "1"}
		err := s.try(runtimeService+"RunPodSandbox", &runtimeapi.RunPodSandboxRequest{Config: p})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDevices(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "kmsg": 11} {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
	}
	s := newSandbox(t, plain)
	s.inside(s.started(func(c *runtimeapi.ContainerConfig) {
		c.Devices = []*runtimeapi.Device{
			{HostPath: "/dev/zero", ContainerPath: "/dev/one", Permissions: "rwm"},
			{HostPath: dir, ContainerPath: "/dev/all", Permissions: "rwm"},
		}
	}), map[string]string{
		"head -c 3 /dev/one | wc -c":                   "3",
		"ls /dev/all; head -c 2 /dev/all/zero | wc -c": "kmsg\nnull\nzero\n2",
	})
	// One that containers do not have anyway.
	for permissions, want := range map[string]string{"rw": "written", "r": "denied"} {
		ctr := s.started(func(c *runtimeapi.ContainerConfig) {
			c.Devices = []*runtimeapi.Device{{HostPath: filepath.Join(dir, "kmsg"), ContainerPath: "/dev/log1", Permissions: permissions}}
		})
		if got := s.sh(ctr, "(echo '<7>crimux test' >/dev/log1) 2>/dev/null && echo written || echo denied"); got != want {
			t.Errorf("permissions %q: %s", permissions, got)
		}
	}
}

func TestStopSignal(t *testing.T) {
	s := newSandbox(t, plain)
	ctr := s.started(func(c *runtimeapi.ContainerConfig) {
		c.StopSignal = runtimeapi.Signal_SIGNAL_SIGUSR1
		c.Command = []string{"sh", "-c", "trap 'exit 42' USR1; sleep 1000 & wait"}
	})
	must[runtimeapi.StopContainerResponse](s.cri, runtimeService+"StopContainer", &runtimeapi.StopContainerRequest{ContainerId: ctr, Timeout: 20})
	if st := s.status(ctr); st.ExitCode != 42 || st.StopSignal != runtimeapi.Signal_SIGNAL_SIGUSR1 {
		t.Errorf("exit code %d, stop signal %s", st.ExitCode, st.StopSignal)
	}
}

func TestTerminals(t *testing.T) {
	s := newSandbox(t, plain)
	for _, tty := range []bool{false, true} {
		ctr := s.started(func(c *runtimeapi.ContainerConfig) {
			c.Tty, c.Stdin, c.StdinOnce = tty, true, true
			c.Command = []string{"sh", "-c", "test -t 0 && touch /tmp/tty; touch /tmp/asked; sleep 1000"}
		})
		if got := s.sh(ctr, "while ! test -e /tmp/asked; do sleep 0.1; done; ls /tmp | grep -c tty || true"); (got == "1") != tty {
			t.Errorf("tty %v: %q", tty, got)
		}
	}
}

func TestNames(t *testing.T) {
	s := newSandbox(t, plain)
	s.inside(s.started(func(*runtimeapi.ContainerConfig) {}), map[string]string{
		"hostname":             "pod",
		"cat /etc/resolv.conf": "nameserver 10.96.0.10\nsearch svc.cluster.local\noptions ndots:5",
	})
}

// TestRuntimeHandlers: each that Status lists can be chosen, and runs.
func TestRuntimeHandlers(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	c.pull("busybox")
	var names []string
	for _, h := range must[runtimeapi.StatusResponse](c, runtimeService+"Status", &runtimeapi.StatusRequest{}).RuntimeHandlers {
		names = append(names, h.Name)
		cfg := pod(t)
		id := must[runtimeapi.RunPodSandboxResponse](c, runtimeService+"RunPodSandbox", &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: h.Name}).PodSandboxId
		t.Cleanup(func() { c.removePod(id) })
		ctr := c.create(id, cfg, ctrConfig(node.lab.Image("busybox"), "sleep 1000"))
		c.start(ctr)
		if got := c.sh(ctr, "echo runs"); got != "runs" {
			t.Errorf("%q: %q", h.Name, got)
		}
		if got := c.podStatus(id).RuntimeHandler; got != h.Name {
			t.Errorf("handler %q, want %q", got, h.Name)
		}
		made, err := node.lab.Docker().ContainerInspect(t.Context(), ctr)
		if err != nil || h.Name != "" && made.HostConfig.Runtime != h.Name {
			t.Errorf("%q: the container's runtime is %q, %v", h.Name, made.HostConfig.Runtime, err)
		}
	}
	if !slices.Contains(names, "") || !slices.Contains(names, "runc") || !slices.Contains(names, lab.OtherRuntime) {
		t.Errorf("handlers %q", names)
	}
	err := c.try(runtimeService+"RunPodSandbox", &runtimeapi.RunPodSandboxRequest{Config: pod(t), RuntimeHandler: "nothere"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "nothere") {
		t.Errorf("a runtime that is not there: %v", err)
	}
}
