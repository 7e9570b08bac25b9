package proxy

import (
	"fmt"
	"maps"
	"path"
	"strings"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// Labels by which Kubernetes' own programs know a pod.
const (
	podNameLabel      = "io.kubernetes.pod.name"
	podNamespaceLabel = "io.kubernetes.pod.namespace"
)

// configAnnotations are those by which the kubelet's requests about an image
// are told to be of one pod or another: a rehearsal must not be taken for it.
const configAnnotations = "kubernetes.io/config."

// serviceAccount is where every container finds the pod's credentials to the
// API server, tokens the kind of volume that has them.
const (
	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokens         = "/volumes/kubernetes.io~projected/kube-api-access-"
)

// sandboxConfig is what the pod's sandbox was made with, as a pod of its own
// that takes nothing of the host's.
func (r *rehearsal) sandboxConfig() *runtimeapi.PodSandboxConfig {
	src := r.source.config
	r.missing("", src.Unknown)
	c := proto.CloneOf(src.Config)
	if c == nil {
		c = new(runtimeapi.PodSandboxConfig)
	}
	c.Metadata = &runtimeapi.PodSandboxMetadata{Name: "rehearsal-" + r.id, Namespace: rehearsalNamespace, Uid: "rehearsal-" + r.id}
	c.LogDirectory = r.logs()
	c.Labels, c.Annotations = r.labels(c.GetLabels()), ownAnnotations(c.GetAnnotations())
	for _, p := range c.GetPortMappings() {
		if p.GetHostPort() != 0 {
			r.leaveOut("the host's port %d", p.GetHostPort())
		}
	}
	c.PortMappings = nil
	if c.Linux == nil {
		c.Linux = new(runtimeapi.LinuxPodSandboxConfig)
	}
	c.Linux.CgroupParent = ""
	if c.Linux.SecurityContext == nil {
		c.Linux.SecurityContext = new(runtimeapi.LinuxSandboxSecurityContext)
	}
	sc := c.Linux.SecurityContext
	sc.NamespaceOptions = r.namespaces(sc.GetNamespaceOptions(), true)
	for _, ctr := range r.source.containers {
		if ctr.config.Config.GetLinux().GetSecurityContext().GetPrivileged() {
			sc.Privileged = true
		}
	}
	return c
}

// labels are those of the pod, with the rehearsal's own identity.
func (r *rehearsal) labels(of map[string]string) map[string]string {
	labels := maps.Clone(of)
	if labels == nil {
		labels = make(map[string]string)
	}
	labels[podNameLabel], labels[podNamespaceLabel], labels[podUIDLabel] = "rehearsal-"+r.id, rehearsalNamespace, "rehearsal-"+r.id
	labels[backends.LabelRehearsal] = r.id
	return labels
}

func ownAnnotations(of map[string]string) map[string]string {
	kept := maps.Clone(of)
	maps.DeleteFunc(kept, func(k, _ string) bool { return strings.HasPrefix(k, configAnnotations) })
	return kept
}

// namespaces are a pod's, none of them the host's. tell names what is left out.
func (r *rehearsal) namespaces(of *runtimeapi.NamespaceOption, tell bool) *runtimeapi.NamespaceOption {
	own := &runtimeapi.NamespaceOption{Pid: of.GetPid()}
	for _, n := range []struct {
		name string
		mode runtimeapi.NamespaceMode
	}{{"network", of.GetNetwork()}, {"pid", of.GetPid()}, {"ipc", of.GetIpc()}} {
		if tell && n.mode == runtimeapi.NamespaceMode_NODE {
			r.leaveOut("the host's %s namespace", n.name)
		}
	}
	if own.Pid != runtimeapi.NamespaceMode_POD {
		own.Pid = runtimeapi.NamespaceMode_CONTAINER
	}
	return own
}

// containerConfig is what a container was made with, less what is the host's.
func (r *rehearsal) containerConfig(ctr *sourceContainer) *runtimeapi.ContainerConfig {
	name := ctr.record.GetName()
	c := proto.CloneOf(ctr.config.Config)
	switch {
	case c == nil:
		c = &runtimeapi.ContainerConfig{Labels: ctr.record.GetLabels(), Annotations: ctr.record.GetAnnotations()}
		r.missing(name, []string{"config.command", "config.args", "config.envs", "config.mounts", "config.linux"})
	default:
		r.missing(name, ctr.config.Unknown)
	}
	c.Metadata = &runtimeapi.ContainerMetadata{Name: name}
	c.Labels, c.Annotations = r.labels(c.GetLabels()), ownAnnotations(c.GetAnnotations())
	c.LogPath = name + ".log"
	c.Image = &runtimeapi.ImageSpec{
		Image: ctr.record.GetImage(), UserSpecifiedImage: c.GetImage().GetUserSpecifiedImage(), Annotations: c.GetImage().GetAnnotations(),
	}
	if asked := ctr.config.Config.GetImage().GetImage(); c.Image.UserSpecifiedImage == "" && !isDigest(asked) {
		c.Image.UserSpecifiedImage = asked
	}
	c.Mounts = r.mounts(name, c.GetMounts())
	r.devices(name, c)
	if c.Linux == nil {
		c.Linux = new(runtimeapi.LinuxContainerConfig)
	}
	if c.Linux.SecurityContext == nil {
		c.Linux.SecurityContext = new(runtimeapi.LinuxContainerSecurityContext)
	}
	c.Linux.SecurityContext.NamespaceOptions = r.namespaces(c.Linux.SecurityContext.GetNamespaceOptions(), false)
	c.Envs = withEnv(c.GetEnvs(), r.req.Env)
	return c
}

// mounts are those that a rehearsal may have: the host's folders are only read.
func (r *rehearsal) mounts(name string, all []*runtimeapi.Mount) (some []*runtimeapi.Mount) {
	for _, m := range all {
		switch {
		case path.Clean(m.GetContainerPath()) == serviceAccount || strings.Contains(m.GetHostPath(), tokens):
			r.leaveOut("%s: the service account at %s", name, m.GetContainerPath())
		case !r.req.HostMounts:
			r.leaveOut("%s: the mount of %s at %s", name, mounted(m), m.GetContainerPath())
		default:
			if !m.GetReadonly() {
				r.leaveOut("%s: writing to the mount of %s at %s", name, mounted(m), m.GetContainerPath())
			}
			m.Readonly, m.Propagation = true, runtimeapi.MountPropagation_PROPAGATION_PRIVATE
			some = append(some, m)
		}
	}
	return some
}

func mounted(m *runtimeapi.Mount) string {
	if m.GetHostPath() == "" {
		return "the image " + m.GetImage().GetImage()
	}
	return m.GetHostPath()
}

// devices leaves the host's devices out unless the host's mounts are asked for.
func (r *rehearsal) devices(name string, c *runtimeapi.ContainerConfig) {
	if r.req.HostMounts {
		return
	}
	for _, d := range c.GetDevices() {
		r.leaveOut("%s: the device %s", name, d.GetHostPath())
	}
	for _, d := range c.GetCDIDevices() {
		r.leaveOut("%s: the device %s", name, d.GetName())
	}
	c.Devices, c.CDIDevices = nil, nil
}

// withEnv sets variables over those of an environment.
func withEnv(envs []*runtimeapi.KeyValue, set []EnvVar) []*runtimeapi.KeyValue {
	for _, v := range set {
		found := false
		for _, kv := range envs {
			if kv.GetKey() == v.Name {
				kv.Value, found = []byte(v.Value), true
			}
		}
		if !found {
			envs = append(envs, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
		}
	}
	return envs
}

// mayOpenNetwork tells whether a container could undo that its links are down.
func mayOpenNetwork(c *runtimeapi.ContainerConfig) bool {
	sc := c.GetLinux().GetSecurityContext()
	if sc.GetPrivileged() {
		return true
	}
	for _, k := range sc.GetCapabilities().GetAddCapabilities() {
		switch strings.TrimPrefix(strings.ToUpper(k), "CAP_") {
		case "ALL", "NET_ADMIN", "SYS_ADMIN":
			return true
		}
	}
	return false
}

func (r *rehearsal) leaveOut(format string, args ...any) {
	r.report.LeftOut = append(r.report.LeftOut, fmt.Sprintf(format, args...))
}

// missing notes which fields of the pod's requests are not known.
func (r *rehearsal) missing(container string, fields []string) {
	for _, f := range fields {
		if f == "config.envs" && len(r.req.Env) > 0 {
			continue
		}
		if container != "" {
			f = container + ": " + f
		}
		r.report.Missing = append(r.report.Missing, f)
	}
}
