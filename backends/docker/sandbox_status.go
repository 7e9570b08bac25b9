package docker

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodSandboxStatus implements the RuntimeService.
func (s *server) PodSandboxStatus(ctx context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	f, err := s.seen(ctx, typeSandbox, "pod_sandbox_id", r.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	st, err := s.sandboxStatus(f)
	if err != nil {
		return nil, err
	}
	out := &runtimeapi.PodSandboxStatusResponse{Status: st, Timestamp: time.Now().UnixNano(), ContainersStatuses: s.statusesIn(f.ID)}
	if r.GetVerbose() {
		info, err := verboseContainer(f)
		if err != nil {
			return nil, err
		}
		out.Info = info
	}
	return out, nil
}

// sandboxStatus is the sandbox as the CRI sees it.
func (s *server) sandboxStatus(f *found) (*runtimeapi.PodSandboxStatus, error) {
	network, attached, err := s.networkStatus(f)
	if err != nil {
		return nil, s.fail(err, "status of sandbox %s", f.ID)
	}
	state := runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	if f.State.Running && attached && s.ops.look(f.op) == visible {
		state = runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return &runtimeapi.PodSandboxStatus{
		Id: f.ID, Metadata: f.identity.sandbox(), State: state, CreatedAt: f.createdAtNanos(),
		Network: network, Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: f.namespaces()}},
		Labels: f.labels, Annotations: f.annotations, RuntimeHandler: f.handler,
	}, nil
}

// statusesIn are the statuses of a sandbox's containers: with them a kubelet
// that lives by events need not ask for each.
func (s *server) statusesIn(sandbox string) []*runtimeapi.ContainerStatus {
	var out []*runtimeapi.ContainerStatus
	for _, f := range s.cache.all(typeContainer) {
		if f.sandboxID == sandbox && s.ops.look(f.op) != hidden {
			out = append(out, f.criStatus())
		}
	}
	return out
}

// networkStatus returns the sandbox's addresses. On the host's network there
// are none to tell: the kubelet knows the node's.
func (s *server) networkStatus(f *found) (status *runtimeapi.PodSandboxNetworkStatus, attached bool, err error) {
	status = &runtimeapi.PodSandboxNetworkStatus{}
	switch {
	case f.HostConfig.NetworkMode.IsHost():
		return status, true, nil
	case !f.HostConfig.NetworkMode.IsNone():
		// Of another shim without CNI: a network of the Engine's own.
		for _, n := range f.NetworkSettings.Networks {
			addAddress(status, n.IPAddress)
			addAddress(status, n.GlobalIPv6Address)
		}
		return status, true, nil
	}
	ips, attached, err := s.pods.addresses(f.ID)
	if err != nil || !attached || !f.State.Running {
		return status, attached, err
	}
	for _, ip := range ips {
		addAddress(status, ip.String())
	}
	return status, true, nil
}

// addAddress adds an address: the first is the pod's primary one.
func addAddress(n *runtimeapi.PodSandboxNetworkStatus, ip string) {
	switch {
	case ip == "":
	case n.Ip == "":
		n.Ip = ip
	default:
		n.AdditionalIps = append(n.AdditionalIps, &runtimeapi.PodIP{Ip: ip})
	}
}

// namespaces are the options that the sandbox was made with.
func (f *found) namespaces() *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if f.HostConfig.NetworkMode.IsHost() {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if f.HostConfig.IpcMode.IsHost() {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case f.HostConfig.PidMode.IsHost():
		o.Pid = runtimeapi.NamespaceMode_NODE
	case f.pid == "pod":
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	return o
}

// verboseContainer is the info of a verbose status: JSON under one key. There
// is nothing in it of the request's environment or arguments.
func verboseContainer(f *found) (map[string]string, error) {
	b, err := json.Marshal(map[string]any{
		"name": f.Name, "pid": f.State.Pid, "image": f.Image, "runtime": f.HostConfig.Runtime,
		"networkMode": f.HostConfig.NetworkMode, "engineLog": f.LogPath, "operation": f.op,
	})
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode verbose status: %v", err)
	}
	return map[string]string{"info": string(b)}, nil
}

// listedState is ready for a sandbox that runs, whose operation has ended and
// that has its network.
func (s *server) listedState(f *found) runtimeapi.PodSandboxState {
	if !f.State.Running || s.ops.look(f.op) != visible {
		return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	if f.HostConfig.NetworkMode.IsNone() {
		// What cannot be read is not called missing: the kubelet would kill
		// the pod. Its status says what is the matter.
		if _, attached, err := s.pods.addresses(f.ID); err == nil && !attached {
			return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		}
	}
	return runtimeapi.PodSandboxState_SANDBOX_READY
}

// sandboxPID returns the process of a running sandbox, for port-forwarding.
func (s *server) sandboxPID(ctx context.Context, id string) (int, error) {
	f, err := s.lookUp(ctx, typeSandbox, "pod_sandbox_id", id)
	if err != nil {
		return 0, err
	}
	if !f.State.Running || f.State.Pid <= 0 {
		return 0, status.Errorf(codes.FailedPrecondition, "sandbox %s does not run", id)
	}
	return f.State.Pid, nil
}
