package docker

// The three tables of what becomes of a request's fields. A field is named by
// its method and its path; with "..." behind it a message with all that is in
// it, now and later, unless a longer path says otherwise. TestEveryField
// fails for a field that is in none, and the tests after it for one that is in
// the wrong one.

// translatedFields have an effect. That some of their values are refused does
// not matter here: TestTranslateContainerRefusals has those.
var translatedFields = []string{
	"RunPodSandbox.config.metadata.name", "RunPodSandbox.config.metadata.uid", "RunPodSandbox.config.metadata.namespace",
	"RunPodSandbox.config.metadata.attempt", "RunPodSandbox.config.hostname",
	"RunPodSandbox.config.dns_config.servers[]", "RunPodSandbox.config.dns_config.searches[]", "RunPodSandbox.config.dns_config.options[]",
	"RunPodSandbox.config.port_mappings[].protocol", "RunPodSandbox.config.port_mappings[].container_port",
	"RunPodSandbox.config.port_mappings[].host_port", "RunPodSandbox.config.port_mappings[].host_ip",
	"RunPodSandbox.config.labels", "RunPodSandbox.config.annotations", "RunPodSandbox.config.linux.cgroup_parent",
	"RunPodSandbox.config.linux.security_context.namespace_options.network", "RunPodSandbox.config.linux.security_context.namespace_options.pid",
	"RunPodSandbox.config.linux.security_context.namespace_options.ipc",
	"RunPodSandbox.config.linux.security_context.selinux_options.user", "RunPodSandbox.config.linux.security_context.selinux_options.role",
	"RunPodSandbox.config.linux.security_context.selinux_options.type", "RunPodSandbox.config.linux.security_context.selinux_options.level",
	"RunPodSandbox.config.linux.security_context.run_as_user.value", "RunPodSandbox.config.linux.security_context.run_as_group.value",
	"RunPodSandbox.config.linux.security_context.readonly_rootfs", "RunPodSandbox.config.linux.security_context.supplemental_groups[]",
	"RunPodSandbox.config.linux.security_context.seccomp.profile_type", "RunPodSandbox.config.linux.security_context.seccomp.localhost_ref",
	"RunPodSandbox.config.linux.security_context.apparmor.profile_type", "RunPodSandbox.config.linux.security_context.apparmor.localhost_ref",
	"RunPodSandbox.config.linux.security_context.seccomp_profile_path",
	"RunPodSandbox.config.linux.sysctls", "RunPodSandbox.runtime_handler",

	"StopPodSandbox.pod_sandbox_id", "RemovePodSandbox.pod_sandbox_id", "PodSandboxStatus.pod_sandbox_id", "PodSandboxStatus.verbose",
	"ListPodSandbox.filter...", "StreamPodSandboxes.filter...",

	"CreateContainer.pod_sandbox_id", "CreateContainer.config.metadata.name", "CreateContainer.config.metadata.attempt",
	"CreateContainer.config.image.image", "CreateContainer.config.image.user_specified_image",
	"CreateContainer.config.command[]", "CreateContainer.config.args[]", "CreateContainer.config.working_dir",
	"CreateContainer.config.envs[].key", "CreateContainer.config.envs[].value",
	"CreateContainer.config.mounts[].container_path", "CreateContainer.config.mounts[].host_path", "CreateContainer.config.mounts[].readonly",
	"CreateContainer.config.mounts[].selinux_relabel", "CreateContainer.config.mounts[].propagation", "CreateContainer.config.mounts[].recursive_read_only",
	"CreateContainer.config.devices[].container_path", "CreateContainer.config.devices[].host_path", "CreateContainer.config.devices[].permissions",
	"CreateContainer.config.labels", "CreateContainer.config.annotations", "CreateContainer.config.log_path",
	"CreateContainer.config.stdin", "CreateContainer.config.stdin_once", "CreateContainer.config.tty",
	"CreateContainer.config.linux.resources.cpu_period", "CreateContainer.config.linux.resources.cpu_quota",
	"CreateContainer.config.linux.resources.cpu_shares", "CreateContainer.config.linux.resources.memory_limit_in_bytes",
	"CreateContainer.config.linux.resources.oom_score_adj", "CreateContainer.config.linux.resources.cpuset_cpus",
	"CreateContainer.config.linux.resources.cpuset_mems", "CreateContainer.config.linux.resources.hugepage_limits[].page_size",
	"CreateContainer.config.linux.resources.hugepage_limits[].limit", "CreateContainer.config.linux.resources.unified",
	"CreateContainer.config.linux.resources.memory_swap_limit_in_bytes",
	"CreateContainer.config.linux.security_context.capabilities.add_capabilities[]", "CreateContainer.config.linux.security_context.capabilities.drop_capabilities[]",
	"CreateContainer.config.linux.security_context.privileged",
	"CreateContainer.config.linux.security_context.namespace_options.pid", "CreateContainer.config.linux.security_context.namespace_options.ipc",
	"CreateContainer.config.linux.security_context.namespace_options.target_id",
	"CreateContainer.config.linux.security_context.selinux_options.user", "CreateContainer.config.linux.security_context.selinux_options.role",
	"CreateContainer.config.linux.security_context.selinux_options.type", "CreateContainer.config.linux.security_context.selinux_options.level",
	"CreateContainer.config.linux.security_context.run_as_user.value", "CreateContainer.config.linux.security_context.run_as_group.value",
	"CreateContainer.config.linux.security_context.run_as_username", "CreateContainer.config.linux.security_context.readonly_rootfs",
	"CreateContainer.config.linux.security_context.supplemental_groups[]", "CreateContainer.config.linux.security_context.no_new_privs",
	"CreateContainer.config.linux.security_context.masked_paths[]", "CreateContainer.config.linux.security_context.readonly_paths[]",
	"CreateContainer.config.linux.security_context.seccomp.profile_type", "CreateContainer.config.linux.security_context.seccomp.localhost_ref",
	"CreateContainer.config.linux.security_context.apparmor.profile_type", "CreateContainer.config.linux.security_context.apparmor.localhost_ref",
	"CreateContainer.config.linux.security_context.apparmor_profile", "CreateContainer.config.linux.security_context.seccomp_profile_path",
	"CreateContainer.config.CDI_devices[].name", "CreateContainer.config.stop_signal",
	"CreateContainer.sandbox_config.metadata.uid", "CreateContainer.sandbox_config.log_directory", "CreateContainer.sandbox_config.linux.cgroup_parent",

	"StartContainer.container_id", "StopContainer.container_id", "StopContainer.timeout", "RemoveContainer.container_id",
	"ListContainers.filter...", "StreamContainers.filter...", "ContainerStatus.container_id", "ContainerStatus.verbose",
	"UpdateContainerResources.container_id", "UpdateContainerResources.linux.cpu_period", "UpdateContainerResources.linux.cpu_quota",
	"UpdateContainerResources.linux.cpu_shares", "UpdateContainerResources.linux.memory_limit_in_bytes", "UpdateContainerResources.linux.oom_score_adj",
	"UpdateContainerResources.linux.cpuset_cpus", "UpdateContainerResources.linux.cpuset_mems",
	"UpdateContainerResources.linux.hugepage_limits[].page_size", "UpdateContainerResources.linux.hugepage_limits[].limit",
	"UpdateContainerResources.linux.unified", "UpdateContainerResources.linux.memory_swap_limit_in_bytes",
	"UpdatePodSandboxResources.pod_sandbox_id", "ReopenContainerLog.container_id",
	"ExecSync.container_id", "ExecSync.cmd[]", "ExecSync.timeout",
	"Exec.container_id", "Exec.cmd[]", "Exec.tty", "Exec.stdin", "Exec.stdout", "Exec.stderr",
	"Attach.container_id", "Attach.stdin", "Attach.tty", "Attach.stdout", "Attach.stderr",
	"PortForward.pod_sandbox_id", "PortForward.port[]",
	"ContainerStats.container_id", "ListContainerStats.filter...", "StreamContainerStats.filter...",
	"PodSandboxStats.pod_sandbox_id", "ListPodSandboxStats.filter...", "StreamPodSandboxStats.filter...",
	"UpdateRuntimeConfig.runtime_config.network_config.pod_cidr", "Status.verbose",

	"ListImages.filter.image.image", "StreamImages.filter.image.image", "ImageStatus.image.image", "ImageStatus.verbose",
	"PullImage.image.image", "PullImage.auth.username", "PullImage.auth.password", "PullImage.auth.auth",
	"PullImage.auth.server_address", "PullImage.auth.identity_token", "PullImage.auth.registry_token", "RemoveImage.image.image",
}

// refusedFields are refused by name on the most able Engine too.
var refusedFields = map[string]string{
	"RunPodSandbox.config.windows...":                                                 "a Linux node",
	"RunPodSandbox.config.linux.security_context.namespace_options.userns_options...": "no user namespaces per pod",
	"RunPodSandbox.config.linux.security_context.supplemental_groups_policy":          "Strict: the image's groups are always merged",

	"CreateContainer.config.windows...":                                                     "a Linux node",
	"CreateContainer.config.mounts[].image...":                                              "no image volumes",
	"CreateContainer.config.mounts[].image_sub_path":                                        "no image volumes",
	"CreateContainer.config.mounts[].uidMappings[]...":                                      "no id-mapped mounts",
	"CreateContainer.config.mounts[].gidMappings[]...":                                      "no id-mapped mounts",
	"CreateContainer.config.mounts[].mount_options[]":                                       "no options of bind mounts",
	"CreateContainer.config.linux.security_context.capabilities.add_ambient_capabilities[]": "no ambient capabilities",
	"CreateContainer.config.linux.security_context.namespace_options.userns_options...":     "no user namespaces per pod",
	"CreateContainer.config.linux.security_context.supplemental_groups_policy":              "Strict: the image's groups are always merged",

	"UpdateContainerResources.windows...": "a Linux node",
}

// harmlessFields change nothing, and nobody misses anything by it.
var harmlessFields = map[string]string{
	"Version.version":                                                         "the kubelet's own version; the answer is the same for all",
	"RunPodSandbox.config.log_directory":                                      "it comes again with each container",
	"RunPodSandbox.config.linux.overhead...":                                  "it sizes virtual machines; the pod's cgroup is the kubelet's",
	"RunPodSandbox.config.linux.resources...":                                 "they size virtual machines; the pod's cgroup is the kubelet's",
	"RunPodSandbox.config.linux.security_context.privileged":                  "it permits and demands nothing: each container says for itself",
	"RunPodSandbox.config.linux.security_context.namespace_options.target_id": "it goes with the pid mode TARGET, which a sandbox cannot have",

	"CreateContainer.config.image.annotations":                                "they choose nothing: the Engine has one image store",
	"CreateContainer.config.image.runtime_handler":                            "it chooses nothing: the Engine has one image store",
	"CreateContainer.config.image.image_ref":                                  "only answers have it",
	"CreateContainer.config.linux.security_context.namespace_options.network": "a container has its sandbox's network; modes it cannot have are refused",
	"CreateContainer.sandbox_config...":                                       "the sandbox is as it was made",

	"UpdateContainerResources.annotations":           "nothing on the node reads them",
	"UpdatePodSandboxResources.overhead...":          "it sizes virtual machines; the pod's cgroup is the kubelet's",
	"UpdatePodSandboxResources.resources...":         "they size virtual machines; the pod's cgroup is the kubelet's",
	"ListImages.filter.image.annotations":            "names alone choose",
	"ListImages.filter.image.user_specified_image":   "names alone choose",
	"ListImages.filter.image.runtime_handler":        "the Engine has one image store",
	"ListImages.filter.image.image_ref":              "only answers have it",
	"StreamImages.filter.image.annotations":          "names alone choose",
	"StreamImages.filter.image.user_specified_image": "names alone choose",
	"StreamImages.filter.image.runtime_handler":      "the Engine has one image store",
	"StreamImages.filter.image.image_ref":            "only answers have it",
	"ImageStatus.image.annotations":                  "names alone choose",
	"ImageStatus.image.user_specified_image":         "names alone choose",
	"ImageStatus.image.runtime_handler":              "the Engine has one image store",
	"ImageStatus.image.image_ref":                    "only answers have it",
	"PullImage.image.annotations":                    "names alone choose",
	"PullImage.image.user_specified_image":           "names alone choose",
	"PullImage.image.runtime_handler":                "the Engine has one image store",
	"PullImage.image.image_ref":                      "only answers have it",
	"PullImage.sandbox_config...":                    "credentials and stores do not depend on the pod",
	"RemoveImage.image.annotations":                  "names alone choose",
	"RemoveImage.image.user_specified_image":         "names alone choose",
	"RemoveImage.image.runtime_handler":              "the Engine has one image store",
	"RemoveImage.image.image_ref":                    "only answers have it",
}

// unimplementedMethods are not there at all, whatever their fields.
var unimplementedMethods = []string{"CheckpointContainer", "CheckpointPod", "RestorePod"}
