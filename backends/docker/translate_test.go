package docker

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func testFacts() *facts {
	return &facts{
		version: "20.10.24", api: "1.41", rootDir: "/var/lib/docker", cgroupDriver: "cgroupfs",
		runtimes: map[string]bool{"runc": false, "kata": false}, defaultRuntime: "runc",
	}
}

func testNode() nodeOptions {
	return nodeOptions{
		oomFloor:  -1000,
		pageSizes: []string{"2MB", "1GB"},
		logs:      container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "50m", "max-file": "5"}},
		readFile: func(p string) ([]byte, error) {
			if p == "/profiles/ok.json" {
				return []byte(`{ "defaultAction": "SCMP_ACT_ALLOW" }`), nil
			}
			return nil, errors.New("no such file")
		},
	}
}

func runRequest(change func(*runtimeapi.PodSandboxConfig)) *runtimeapi.RunPodSandboxRequest {
	c := podConfig()
	c.Linux = &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{}}}
	change(c)
	return &runtimeapi.RunPodSandboxRequest{Config: c}
}

func TestTranslateSandbox(t *testing.T) {
	s, err := translateSandbox(runRequest(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.CgroupParent = "/kubepods/besteffort/podu-1"
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
		c.PortMappings = []*runtimeapi.PortMapping{{Protocol: runtimeapi.Protocol_UDP, ContainerPort: 53, HostPort: 5353, HostIp: "127.0.0.1"}}
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuShares: 2}
	}), testFacts(), testNode())
	if err != nil {
		t.Fatal(err)
	}
	h := s.host
	if h.NetworkMode != "none" || h.IpcMode != "shareable" || h.PidMode != "" || h.CPUShares != 2 || h.OomScoreAdj != -998 ||
		h.ShmSize != 64<<20 || !slices.Equal(h.SecurityOpt, []string{"no-new-privileges"}) || h.CgroupParent != "/kubepods/besteffort/podu-1" ||
		h.RestartPolicy.Name != "no" || h.LogConfig.Type != "json-file" || h.Sysctls["net.ipv4.ip_unprivileged_port_start"] != "0" {
		t.Errorf("host config %+v", h)
	}
	if s.config.Hostname != "web" || s.config.Healthcheck.Test[0] != "NONE" {
		t.Errorf("config %+v", s.config)
	}
	p := s.attach.PortMappings
	if len(p) != 1 || p[0].Protocol != "udp" || p[0].HostPort != 5353 || s.attach.PodUID != "u-1" {
		t.Errorf("attachment %+v", s.attach)
	}
	if s.own[labelPID] != "pod" {
		t.Errorf("labels %v", s.own)
	}
}

func TestTranslateSandboxOnHost(t *testing.T) {
	s, err := translateSandbox(runRequest(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_NODE,
			UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}}
	}), testFacts(), testNode())
	if err != nil {
		t.Fatal(err)
	}
	if h := s.host; h.NetworkMode != "host" || h.IpcMode != "host" || h.PidMode != "host" || s.attach != nil {
		t.Errorf("host config %+v, attachment %v", h, s.attach)
	}
}

func TestTranslateSandboxRefusals(t *testing.T) {
	for field, change := range map[string]func(*runtimeapi.PodSandboxConfig){
		"config.metadata":                               func(c *runtimeapi.PodSandboxConfig) { c.Metadata = nil },
		"config.metadata.name":                          func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "" },
		"config.metadata.namespace":                     func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Namespace = "a_b" },
		"config.metadata.uid":                           func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Uid = "a/b" },
		"config.windows":                                func(c *runtimeapi.PodSandboxConfig) { c.Windows = &runtimeapi.WindowsPodSandboxConfig{} },
		"config.hostname":                               func(c *runtimeapi.PodSandboxConfig) { c.Hostname = strings.Repeat("a", 65) },
		"config.dns_config.servers[0]":                  func(c *runtimeapi.PodSandboxConfig) { c.DnsConfig.Servers[0] = "1.1.1.1\nsearch evil" },
		"config.dns_config.searches[0]":                 func(c *runtimeapi.PodSandboxConfig) { c.DnsConfig.Searches = []string{"a b"} },
		"config.port_mappings[0].host_port":             func(c *runtimeapi.PodSandboxConfig) { c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 70000}} },
		"config.port_mappings[0].protocol":              func(c *runtimeapi.PodSandboxConfig) { c.PortMappings = []*runtimeapi.PortMapping{{Protocol: 9}} },
		`config.labels["crimux.dev/op"]`:                func(c *runtimeapi.PodSandboxConfig) { c.Labels["crimux.dev/op"] = "x" },
		`config.labels["annotation.x"]`:                 func(c *runtimeapi.PodSandboxConfig) { c.Labels["annotation.x"] = "x" },
		`config.labels["io.kubernetes.docker.type"]`:    func(c *runtimeapi.PodSandboxConfig) { c.Labels["io.kubernetes.docker.type"] = "x" },
		`config.labels["io.kubernetes.container.name"]`: func(c *runtimeapi.PodSandboxConfig) { c.Labels["io.kubernetes.container.name"] = "x" },
		`config.labels["io.kubernetes.sandbox.id"]`:     func(c *runtimeapi.PodSandboxConfig) { c.Labels["io.kubernetes.sandbox.id"] = "x" },
		`config.annotations["crimux.dev/x"]`:            func(c *runtimeapi.PodSandboxConfig) { c.Annotations["crimux.dev/x"] = "x" },
		"config.linux.cgroup_parent":                    func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = "/a/../../b" },
		"config.linux.security_context.run_as_group": func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.RunAsGroup = &runtimeapi.Int64Value{Value: 1}
		},
		"config.linux.security_context.run_as_user": func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: -1}
		},
		"config.linux.security_context.supplemental_groups[0]":     func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.SupplementalGroups = []int64{-1} },
		"config.linux.security_context.supplemental_groups_policy": func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.SupplementalGroupsPolicy = 1 },
		"config.linux.security_context.namespace_options.network":  func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Network = 1 },
		"config.linux.security_context.namespace_options.pid":      func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = 3 },
		"config.linux.security_context.namespace_options.userns_options": func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{}
		},
		"config.linux.security_context.seccomp.localhost_ref": func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: 2, LocalhostRef: "/nope"}
		},
		"config.linux.security_context.apparmor: profile \"p\": the docker": func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.Apparmor = &runtimeapi.SecurityProfile{ProfileType: 2, LocalhostRef: "p"}
		},
	} {
		_, err := translateSandbox(runRequest(change), testFacts(), testNode())
		if status.Code(err) != codes.InvalidArgument || !strings.HasPrefix(status.Convert(err).Message(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	r := runRequest(func(*runtimeapi.PodSandboxConfig) {})
	r.RuntimeHandler = "gvisor"
	if _, err := translateSandbox(r, testFacts(), testNode()); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `"kata" "runc"`) {
		t.Errorf("unknown handler: %v", err)
	}
}

func testSandbox() podSandbox {
	return podSandbox{id: strings.Repeat("5", 64), object: object{identity: identity{pod: "web", namespace: "shop", uid: "u-1", attempt: 2}}}
}

// translate translates a container with changes.
func translate(f *facts, n nodeOptions, change func(*runtimeapi.ContainerConfig)) (*containerSpec, error) {
	r := createRequest(testSandbox().id)
	r.Config.Linux = &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{}, SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
		Seccomp: &runtimeapi.SecurityProfile{}, NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"},
	}}
	change(r.Config)
	return translateContainer(r, testSandbox(), f, n)
}

func TestTranslateContainer(t *testing.T) {
	join := "container:" + testSandbox().id
	s, err := translate(testFacts(), testNode(), func(c *runtimeapi.ContainerConfig) {
		c.Command, c.Args, c.WorkingDir = []string{"sh"}, []string{"-c", "true"}, "/w"
		c.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("b=c")}, {Key: "E"}}
		c.Stdin, c.StdinOnce, c.Tty, c.StopSignal = true, true, true, runtimeapi.Signal_SIGNAL_SIGRTMINPLUS3
		c.Mounts = []*runtimeapi.Mount{{HostPath: "/h:x", ContainerPath: "/c", Readonly: true, Propagation: 1}}
		c.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "/dev/n", Permissions: "rw"}}
		sc := c.Linux.SecurityContext
		sc.RunAsUser, sc.RunAsGroup, sc.SupplementalGroups = &runtimeapi.Int64Value{Value: 7}, &runtimeapi.Int64Value{Value: 8}, []int64{9}
		sc.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"ALL"}}
		sc.ReadonlyRootfs, sc.NoNewPrivs = true, true
		sc.SelinuxOptions = &runtimeapi.SELinuxOption{Level: "s0:c1"}
		sc.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/profiles/ok.json"}
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{
			CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, OomScoreAdj: -500, CpusetCpus: "0", CpusetMems: "0",
			HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}, Unified: map[string]string{"memory.oom.group": "1"},
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.id.name() != "k8s_main_web_shop_u-1_1" {
		t.Errorf("name %q", s.id.name())
	}
	c, h := s.config, s.host
	if c.User != "7:8" || !slices.Equal(c.Env, []string{"A=b=c", "E="}) || !slices.Equal([]string(c.Entrypoint), []string{"sh"}) ||
		!slices.Equal([]string(c.Cmd), []string{"-c", "true"}) || c.WorkingDir != "/w" || !c.OpenStdin || !c.StdinOnce || !c.Tty ||
		c.StopSignal != "SIGRTMIN+3" || c.Image != "busybox" || c.Hostname != "" {
		t.Errorf("config %+v", c)
	}
	if string(h.NetworkMode) != join || string(h.IpcMode) != join || h.PidMode != "" || h.UTSMode != "" ||
		!slices.Equal(h.GroupAdd, []string{"9"}) || !h.ReadonlyRootfs || h.OomScoreAdj != -500 || h.Memory != 64<<20 || h.MemorySwap != 64<<20 ||
		h.CPUQuota != 50000 || !slices.Equal(h.MaskedPaths, []string{"/proc/kcore"}) || h.Devices[0].PathInContainer != "/dev/n" ||
		!slices.Equal(h.CapAdd, []string{"NET_ADMIN"}) || !slices.Equal(h.CapDrop, []string{"ALL"}) {
		t.Errorf("host config %+v", h)
	}
	if want := []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`, "no-new-privileges", "label=level:s0:c1"}; !slices.Equal(h.SecurityOpt, want) {
		t.Errorf("security %q, want %q", h.SecurityOpt, want)
	}
	if m := h.Mounts[0]; m.Type != mount.TypeBind || m.Source != "/h:x" || m.Target != "/c" || !m.ReadOnly || m.BindOptions.Propagation != "rslave" {
		t.Errorf("mount %+v", m)
	}
	if s.own[labelLogPath] != "/var/log/pods/x/main/1.log" || s.own[labelSandboxID] != testSandbox().id {
		t.Errorf("labels %v", s.own)
	}
}

func TestTranslateNamespaces(t *testing.T) {
	join := "container:" + testSandbox().id
	for _, c := range []struct {
		pid  runtimeapi.NamespaceMode
		want string
	}{
		{runtimeapi.NamespaceMode_POD, join}, {runtimeapi.NamespaceMode_CONTAINER, ""}, {runtimeapi.NamespaceMode_NODE, "host"}, {runtimeapi.NamespaceMode_TARGET, "container:t1"},
	} {
		s, err := translate(testFacts(), testNode(), func(r *runtimeapi.ContainerConfig) {
			r.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: c.pid, TargetId: "t1"}
		})
		if err != nil || string(s.host.PidMode) != c.want {
			t.Errorf("%s: %v, %v", c.pid, s, err)
		}
	}
	r := createRequest(testSandbox().id)
	host := testSandbox()
	host.hostNetwork = true
	if s, err := translateContainer(r, host, testFacts(), testNode()); err != nil || s.host.UTSMode != "host" {
		t.Errorf("on the host's network: %v, %v", s, err)
	}
}

func TestMaskedPaths(t *testing.T) {
	s, err := translate(testFacts(), testNode(), func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.MaskedPaths, c.Linux.SecurityContext.ReadonlyPaths = nil, nil
	})
	if err != nil || s.host.MaskedPaths == nil || s.host.ReadonlyPaths == nil || len(s.host.MaskedPaths)+len(s.host.ReadonlyPaths) != 0 {
		t.Errorf("unmasked: %v, %v", s, err)
	}
	s, err = translate(testFacts(), testNode(), func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext = nil })
	if err != nil || s.host.MaskedPaths != nil {
		t.Errorf("without a security context the engine's default is wanted: %v, %v", s, err)
	}
}

func TestSecurityProfiles(t *testing.T) {
	withArmor := testFacts()
	withArmor.apparmor = true
	for _, c := range []struct {
		name   string
		change func(*runtimeapi.LinuxContainerSecurityContext)
		want   []string
	}{
		{"nothing said", func(sc *runtimeapi.LinuxContainerSecurityContext) { sc.Seccomp = nil }, []string{"seccomp=unconfined"}},
		{"runtime default", func(sc *runtimeapi.LinuxContainerSecurityContext) { sc.Apparmor = &runtimeapi.SecurityProfile{} }, nil},
		{"unconfined", func(sc *runtimeapi.LinuxContainerSecurityContext) {
			sc.Seccomp.ProfileType, sc.Apparmor = 1, &runtimeapi.SecurityProfile{ProfileType: 1}
		}, []string{"seccomp=unconfined", "apparmor=unconfined"}},
		{"node's", func(sc *runtimeapi.LinuxContainerSecurityContext) {
			sc.Apparmor = &runtimeapi.SecurityProfile{ProfileType: 2, LocalhostRef: "mine"}
		}, []string{"apparmor=mine"}},
		{"typed before text", func(sc *runtimeapi.LinuxContainerSecurityContext) {
			//lint:ignore SA1019 older kubelets know no other field
			sc.Apparmor, sc.ApparmorProfile = &runtimeapi.SecurityProfile{ProfileType: 1}, "localhost/mine"
		}, []string{"apparmor=unconfined"}},
		{"text", func(sc *runtimeapi.LinuxContainerSecurityContext) {
			//lint:ignore SA1019 older kubelets know no other field
			sc.Seccomp, sc.SeccompProfilePath, sc.ApparmorProfile = nil, "localhost//profiles/ok.json", "localhost/mine"
		}, []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`, "apparmor=mine"}},
		{"privileged", func(sc *runtimeapi.LinuxContainerSecurityContext) { sc.Privileged = true }, []string{"seccomp=unconfined", "apparmor=unconfined"}},
	} {
		s, err := translate(withArmor, testNode(), func(r *runtimeapi.ContainerConfig) { c.change(r.Linux.SecurityContext) })
		if err != nil || !slices.Equal(s.host.SecurityOpt, c.want) {
			t.Errorf("%s: %v, %v; want %q", c.name, s, err, c.want)
		}
	}
}

// oneMount gives a container one mount.
func oneMount(m *runtimeapi.Mount) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) {
		if m.ContainerPath == "" {
			m.ContainerPath = "/c"
		}
		c.Mounts = []*runtimeapi.Mount{m}
	}
}

// security changes a container's security context.
func security(change func(*runtimeapi.LinuxContainerSecurityContext)) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { change(c.Linux.SecurityContext) }
}

// resources gives a container resources.
func resources(r *runtimeapi.LinuxContainerResources) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { c.Linux.Resources = r }
}

func TestTranslateContainerRefusals(t *testing.T) {
	for field, change := range map[string]func(*runtimeapi.ContainerConfig){
		"config.metadata.name":        func(c *runtimeapi.ContainerConfig) { c.Metadata.Name = "POD" },
		"config.log_path":             func(c *runtimeapi.ContainerConfig) { c.LogPath = "../../etc/passwd" },
		"config.working_dir":          func(c *runtimeapi.ContainerConfig) { c.WorkingDir = "w" },
		"config.stop_signal":          func(c *runtimeapi.ContainerConfig) { c.StopSignal = 99 },
		"config.envs[0].key":          func(c *runtimeapi.ContainerConfig) { c.Envs = []*runtimeapi.KeyValue{{Key: "a=b"}} },
		"config.envs[0].value":        func(c *runtimeapi.ContainerConfig) { c.Envs = []*runtimeapi.KeyValue{{Key: "a", Value: []byte{0xff}}} },
		"config.CDI_devices":          func(c *runtimeapi.ContainerConfig) { c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "v/c=1"}} },
		"config.devices[0].host_path": func(c *runtimeapi.ContainerConfig) { c.Devices = []*runtimeapi.Device{{}} },
		"config.devices[0].permissions": func(c *runtimeapi.ContainerConfig) {
			c.Devices = []*runtimeapi.Device{{HostPath: "/d", ContainerPath: "/d", Permissions: "x"}}
		},
		`config.labels["annotation.a"]`:                            func(c *runtimeapi.ContainerConfig) { c.Labels["annotation.a"] = "" },
		"config.mounts[0].image":                                   oneMount(&runtimeapi.Mount{Image: &runtimeapi.ImageSpec{}}),
		"config.mounts[0].image_sub_path":                          oneMount(&runtimeapi.Mount{HostPath: "/h", ImageSubPath: "x"}),
		"config.mounts[0].uidMappings":                             oneMount(&runtimeapi.Mount{HostPath: "/h", UidMappings: []*runtimeapi.IDMapping{{}}}),
		"config.mounts[0].gidMappings":                             oneMount(&runtimeapi.Mount{HostPath: "/h", GidMappings: []*runtimeapi.IDMapping{{}}}),
		"config.mounts[0].mount_options":                           oneMount(&runtimeapi.Mount{HostPath: "/h", MountOptions: []string{"noexec"}}),
		"config.mounts[0].host_path":                               oneMount(&runtimeapi.Mount{HostPath: "h"}),
		"config.mounts[0].container_path":                          oneMount(&runtimeapi.Mount{HostPath: "/h", ContainerPath: "/a/.."}),
		"config.mounts[0].propagation":                             oneMount(&runtimeapi.Mount{HostPath: "/h", Propagation: 7}),
		"config.mounts[0].recursive_read_only: n":                  oneMount(&runtimeapi.Mount{HostPath: "/h", Readonly: true, RecursiveReadOnly: true}),
		"config.mounts[0].recursive_read_only":                     oneMount(&runtimeapi.Mount{HostPath: "/h", RecursiveReadOnly: true}),
		"config.linux.security_context.run_as_username":            security(func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUsername = "a:b" }),
		"config.linux.security_context.supplemental_groups_policy": security(func(s *runtimeapi.LinuxContainerSecurityContext) { s.SupplementalGroupsPolicy = 1 }),
		"config.linux.security_context.capabilities.add_ambient_capabilities": security(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Capabilities = &runtimeapi.Capability{AddAmbientCapabilities: []string{"CHOWN"}}
		}),
		"config.linux.security_context.namespace_options.ipc":       security(func(s *runtimeapi.LinuxContainerSecurityContext) { s.NamespaceOptions.Ipc = 1 }),
		"config.linux.security_context.namespace_options.target_id": security(func(s *runtimeapi.LinuxContainerSecurityContext) { s.NamespaceOptions.Pid = 3 }),
		"config.linux.security_context.seccomp.profile_type":        security(func(s *runtimeapi.LinuxContainerSecurityContext) { s.Seccomp.ProfileType = 9 }),
		"config.linux.resources.hugepage_limits[0].page_size":       resources(&runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "../2MB", Limit: 1}}}),
		`config.linux.resources.unified["../memory.high"]`:          resources(&runtimeapi.LinuxContainerResources{Unified: map[string]string{"../memory.high": "1"}}),
		`config.linux.resources.unified["cgroup.kill"]`:             resources(&runtimeapi.LinuxContainerResources{Unified: map[string]string{"cgroup.kill": "1"}}),
		`config.linux.resources.unified["memory.max"]`:              resources(&runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.max": " "}}),
		`config.linux.resources.unified["memory.high"]`:             resources(&runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.high": "1"}}),
		`config.linux.resources.unified["memory.oom.group"]`:        resources(&runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.oom.group": "0"}}),
		"config.linux.resources.memory_swap_limit_in_bytes":         resources(&runtimeapi.LinuxContainerResources{MemorySwapLimitInBytes: 1}),
		"config.linux.resources.oom_score_adj":                      resources(&runtimeapi.LinuxContainerResources{OomScoreAdj: 1001}),
		"config.linux.resources.cpu_shares":                         resources(&runtimeapi.LinuxContainerResources{CpuShares: -1}),
	} {
		_, err := translate(testFacts(), testNode(), change)
		if status.Code(err) != codes.InvalidArgument || !strings.HasPrefix(status.Convert(err).Message(), field) {
			t.Errorf("%s: %v", field, err)
		}
		if strings.Contains(field, "envs") && strings.Contains(err.Error(), "\xff") {
			t.Errorf("%s: the value is shown", field)
		}
	}
}

func TestNewerEngine(t *testing.T) {
	f := testFacts()
	f.roNonRecursive, f.cdi, f.runtimes["runc"] = true, true, true
	s, err := translate(f, testNode(), func(c *runtimeapi.ContainerConfig) {
		c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "v/c=1"}}
		c.Mounts = []*runtimeapi.Mount{
			{HostPath: "/a", ContainerPath: "/a", Readonly: true},
			{HostPath: "/b", ContainerPath: "/b", Readonly: true, RecursiveReadOnly: true},
			{HostPath: "/c", ContainerPath: "/c"},
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]bool
	for _, m := range s.host.Mounts {
		got = append(got, [2]bool{m.BindOptions.ReadOnlyNonRecursive, m.BindOptions.ReadOnlyForceRecursive})
	}
	if want := [][2]bool{{true, false}, {false, true}, {false, false}}; !slices.Equal(got, want) {
		t.Errorf("read-only %v, want %v", got, want)
	}
	if r := s.host.DeviceRequests; len(r) != 1 || r[0].Driver != "cdi" || r[0].DeviceIDs[0] != "v/c=1" {
		t.Errorf("device requests %+v", r)
	}
}

func TestOOMScoreIsClamped(t *testing.T) {
	n := testNode()
	n.oomFloor = 0
	s, err := translate(testFacts(), n, func(c *runtimeapi.ContainerConfig) { c.Linux.Resources.OomScoreAdj = -997 })
	if err != nil || s.host.OomScoreAdj != 0 {
		t.Errorf("%v, %v", s, err)
	}
	p, err := translateSandbox(runRequest(func(*runtimeapi.PodSandboxConfig) {}), testFacts(), n)
	if err != nil || p.host.OomScoreAdj != 0 {
		t.Errorf("%v, %v", p, err)
	}
	for _, c := range []struct {
		status, score string
		want          int
	}{
		{"CapInh:\t0\nCapEff:\t000001ffffffffff\n", "-500\n", -1000},
		{"CapEff:\t000001fffeffffff\n", "0\n", 0},
		{"CapEff:\t0000000000000000\n", "-500\n", -500},
	} {
		got, err := oomFloor(func(p string) ([]byte, error) {
			return []byte(map[string]string{"/proc/self/status": c.status, "/proc/self/oom_score_adj": c.score}[p]), nil
		})
		if err != nil || got != c.want {
			t.Errorf("%q: %d, %v", c.status, got, err)
		}
	}
}

func TestCgroupParent(t *testing.T) {
	systemd := testFacts()
	systemd.cgroupDriver = "systemd"
	for _, c := range []struct {
		f        *facts
		in, want string
		ok       bool
	}{
		{testFacts(), "", "", true},
		{testFacts(), "/kubepods/pod1", "/kubepods/pod1", true},
		{systemd, "/kubepods.slice/kubepods-pod1.slice", "kubepods-pod1.slice", true},
		{systemd, "/kubepods/pod1", "", false},
		{testFacts(), "/", "", false},
		{testFacts(), "/a/../../b", "", false},
	} {
		got, err := cgroupParent("f", c.in, c.f)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q with %s: %q, %v", c.in, c.f.cgroupDriver, got, err)
		}
	}
}

func TestLogPath(t *testing.T) {
	for _, c := range []struct {
		dir, file, want string
		ok              bool
	}{
		{"/var/log/pods/x", "c/0.log", "/var/log/pods/x/c/0.log", true},
		{"/var/log/pods/x/", "0.log", "/var/log/pods/x/0.log", true},
		{"", "c/0.log", "", true}, {"/var/log", "", "", true},
		{"var/log", "0.log", "", false}, {"/var/../etc", "0.log", "", false},
		{"/var/log", "/etc/passwd", "", false}, {"/var/log", "../x", "", false}, {"/var/log", "a/../../x", "", false},
		{"/var/log", ".", "", false}, {"/var/log", "a\x00b", "", false},
	} {
		got, err := logPath(c.dir, c.file)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q + %q: %q, %v", c.dir, c.file, got, err)
		}
	}
}

func TestSignals(t *testing.T) {
	for n := range runtimeapi.Signal_name {
		s := runtimeapi.Signal(n)
		name, err := signalName("f", s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if s != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT && stopSignal(name) != s {
			t.Errorf("%s: %q reads back as %s", s, name, stopSignal(name))
		}
	}
	if stopSignal("") != runtimeapi.Signal_SIGNAL_SIGTERM || stopSignal("quit") != runtimeapi.Signal_SIGNAL_SIGQUIT {
		t.Error("default or short form")
	}
}
