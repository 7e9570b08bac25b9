package docker

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/cni"
)

// What the infra container of every pod gets: dockershim's values.
const (
	infraShares  = 2
	infraOOM     = -998
	infraShmSize = 64 << 20
	hostnameMax  = 64
)

// sandboxSpec is a RunPodSandbox in the Engine's terms.
type sandboxSpec struct {
	id     identity
	config *container.Config
	host   *container.HostConfig
	// resolvConf replaces the Engine's, unless it is empty.
	resolvConf string
	// attach is what CNI is asked for; nil on the host's network.
	attach *cni.Attachment

	labels, annotations, own map[string]string
}

// translateSandbox is a pure function of its arguments, but for the seccomp
// profiles that it reads. Harmless and left alone are linux.overhead and
// linux.resources (they size virtual machines; a pod's cgroup is the
// kubelet's), linux.security_context.privileged (it permits, and demands
// nothing) and log_directory (it comes again with each container).
func translateSandbox(r *runtimeapi.RunPodSandboxRequest, f *facts, n nodeOptions) (*sandboxSpec, error) {
	c := r.GetConfig()
	if c == nil {
		return nil, invalid("config", "is required")
	}
	id, err := sandboxIdentity("config.metadata", c.Metadata)
	if err != nil {
		return nil, err
	}
	if err := checkHandler(r.RuntimeHandler, f); err != nil {
		return nil, err
	}
	if c.Windows != nil {
		return nil, refused("config.windows", "this is a Linux node")
	}
	if len(c.Hostname) > hostnameMax || strings.ContainsAny(c.Hostname, "/ \n\x00") {
		return nil, invalid("config.hostname", "%q is no host name of at most %d characters", c.Hostname, hostnameMax)
	}
	s := &sandboxSpec{
		id: id, labels: c.Labels, annotations: c.Annotations,
		own:    map[string]string{labelType: typeSandbox, labelContainerName: sandboxPart},
		config: &container.Config{Hostname: c.Hostname, Healthcheck: noHealthcheck()},
		host:   baseHostConfig(n),
	}
	if r.RuntimeHandler != "" {
		s.own[labelHandler] = r.RuntimeHandler
		s.host.Runtime = r.RuntimeHandler
	}
	s.host.CPUShares, s.host.ShmSize = infraShares, infraShmSize
	s.host.OomScoreAdj = max(infraOOM, n.oomFloor)
	if err := s.translateLinux(c.GetLinux(), f, n); err != nil {
		return nil, err
	}
	if s.resolvConf, err = resolvConf(c.DnsConfig); err != nil {
		return nil, err
	}
	if err := s.translateNetwork(c); err != nil {
		return nil, err
	}
	// Once more in finish, with the labels of the image.
	_, err = encodeLabels(s.labels, s.annotations, s.own, nil)
	return s, err
}

// checkHandler refuses a runtime that the Engine does not have.
func checkHandler(handler string, f *facts) error {
	if _, ok := f.runtimes[handler]; !ok && handler != "" {
		return invalid("runtime_handler", "%q: the docker engine has no such runtime, only %q", handler, f.handlerNames())
	}
	return nil
}

// translateLinux carries over config.linux.
func (s *sandboxSpec) translateLinux(l *runtimeapi.LinuxPodSandboxConfig, f *facts, n nodeOptions) error {
	const field = "config.linux"
	sc := l.GetSecurityContext()
	parent, err := cgroupParent(field+".cgroup_parent", l.GetCgroupParent(), f)
	if err != nil {
		return err
	}
	s.host.CgroupParent, s.host.Sysctls = parent, l.GetSysctls()
	if err := s.translateNamespaces(sc.GetNamespaceOptions()); err != nil {
		return err
	}
	if err := checkSysctls(field+".sysctls", l.GetSysctls(), s.host); err != nil {
		return err
	}
	user, groups, err := translateUser(field+".security_context", userFields{
		user: sc.GetRunAsUser(), group: sc.GetRunAsGroup(),
		groups: sc.GetSupplementalGroups(), policy: sc.GetSupplementalGroupsPolicy(),
	})
	if err != nil {
		return err
	}
	s.config.User, s.host.GroupAdd = user, groups
	s.host.ReadonlyRootfs = sc.GetReadonlyRootfs()
	s.host.SecurityOpt, err = securityOpts(securityFields{
		field:   field + ".security_context",
		seccomp: sc.GetSeccomp(), seccompUnset: profileDefault,
		//lint:ignore SA1019 older kubelets know no other field
		seccompPath: sc.GetSeccompProfilePath(),
		apparmor:    sc.GetApparmor(), selinux: sc.GetSelinuxOptions(), noNewPrivs: true,
	}, f, n)
	return err
}

// translateNamespaces carries over the sandbox's namespaces.
func (s *sandboxSpec) translateNamespaces(o *runtimeapi.NamespaceOption) error {
	const field = "config.linux.security_context.namespace_options"
	if err := checkUserNamespace(field, o); err != nil {
		return err
	}
	s.host.NetworkMode, s.host.IpcMode = "none", "shareable"
	switch o.GetNetwork() {
	case runtimeapi.NamespaceMode_POD:
	case runtimeapi.NamespaceMode_NODE:
		s.host.NetworkMode = "host"
	default:
		return invalid(field+".network", "%s: a sandbox can have POD or NODE", o.GetNetwork())
	}
	switch o.GetIpc() {
	case runtimeapi.NamespaceMode_POD:
	case runtimeapi.NamespaceMode_NODE:
		s.host.IpcMode = "host"
	default:
		return invalid(field+".ipc", "%s: a sandbox can have POD or NODE", o.GetIpc())
	}
	switch o.GetPid() {
	case runtimeapi.NamespaceMode_POD:
		s.own[labelPID] = "pod"
	case runtimeapi.NamespaceMode_CONTAINER:
	case runtimeapi.NamespaceMode_NODE:
		s.host.PidMode = "host"
	default:
		return invalid(field+".pid", "%s: a sandbox can have POD, CONTAINER or NODE", o.GetPid())
	}
	return nil
}

// checkSysctls refuses what would be the whole node's. The OCI runtime would
// do so as well, but only once the sandbox is half made, and in other words.
func checkSysctls(field string, sysctls map[string]string, h *container.HostConfig) error {
	for _, k := range slices.Sorted(maps.Keys(sysctls)) {
		// Both forms are in use: net.ipv4.conf.eth0.x and net/ipv4/conf/eth0/x.
		name := strings.ReplaceAll(k, "/", ".")
		key := fmt.Sprintf("%s[%q]", field, k)
		switch {
		case strings.HasPrefix(name, "net."):
			if h.NetworkMode.IsHost() {
				return invalid(key, "the pod is on the node's network, and so it would be the node's")
			}
		case strings.HasPrefix(name, "fs.mqueue."), ipcSysctls[name]:
			if h.IpcMode.IsHost() {
				return invalid(key, "the pod is in the node's ipc namespace, and so it would be the node's")
			}
		default:
			return invalid(key, "it is in none of a pod's namespaces, and so it would be the node's")
		}
	}
	return nil
}

// ipcSysctls are those that each ipc namespace has for itself.
var ipcSysctls = map[string]bool{
	"kernel.msgmax": true, "kernel.msgmnb": true, "kernel.msgmni": true, "kernel.sem": true, "kernel.shmall": true,
	"kernel.shmmax": true, "kernel.shmmni": true, "kernel.shm_rmid_forced": true,
}

// checkUserNamespace refuses a user namespace. That there are no options at
// all means that the kubelet knows of none.
func checkUserNamespace(field string, o *runtimeapi.NamespaceOption) error {
	u := o.GetUsernsOptions()
	if u == nil || u.Mode == runtimeapi.NamespaceMode_NODE && len(u.Uids) == 0 && len(u.Gids) == 0 {
		return nil
	}
	return refused(field+".userns_options", "the docker engine has no user namespaces per pod (hostUsers: false)")
}

// translateNetwork carries over what CNI needs. Port mappings of a pod on the
// host's network map nothing.
func (s *sandboxSpec) translateNetwork(c *runtimeapi.PodSandboxConfig) error {
	ports := make([]cni.PortMapping, 0, len(c.PortMappings))
	for i, p := range c.PortMappings {
		field := fmt.Sprintf("config.port_mappings[%d]", i)
		for _, v := range []struct {
			name string
			port int32
		}{{"container_port", p.GetContainerPort()}, {"host_port", p.GetHostPort()}} {
			if v.port < 0 || v.port > math.MaxUint16 {
				return invalid(field+"."+v.name, "%d is no port", v.port)
			}
		}
		name, ok := runtimeapi.Protocol_name[int32(p.GetProtocol())]
		if !ok {
			return invalid(field+".protocol", "%d: unknown", p.GetProtocol())
		}
		ports = append(ports, cni.PortMapping{
			Protocol: strings.ToLower(name), ContainerPort: p.GetContainerPort(), HostPort: p.GetHostPort(), HostIP: p.GetHostIp(),
		})
	}
	if s.host.NetworkMode.IsHost() {
		return nil
	}
	s.attach = &cni.Attachment{
		PodNamespace: s.id.namespace, PodName: s.id.pod, PodUID: s.id.uid,
		PortMappings: ports, Annotations: c.Annotations, CgroupPath: c.GetLinux().GetCgroupParent(),
		DNS: cni.DNS{Servers: c.GetDnsConfig().GetServers(), Searches: c.GetDnsConfig().GetSearches(), Options: c.GetDnsConfig().GetOptions()},
	}
	return nil
}

// finish adds what is only known when the sandbox is about to be made.
func (s *sandboxSpec) finish(img image.InspectResponse, op string, now time.Time) error {
	s.own[labelOp] = op
	s.own[labelCreated] = strconv.FormatInt(now.UnixNano(), 10)
	labels, err := encodeLabels(s.labels, s.annotations, s.own, imageLabels(img))
	if err != nil {
		return err
	}
	s.config.Image, s.config.Labels = img.ID, labels
	return nil
}

// imageLabels are the labels that the Engine mixes into a container's.
func imageLabels(img image.InspectResponse) map[string]string {
	if img.Config == nil {
		return nil
	}
	return img.Config.Labels
}

// resolvConf is the content of /etc/resolv.conf; "" leaves the Engine's, which
// comes from the node.
func resolvConf(d *runtimeapi.DNSConfig) (string, error) {
	var b strings.Builder
	for i, s := range d.GetServers() {
		if s == "" || strings.ContainsAny(s, " \t\r\n\x00") {
			return "", invalid(fmt.Sprintf("config.dns_config.servers[%d]", i), "%q is no address", s)
		}
		b.WriteString("nameserver " + s + "\n")
	}
	for _, l := range []struct {
		word, field string
		values      []string
	}{{"search", "searches", d.GetSearches()}, {"options", "options", d.GetOptions()}} {
		for i, v := range l.values {
			if v == "" || strings.ContainsAny(v, " \t\r\n\x00") {
				return "", invalid(fmt.Sprintf("config.dns_config.%s[%d]", l.field, i), "%q is not one word", v)
			}
		}
		if len(l.values) > 0 {
			b.WriteString(l.word + " " + strings.Join(l.values, " ") + "\n")
		}
	}
	return b.String(), nil
}

// baseHostConfig is what sandboxes and containers have in common.
func baseHostConfig(n nodeOptions) *container.HostConfig {
	noInit := false
	return &container.HostConfig{
		LogConfig:     n.logs,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		// Whatever the Engine's default is: the pod's first process is what
		// the pod says.
		Init: &noInit,
	}
}

// noHealthcheck turns off the image's: probes are the kubelet's.
func noHealthcheck() *container.HealthConfig {
	return &container.HealthConfig{Test: []string{"NONE"}}
}

// cgroupParent is the parent as the Engine's cgroup driver wants it: a path,
// or with systemd the name of a slice.
func cgroupParent(field, parent string, f *facts) (string, error) {
	if parent == "" {
		return "", nil
	}
	if strings.ContainsRune(parent, 0) || path.Clean("/"+parent) == "/" || strings.Contains("/"+parent+"/", "/../") {
		return "", invalid(field, "%q is no cgroup below the root", parent)
	}
	if f.cgroupDriver != "systemd" {
		return parent, nil
	}
	slice := path.Base(parent)
	if !strings.HasSuffix(slice, ".slice") {
		return "", invalid(field, "%q: the docker engine uses the systemd cgroup driver and needs a slice: check the kubelet's cgroupDriver", parent)
	}
	return slice, nil
}
