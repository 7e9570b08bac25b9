package docker

import (
	"bufio"
	"context"
	"os"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

var _ backends.Describer = (*Backend)(nil)

const describedSecurity = "config.linux.security_context."

// DescribeContainer implements [backends.Describer]. What the image brought
// along is in it, too: the Engine mixes it with what was asked for, and to a
// container of the same image it makes no difference.
func (b *Backend) DescribeContainer(ctx context.Context, id string) (backends.ContainerDescription, error) {
	f, err := b.srv.lookUp(ctx, typeContainer, "container_id", id)
	if err != nil {
		return backends.ContainerDescription{}, err
	}
	// What the cache has of a container has no environment.
	full, err := b.srv.engine.ContainerInspect(ctx, f.ID)
	if err != nil {
		return backends.ContainerDescription{}, b.srv.fail(err, "inspect container %s", f.ID)
	}
	return f.describe(full.Config.Env), nil
}

func (f *found) describe(env []string) (d backends.ContainerDescription) {
	c, h := f.Config, f.HostConfig
	d.Config = &runtimeapi.ContainerConfig{
		Image: f.imageSpec(c.Image), Command: c.Entrypoint, Args: c.Cmd, WorkingDir: c.WorkingDir,
		Labels: f.labels, Annotations: f.annotations, LogPath: f.logPath, Mounts: criMounts(h),
		Stdin: c.OpenStdin, StdinOnce: c.StdinOnce, Tty: c.Tty,
		Linux: &runtimeapi.LinuxContainerConfig{Resources: f.resources().Linux},
	}
	if c.StopSignal != "" {
		d.Config.StopSignal = stopSignal(c.StopSignal)
	}
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			d.Config.Envs = append(d.Config.Envs, &runtimeapi.KeyValue{Key: k, Value: []byte(v)})
		}
	}
	for _, dev := range h.Devices {
		d.Config.Devices = append(d.Config.Devices, &runtimeapi.Device{
			HostPath: dev.PathOnHost, ContainerPath: dev.PathInContainer, Permissions: dev.CgroupPermissions,
		})
	}
	for _, r := range h.DeviceRequests {
		for _, name := range r.DeviceIDs {
			d.Config.CDIDevices = append(d.Config.CDIDevices, &runtimeapi.CDIDevice{Name: name})
		}
	}
	if r := d.Config.Linux.Resources; r.MemorySwapLimitInBytes == 2*r.MemoryLimitInBytes {
		// What the Engine makes of a request without it.
		r.MemorySwapLimitInBytes = 0
	}
	if f.cgroup != "" {
		d.Unknown = append(d.Unknown, "config.linux.resources.unified", "config.linux.resources.hugepage_limits")
	}
	d.Config.Linux.SecurityContext = f.describeSecurity(&d)
	return d
}

// describeSecurity adds to d what of the security context is not known.
func (f *found) describeSecurity(d *backends.ContainerDescription) *runtimeapi.LinuxContainerSecurityContext {
	h := f.HostConfig
	sc := &runtimeapi.LinuxContainerSecurityContext{
		Privileged: h.Privileged, ReadonlyRootfs: h.ReadonlyRootfs,
		MaskedPaths: h.MaskedPaths, ReadonlyPaths: h.ReadonlyPaths,
		NamespaceOptions: &runtimeapi.NamespaceOption{Pid: pidMode(h.PidMode)},
		Capabilities:     &runtimeapi.Capability{AddCapabilities: bareCapabilities(h.CapAdd), DropCapabilities: bareCapabilities(h.CapDrop)},
	}
	user, group, _ := strings.Cut(f.Config.User, ":")
	if n, err := strconv.ParseInt(user, 10, 64); err == nil {
		sc.RunAsUser = &runtimeapi.Int64Value{Value: n}
	} else {
		sc.RunAsUsername = user
	}
	if n, err := strconv.ParseInt(group, 10, 64); err == nil && user != "" {
		sc.RunAsGroup = &runtimeapi.Int64Value{Value: n}
	} else if group != "" {
		d.Unknown = append(d.Unknown, describedSecurity+"run_as_group")
	}
	for _, g := range h.GroupAdd {
		n, err := strconv.ParseInt(g, 10, 64)
		if err != nil {
			d.Unknown = append(d.Unknown, describedSecurity+"supplemental_groups")
			continue
		}
		sc.SupplementalGroups = append(sc.SupplementalGroups, n)
	}
	describeProfiles(sc, d, h.SecurityOpt)
	return sc
}

// describeProfiles reads the Engine's security options.
func describeProfiles(sc *runtimeapi.LinuxContainerSecurityContext, d *backends.ContainerDescription, opts []string) {
	sc.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	for _, opt := range opts {
		key, value, _ := strings.Cut(opt, "=")
		switch {
		case key == "no-new-privileges":
			sc.NoNewPrivs = true
		case opt == "seccomp=unconfined":
			sc.Seccomp.ProfileType = runtimeapi.SecurityProfile_Unconfined
		case key == "seccomp":
			// The Engine has the profile itself, not the file it came from.
			sc.Seccomp = nil
			d.Unknown = append(d.Unknown, describedSecurity+"seccomp")
		case opt == "apparmor=unconfined":
			sc.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
		case key == "apparmor":
			sc.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: value}
		default:
			d.Unknown = append(d.Unknown, describedSecurity+"selinux_options")
		}
	}
}

func pidMode(m container.PidMode) runtimeapi.NamespaceMode {
	switch {
	case m.IsHost():
		return runtimeapi.NamespaceMode_NODE
	case m.IsContainer():
		return runtimeapi.NamespaceMode_POD
	}
	return runtimeapi.NamespaceMode_CONTAINER
}

// bareCapabilities are names as the CRI has them.
func bareCapabilities(list []string) []string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = strings.TrimPrefix(c, "CAP_")
	}
	return out
}

// DescribeSandbox implements [backends.Describer].
func (b *Backend) DescribeSandbox(ctx context.Context, id string) (d backends.SandboxDescription, err error) {
	f, err := b.srv.lookUp(ctx, typeSandbox, "pod_sandbox_id", id)
	if err != nil {
		return d, err
	}
	d.Config = &runtimeapi.PodSandboxConfig{
		Hostname: f.Config.Hostname, Labels: f.labels, Annotations: f.annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			Sysctls:         f.HostConfig.Sysctls,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: f.namespaces()},
		},
	}
	if d.Config.DnsConfig, err = readResolvConf(f.ResolvConfPath); err != nil {
		d.Unknown, err = append(d.Unknown, "config.dns_config"), nil
	}
	return d, err
}

// readResolvConf reads back what resolvConf has written.
func readResolvConf(path string) (*runtimeapi.DNSConfig, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	dns := new(runtimeapi.DNSConfig)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			dns.Servers = append(dns.Servers, words[1])
		case "search":
			dns.Searches = words[1:]
		case "options":
			dns.Options = words[1:]
		}
	}
	return dns, lines.Err()
}

// SandboxPID implements [backends.Describer].
func (b *Backend) SandboxPID(ctx context.Context, id string) (int, error) {
	return b.srv.sandboxPID(ctx, id)
}
