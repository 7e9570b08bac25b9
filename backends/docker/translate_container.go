package docker

import (
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerSpec is a CreateContainer in the Engine's terms.
type containerSpec struct {
	id     identity
	config *container.Config
	host   *container.HostConfig
	// hostPaths are made where they do not exist.
	hostPaths []string
	// targetID is the container whose pid namespace is joined; "" for none.
	targetID string

	labels, annotations, own map[string]string
}

// podSandbox is what a container needs to know of its sandbox.
type podSandbox struct {
	id string
	object
	hostNetwork bool
}

// translateContainer is a pure function of its arguments, but for the seccomp
// profiles that it reads. Of sandbox_config only metadata.uid, log_directory
// and linux.cgroup_parent are looked at: the sandbox is as it is.
func translateContainer(r *runtimeapi.CreateContainerRequest, sandbox podSandbox, f *facts, n nodeOptions) (*containerSpec, error) {
	c := r.GetConfig()
	id, err := containerIdentity("config.metadata", c.GetMetadata(), sandbox.identity)
	if err != nil {
		return nil, err
	}
	s := &containerSpec{
		id: id, labels: c.Labels, annotations: c.Annotations,
		own:  map[string]string{labelType: typeContainer, labelSandboxID: sandbox.id, labelImage: askedImage(c.Image)},
		host: baseHostConfig(n),
	}
	if s.config, err = translateProcess(c); err != nil {
		return nil, err
	}
	logPath, err := logPath(r.GetSandboxConfig().GetLogDirectory(), c.LogPath)
	if err != nil {
		return nil, err
	}
	if logPath != "" {
		s.own[labelLogPath] = logPath
	}
	s.host.Runtime = sandbox.handler
	if s.host.Mounts, s.host.Binds, err = translateMounts(c.Mounts, sandbox.handler, f); err != nil {
		return nil, err
	}
	for _, m := range c.Mounts {
		s.hostPaths = append(s.hostPaths, m.GetHostPath())
	}
	if err := s.translateLinux(c.GetLinux(), r.GetSandboxConfig().GetLinux().GetCgroupParent(), sandbox, f, n); err != nil {
		return nil, err
	}
	// After the resources, which replace what they are part of.
	if s.host.Devices, err = translateDevices(c.Devices); err != nil {
		return nil, err
	}
	if s.host.DeviceRequests, err = translateCDI(c.CDIDevices, f); err != nil {
		return nil, err
	}
	// Once more in finish, with the labels of the image.
	_, err = encodeLabels(s.labels, s.annotations, s.own, nil)
	return s, err
}

// checkCreate refuses a CreateContainer that lacks what everything needs.
func checkCreate(r *runtimeapi.CreateContainerRequest) error {
	switch {
	case r.GetPodSandboxId() == "":
		return invalid("pod_sandbox_id", "is required")
	case r.GetConfig() == nil:
		return invalid("config", "is required")
	case r.GetConfig().GetMetadata() == nil:
		return invalid("config.metadata", "is required")
	case r.GetConfig().GetImage().GetImage() == "":
		return invalid("config.image.image", "is required")
	case r.GetSandboxConfig() == nil:
		return invalid("sandbox_config", "is required")
	case r.GetConfig().GetWindows() != nil:
		return refused("config.windows", "this is a Linux node")
	}
	return nil
}

// askedImage is the image as a person named it.
func askedImage(i *runtimeapi.ImageSpec) string {
	if u := i.GetUserSpecifiedImage(); u != "" {
		return u
	}
	return i.GetImage()
}

// translateProcess carries over what is run.
func translateProcess(c *runtimeapi.ContainerConfig) (*container.Config, error) {
	signal, err := signalName("config.stop_signal", c.StopSignal)
	if err != nil {
		return nil, err
	}
	if c.WorkingDir != "" && (!path.IsAbs(c.WorkingDir) || strings.ContainsRune(c.WorkingDir, 0)) {
		return nil, invalid("config.working_dir", "%q is not an absolute path", c.WorkingDir)
	}
	env := make([]string, 0, len(c.Envs))
	for i, kv := range c.Envs {
		field := fmt.Sprintf("config.envs[%d]", i)
		if k := kv.GetKey(); k == "" || strings.ContainsAny(k, "=\x00") {
			return nil, invalid(field+".key", "%q is no name of a variable", k)
		}
		// JSON, in which it goes to the Engine, has no other bytes. The value
		// itself may be a secret and is not shown.
		if !utf8.Valid(kv.GetValue()) || strings.ContainsRune(string(kv.GetValue()), 0) {
			return nil, refused(field+".value", "it is not UTF-8 text")
		}
		env = append(env, kv.GetKey()+"="+string(kv.GetValue()))
	}
	return &container.Config{
		Entrypoint: c.Command, Cmd: c.Args, Env: env, WorkingDir: c.WorkingDir,
		OpenStdin: c.Stdin, StdinOnce: c.StdinOnce, Tty: c.Tty,
		StopSignal: signal, Image: c.GetImage().GetImage(), Healthcheck: noHealthcheck(),
	}, nil
}

// translateLinux carries over config.linux.
func (s *containerSpec) translateLinux(l *runtimeapi.LinuxContainerConfig, parent string, sandbox podSandbox, f *facts, n nodeOptions) error {
	resources, settings, err := translateResources("config.linux.resources", l.GetResources(), f, n)
	if err != nil {
		return err
	}
	s.host.Resources = resources
	if s.own[labelCgroup], err = settings.encode(); err != nil {
		return err
	}
	if s.own[labelCgroup] == "" {
		delete(s.own, labelCgroup)
	}
	if s.host.OomScoreAdj, err = oomScore("config.linux.resources.oom_score_adj", l.GetResources().GetOomScoreAdj(), n.oomFloor); err != nil {
		return err
	}
	if s.host.CgroupParent, err = cgroupParent("sandbox_config.linux.cgroup_parent", parent, f); err != nil {
		return err
	}
	sc := l.GetSecurityContext()
	if err := s.translateNamespaces(sc.GetNamespaceOptions(), sandbox); err != nil {
		return err
	}
	return s.translateSecurity(sc, f, n)
}

// translateNamespaces puts the container into its sandbox's namespaces.
func (s *containerSpec) translateNamespaces(o *runtimeapi.NamespaceOption, sandbox podSandbox) error {
	const field = "config.linux.security_context.namespace_options"
	if err := checkUserNamespace(field, o); err != nil {
		return err
	}
	join := "container:" + sandbox.id
	s.host.NetworkMode, s.host.IpcMode = container.NetworkMode(join), container.IpcMode(join)
	switch o.GetNetwork() {
	case runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_NODE:
	default:
		return invalid(field+".network", "%s: a container has its sandbox's network", o.GetNetwork())
	}
	switch o.GetIpc() {
	case runtimeapi.NamespaceMode_POD:
	case runtimeapi.NamespaceMode_NODE:
		s.host.IpcMode = "host"
	default:
		return invalid(field+".ipc", "%s: a container can have POD or NODE", o.GetIpc())
	}
	switch o.GetPid() {
	case runtimeapi.NamespaceMode_POD:
		s.host.PidMode = container.PidMode(join)
	case runtimeapi.NamespaceMode_CONTAINER:
	case runtimeapi.NamespaceMode_NODE:
		s.host.PidMode = "host"
	case runtimeapi.NamespaceMode_TARGET:
		if s.targetID = o.GetTargetId(); s.targetID == "" {
			return invalid(field+".target_id", "is required with the pid mode TARGET")
		}
		s.host.PidMode = container.PidMode("container:" + s.targetID)
	default:
		return invalid(field+".pid", "%d: unknown", o.GetPid())
	}
	if sandbox.hostNetwork {
		s.host.UTSMode = "host"
	}
	return nil
}

// translateSecurity carries over the security context.
func (s *containerSpec) translateSecurity(sc *runtimeapi.LinuxContainerSecurityContext, f *facts, n nodeOptions) error {
	const field = "config.linux.security_context"
	user, groups, err := translateUser(field, userFields{
		user: sc.GetRunAsUser(), group: sc.GetRunAsGroup(), username: sc.GetRunAsUsername(),
		groups: sc.GetSupplementalGroups(), policy: sc.GetSupplementalGroupsPolicy(),
	})
	if err != nil {
		return err
	}
	s.config.User, s.host.GroupAdd = user, groups
	caps := sc.GetCapabilities()
	if len(caps.GetAddAmbientCapabilities()) > 0 {
		return refused(field+".capabilities.add_ambient_capabilities", "the docker engine has no ambient capabilities")
	}
	s.host.CapAdd, s.host.CapDrop = translateCapabilities(caps.GetAddCapabilities(), caps.GetDropCapabilities())
	s.host.Privileged, s.host.ReadonlyRootfs = sc.GetPrivileged(), sc.GetReadonlyRootfs()
	if sc != nil {
		// On the wire an empty list is an absent one. The kubelet always
		// sends the lists that it means, and none for procMount Unmasked.
		s.host.MaskedPaths = append([]string{}, sc.MaskedPaths...)
		s.host.ReadonlyPaths = append([]string{}, sc.ReadonlyPaths...)
	}
	if sc.GetPrivileged() {
		// Whatever the lists say: privileged is that nothing is masked.
		s.host.MaskedPaths, s.host.ReadonlyPaths = []string{}, []string{}
	}
	s.host.SecurityOpt, err = securityOpts(securityFields{
		field:   field,
		seccomp: sc.GetSeccomp(), seccompUnset: profileUnconfined, apparmor: sc.GetApparmor(),
		//lint:ignore SA1019 older kubelets know no other field
		seccompPath: sc.GetSeccompProfilePath(),
		//lint:ignore SA1019 older kubelets know no other field
		apparmorName: sc.GetApparmorProfile(),
		selinux:      sc.GetSelinuxOptions(), noNewPrivs: sc.GetNoNewPrivs(), privileged: sc.GetPrivileged(),
	}, f, n)
	return err
}

// translateDevices carries over devices of the node.
func translateDevices(devices []*runtimeapi.Device) ([]container.DeviceMapping, error) {
	var out []container.DeviceMapping
	for i, d := range devices {
		field := fmt.Sprintf("config.devices[%d]", i)
		if !path.IsAbs(d.GetHostPath()) {
			return nil, invalid(field+".host_path", "%q is not an absolute path", d.GetHostPath())
		}
		if !path.IsAbs(d.GetContainerPath()) {
			return nil, invalid(field+".container_path", "%q is not an absolute path", d.GetContainerPath())
		}
		if strings.Trim(d.GetPermissions(), "rwm") != "" {
			return nil, invalid(field+".permissions", "%q: want letters of rwm", d.GetPermissions())
		}
		out = append(out, container.DeviceMapping{
			PathOnHost: d.GetHostPath(), PathInContainer: d.GetContainerPath(), CgroupPermissions: d.GetPermissions(),
		})
	}
	return out, nil
}

// translateCDI carries over CDI devices where the Engine has them.
func translateCDI(devices []*runtimeapi.CDIDevice, f *facts) ([]container.DeviceRequest, error) {
	if len(devices) == 0 {
		return nil, nil
	}
	if !f.cdi {
		return nil, refused("config.CDI_devices", "the docker engine has CDI not enabled")
	}
	ids := make([]string, 0, len(devices))
	for i, d := range devices {
		if d.GetName() == "" {
			return nil, invalid(fmt.Sprintf("config.CDI_devices[%d].name", i), "is required")
		}
		ids = append(ids, d.GetName())
	}
	return []container.DeviceRequest{{Driver: "cdi", DeviceIDs: ids}}, nil
}

// logPath joins the two halves and keeps the result inside the first; "" where
// there is to be no log.
func logPath(dir, file string) (string, error) {
	if dir == "" || file == "" {
		return "", nil
	}
	if !path.IsAbs(dir) || path.Clean(dir) != strings.TrimSuffix(dir, "/") || strings.ContainsRune(dir, 0) {
		return "", invalid("sandbox_config.log_directory", "%q is not a clean absolute path", dir)
	}
	if !filepath.IsLocal(file) || path.Clean(file) == "." || strings.ContainsRune(file, 0) {
		return "", invalid("config.log_path", "%q does not stay below the log directory", file)
	}
	return path.Join(dir, file), nil
}

// finish adds what is only known when the container is about to be made.
func (s *containerSpec) finish(img image.InspectResponse, op string, now time.Time) error {
	s.own[labelOp] = op
	s.own[labelCreated] = strconv.FormatInt(now.UnixNano(), 10)
	labels, err := encodeLabels(s.labels, s.annotations, s.own, imageLabels(img))
	if err != nil {
		return err
	}
	s.config.Labels = labels
	return nil
}
