package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

var _ backends.Describer = (*Backend)(nil)

// verboseKey is the entry of a verbose answer that has the JSON below.
const verboseKey = "info"

// verbose is what runtimes tell in a verbose status. containerd has the config
// as it was sent and the runtime's spec, CRI-O has the spec alone.
type verbose struct {
	PID    int                        `json:"pid"`
	Config map[string]json.RawMessage `json:"config"`
	Spec   *spec                      `json:"runtimeSpec"`
}

// spec is the part of an OCI runtime's configuration that a request can be told
// from.
type spec struct {
	Hostname string `json:"hostname"`
	Process  struct {
		Args     []string `json:"args"`
		Env      []string `json:"env"`
		Cwd      string   `json:"cwd"`
		Terminal bool     `json:"terminal"`
		User     struct {
			UID    int64   `json:"uid"`
			GID    int64   `json:"gid"`
			Groups []int64 `json:"additionalGids"`
		} `json:"user"`
		NoNewPrivileges bool `json:"noNewPrivileges"`
	} `json:"process"`
	Root struct {
		Readonly bool `json:"readonly"`
	} `json:"root"`
	Linux struct {
		Sysctl map[string]string `json:"sysctl"`
	} `json:"linux"`
}

// parseVerbose reads the info of a verbose answer.
func parseVerbose(info map[string]string) (*verbose, error) {
	v := new(verbose)
	text, ok := info[verboseKey]
	if !ok {
		return nil, status.Error(codes.Unimplemented, "the runtime tells nothing of what its pods were made with")
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return nil, status.Errorf(codes.Unimplemented, "what the runtime tells of what its pods were made with cannot be read: %v", err)
	}
	return v, nil
}

// configInto reads a config as the runtime printed it: the names are those of
// the CRI's own structs, whatever generator made them.
func (v *verbose) configInto(m any, without ...string) error {
	for _, key := range without {
		delete(v.Config, key)
	}
	b, err := json.Marshal(v.Config)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, m); err != nil {
		return status.Errorf(codes.Unimplemented, "the config that the runtime tells of cannot be read: %v", err)
	}
	return nil
}

// DescribeContainer implements [backends.Describer].
func (b *Backend) DescribeContainer(ctx context.Context, id string) (backends.ContainerDescription, error) {
	var none backends.ContainerDescription
	resp := new(runtimeapi.ContainerStatusResponse)
	err := b.ask(ctx, runtimeapi.RuntimeService_ContainerStatus_FullMethodName, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true}, resp)
	if err != nil {
		return none, err
	}
	v, err := parseVerbose(resp.GetInfo())
	if err != nil {
		return none, err
	}
	return v.container(resp.GetStatus())
}

// container is the request of a container as far as it is told.
func (v *verbose) container(st *runtimeapi.ContainerStatus) (d backends.ContainerDescription, err error) {
	if v.Config == nil {
		return v.containerOfSpec(st), nil
	}
	d.Config = new(runtimeapi.ContainerConfig)
	// The values of an environment are text in some versions of the CRI and
	// bytes in others: the spec has it the same in all.
	if err := v.configInto(d.Config, "envs"); err != nil {
		return d, err
	}
	if v.Spec == nil {
		d.Unknown = append(d.Unknown, "config.envs")
		return d, nil
	}
	d.Config.Envs = environment(v.Spec.Process.Env)
	return d, nil
}

// containerOfSpec is for runtimes that tell only what they made of a request.
func (v *verbose) containerOfSpec(st *runtimeapi.ContainerStatus) backends.ContainerDescription {
	c := &runtimeapi.ContainerConfig{
		Image: st.GetImage(), Labels: st.GetLabels(), Annotations: st.GetAnnotations(), Mounts: st.GetMounts(),
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       st.GetResources().GetLinux(),
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{},
		},
	}
	unknown := []string{
		"config.devices", "config.linux.security_context.capabilities", "config.linux.security_context.privileged",
		"config.linux.security_context.seccomp", "config.linux.security_context.apparmor", "config.linux.security_context.namespace_options",
	}
	if v.Spec == nil {
		return backends.ContainerDescription{Config: c, Unknown: append([]string{"config.command", "config.args", "config.envs", "config.working_dir"}, unknown...)}
	}
	p := v.Spec.Process
	c.Command, c.Envs, c.WorkingDir, c.Tty = p.Args, environment(p.Env), p.Cwd, p.Terminal
	sc := c.Linux.SecurityContext
	sc.RunAsUser, sc.RunAsGroup = &runtimeapi.Int64Value{Value: p.User.UID}, &runtimeapi.Int64Value{Value: p.User.GID}
	sc.SupplementalGroups, sc.NoNewPrivs, sc.ReadonlyRootfs = p.User.Groups, p.NoNewPrivileges, v.Spec.Root.Readonly
	return backends.ContainerDescription{Config: c, Unknown: unknown}
}

// environment is a process's environment as a request has it, less the host
// name, which each runtime adds by itself.
func environment(list []string) (envs []*runtimeapi.KeyValue) {
	for _, kv := range list {
		if k, value, ok := strings.Cut(kv, "="); ok && k != "HOSTNAME" {
			envs = append(envs, &runtimeapi.KeyValue{Key: k, Value: []byte(value)})
		}
	}
	return envs
}

// DescribeSandbox implements [backends.Describer].
func (b *Backend) DescribeSandbox(ctx context.Context, id string) (backends.SandboxDescription, error) {
	v, st, err := b.sandbox(ctx, id)
	if err != nil {
		return backends.SandboxDescription{}, err
	}
	if v.Config != nil {
		c := new(runtimeapi.PodSandboxConfig)
		err := v.configInto(c)
		return backends.SandboxDescription{Config: c}, err
	}
	c := &runtimeapi.PodSandboxConfig{
		Labels: st.GetLabels(), Annotations: st.GetAnnotations(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: st.GetLinux().GetNamespaces().GetOptions(),
		}},
	}
	if v.Spec != nil {
		c.Hostname, c.Linux.Sysctls = v.Spec.Hostname, v.Spec.Linux.Sysctl
	}
	return backends.SandboxDescription{Config: c, Unknown: []string{"config.dns_config"}}, nil
}

// SandboxPID implements [backends.Describer].
func (b *Backend) SandboxPID(ctx context.Context, id string) (int, error) {
	v, _, err := b.sandbox(ctx, id)
	if err != nil {
		return 0, err
	}
	if v.PID <= 0 {
		return 0, status.Errorf(codes.Unimplemented, "backend %q does not tell the process of sandbox %s", b.name, id)
	}
	return v.PID, nil
}

func (b *Backend) sandbox(ctx context.Context, id string) (*verbose, *runtimeapi.PodSandboxStatus, error) {
	resp := new(runtimeapi.PodSandboxStatusResponse)
	err := b.ask(ctx, runtimeapi.RuntimeService_PodSandboxStatus_FullMethodName, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true}, resp)
	if err != nil {
		return nil, nil, err
	}
	v, err := parseVerbose(resp.GetInfo())
	return v, resp.GetStatus(), err
}

// ask carries out a call whose answer is looked into.
func (b *Backend) ask(ctx context.Context, method string, req, resp proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode %s: %w", method, err)
	}
	a, err := b.Invoke(ctx, &backends.Call{Method: method, Request: backends.NewFrame(body), Journal: backends.NoJournal})
	if err != nil {
		return err
	}
	defer a.Body.Free()
	return proto.Unmarshal(a.Body.Bytes(), resp)
}
