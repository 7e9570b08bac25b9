package docker

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sampleValues are values of fields where any one will not do.
var sampleValues = map[string]any{
	"RunPodSandbox.runtime_handler":                                         "kata",
	"RunPodSandbox.config.linux.sysctls":                                    map[string]string{"net.core.somaxconn": "1"},
	"RunPodSandbox.config.linux.cgroup_parent":                              "/x",
	"RunPodSandbox.config.linux.security_context.namespace_options.network": protoreflect.EnumNumber(runtimeapi.NamespaceMode_NODE),
	"RunPodSandbox.config.linux.security_context.namespace_options.ipc":     protoreflect.EnumNumber(runtimeapi.NamespaceMode_NODE),
	"RunPodSandbox.config.linux.security_context.namespace_options.pid":     protoreflect.EnumNumber(runtimeapi.NamespaceMode_NODE),
	"RunPodSandbox.config.linux.security_context.seccomp.localhost_ref":     "/profiles/other",
	"RunPodSandbox.config.linux.security_context.seccomp_profile_path":      "unconfined",

	"CreateContainer.config.working_dir":                                      "/w",
	"CreateContainer.config.log_path":                                         "main/2.log",
	"CreateContainer.config.mounts[].container_path":                          "/other",
	"CreateContainer.config.mounts[].host_path":                               "/other",
	"CreateContainer.config.devices[].container_path":                         "/dev/other",
	"CreateContainer.config.devices[].host_path":                              "/dev/other",
	"CreateContainer.config.devices[].permissions":                            "r",
	"CreateContainer.config.linux.resources.hugepage_limits[].page_size":      "1GB",
	"CreateContainer.config.linux.resources.unified":                          map[string]string{"memory.high": "1"},
	"CreateContainer.config.linux.resources.memory_swap_limit_in_bytes":       int64(1 << 30),
	"CreateContainer.config.linux.security_context.namespace_options.network": protoreflect.EnumNumber(runtimeapi.NamespaceMode_NODE),
	"CreateContainer.config.linux.security_context.namespace_options.ipc":     protoreflect.EnumNumber(runtimeapi.NamespaceMode_NODE),
	"CreateContainer.config.linux.security_context.namespace_options.pid":     protoreflect.EnumNumber(runtimeapi.NamespaceMode_NODE),
	"CreateContainer.config.linux.security_context.seccomp.localhost_ref":     "/profiles/other",
	"CreateContainer.config.linux.security_context.seccomp_profile_path":      "runtime/default",
	"CreateContainer.config.linux.security_context.apparmor_profile":          "unconfined",
	"CreateContainer.sandbox_config.log_directory":                            "/var/log/other",
	"CreateContainer.sandbox_config.linux.cgroup_parent":                      "/x",

	"UpdateContainerResources.linux.hugepage_limits[].page_size": "1GB",
	"UpdateContainerResources.linux.unified":                     map[string]string{"memory.high": "1"},
	"UpdateContainerResources.linux.memory_swap_limit_in_bytes":  int64(1 << 30),
	"PullImage.image.image":                                      "reg.example/other",
	"PullImage.auth.auth":                                        "dXNlcjpwYXNz",
}

// run and create change the configuration in a request.
func run(change func(*runtimeapi.PodSandboxConfig)) func(proto.Message) {
	return func(m proto.Message) { change(m.(*runtimeapi.RunPodSandboxRequest).Config) }
}

func create(change func(*runtimeapi.ContainerConfig)) func(proto.Message) {
	return func(m proto.Message) { change(m.(*runtimeapi.CreateContainerRequest).Config) }
}

func localhost() *runtimeapi.SecurityProfile {
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/profiles/one"}
}

// prepared is what must be there before a field beginning so makes sense.
var prepared = map[string]func(proto.Message){
	"RunPodSandbox.config.port_mappings[]": run(func(c *runtimeapi.PodSandboxConfig) {
		c.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 8080}}
	}),
	"RunPodSandbox.config.linux.security_context.run_as_group": run(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1}
	}),
	"RunPodSandbox.config.linux.security_context.seccomp.localhost_ref": run(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.Seccomp = localhost()
	}),
	"RunPodSandbox.config.linux.security_context.apparmor.localhost_ref": run(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.Apparmor = localhost()
	}),
	"CreateContainer.config.envs[]": create(func(c *runtimeapi.ContainerConfig) {
		c.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("b")}}
	}),
	"CreateContainer.config.mounts[]": create(func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{HostPath: "/h", ContainerPath: "/c"}}
	}),
	"CreateContainer.config.mounts[].recursive_read_only": create(func(c *runtimeapi.ContainerConfig) { c.Mounts[0].Readonly = true }),
	"CreateContainer.config.devices[]": create(func(c *runtimeapi.ContainerConfig) {
		c.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "/dev/n", Permissions: "rw"}}
	}),
	"CreateContainer.config.CDI_devices[]": create(func(c *runtimeapi.ContainerConfig) {
		c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "v/c=1"}}
	}),
	"CreateContainer.config.linux.resources.hugepage_limits[]": create(func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources.HugepageLimits = []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 1}}
	}),
	"CreateContainer.config.linux.resources.memory_swap": create(func(c *runtimeapi.ContainerConfig) { c.Linux.Resources.MemoryLimitInBytes = 1 << 26 }),
	"CreateContainer.config.linux.security_context.run_as_group": create(func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1}
	}),
	"CreateContainer.config.linux.security_context.namespace_options.target_id": create(func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: "t1"}
	}),
	"CreateContainer.config.linux.security_context.seccomp.localhost_ref":  create(func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.Seccomp = localhost() }),
	"CreateContainer.config.linux.security_context.apparmor.localhost_ref": create(func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.Apparmor = localhost() }),
	"CreateContainer.config.linux.security_context.seccomp_profile_path":   create(func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.Seccomp = nil }),
	"UpdateContainerResources.linux.hugepage_limits[]": func(m proto.Message) {
		m.(*runtimeapi.UpdateContainerResourcesRequest).Linux.HugepageLimits = []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 1}}
	},
	"UpdateContainerResources.linux.memory_swap": func(m proto.Message) {
		m.(*runtimeapi.UpdateContainerResourcesRequest).Linux.MemoryLimitInBytes = 1 << 26
	},
}
