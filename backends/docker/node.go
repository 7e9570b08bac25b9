package docker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/cni"
)

// The CRI's names and versions.
const (
	runtimeName    = "docker"
	kubeletVersion = "0.1.0"
	apiVersion     = "v1"
)

// Version implements the RuntimeService.
func (s *server) Version(ctx context.Context, _ *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	f, err := s.currentFacts(ctx, factsAge)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.VersionResponse{
		Version: kubeletVersion, RuntimeName: runtimeName,
		RuntimeVersion: f.version, RuntimeApiVersion: apiVersion,
	}, nil
}

// Status implements the RuntimeService. It asks the Engine each time: its
// answer is what the node's readiness hangs on.
func (s *server) Status(ctx context.Context, r *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	runtime := condition(runtimeapi.RuntimeReady, "", "")
	f, unreachable := s.engineNow(ctx)
	switch {
	case unreachable != nil:
		runtime = condition(runtimeapi.RuntimeReady, "EngineUnreachable", status.Convert(unreachable).Message())
	case f.tooOld() != "":
		runtime = condition(runtimeapi.RuntimeReady, "EngineTooOld", f.tooOld())
	}
	network := condition(runtimeapi.NetworkReady, "", "")
	if err := s.pods.net.Status(ctx); err != nil {
		network = condition(runtimeapi.NetworkReady, "NetworkPluginNotReady", err.Error())
	}
	out := &runtimeapi.StatusResponse{
		Status:   &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{runtime, network}},
		Features: &runtimeapi.RuntimeFeatures{},
	}
	if f != nil {
		for _, name := range f.handlerNames() {
			out.RuntimeHandlers = append(out.RuntimeHandlers, &runtimeapi.RuntimeHandler{
				Name:     name,
				Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: f.recursiveReadOnly(name)},
			})
		}
	}
	if !r.GetVerbose() {
		return out, nil
	}
	info, err := s.verboseStatus(f)
	if err != nil {
		return nil, err
	}
	out.Info = info
	return out, nil
}

// engineNow asks the Engine for its facts.
func (s *server) engineNow(ctx context.Context) (*facts, error) {
	if err := s.api.ensure(ctx); err != nil {
		return nil, s.fail(err, "engine information")
	}
	return s.currentFacts(ctx, 0)
}

// condition is true unless there is a reason why not.
func condition(kind, reason, message string) *runtimeapi.RuntimeCondition {
	return &runtimeapi.RuntimeCondition{Type: kind, Status: reason == "", Reason: reason, Message: message}
}

// verboseStatus is the info of a verbose Status: JSON under one key.
func (s *server) verboseStatus(f *facts) (map[string]string, error) {
	config := map[string]any{
		"endpoint":      s.endpoint,
		"podInfraImage": s.infra.configured,
		"podCIDR":       s.pods.net.PodCIDR(),
		"cniSkipped":    skippedNetworks(s.pods.net.Skipped()),
		"oomScoreFloor": s.node.oomFloor,
		"logConfig":     s.node.logs.Config,
	}
	if f != nil {
		config["engine"] = map[string]any{
			"version": f.version, "api": f.api, "rootDir": f.rootDir, "storageDriver": f.driver,
			"cgroupDriver": f.cgroupDriver, "apparmor": f.apparmor, "selinux": f.selinux, "cdi": f.cdi,
		}
	}
	b, err := json.Marshal(config)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode verbose status: %v", err)
	}
	return map[string]string{"config": string(b)}, nil
}

// skippedNetworks says which network configurations were passed over, and why.
func skippedNetworks(all []error) []string {
	out := make([]string, len(all))
	for i, err := range all {
		out[i] = err.Error()
	}
	return out
}

// RuntimeConfig implements the RuntimeService.
func (s *server) RuntimeConfig(ctx context.Context, _ *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	f, err := s.currentFacts(ctx, time.Second)
	if err != nil {
		return nil, err
	}
	linux := &runtimeapi.LinuxRuntimeConfiguration{}
	switch f.cgroupDriver {
	case "systemd":
		linux.CgroupDriver = runtimeapi.CgroupDriver_SYSTEMD
	case "cgroupfs":
		linux.CgroupDriver = runtimeapi.CgroupDriver_CGROUPFS
	default:
		return nil, status.Errorf(codes.FailedPrecondition,
			"docker engine: cgroup driver %q: a kubelet needs cgroupfs or systemd (exec-opts native.cgroupdriver)", f.cgroupDriver)
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: linux}, nil
}

// UpdateRuntimeConfig implements the RuntimeService. The pod CIDR goes to CNI
// plugins that declare the capability for it. A kubelet tells it only when it
// changes, so it is on disk before the answer.
func (s *server) UpdateRuntimeConfig(_ context.Context, r *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	cidr := r.GetRuntimeConfig().GetNetworkConfig().GetPodCidr()
	if cidr == "" {
		return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
	}
	if err := s.pods.net.SetPodCIDR(cidr); err != nil {
		if errors.Is(err, cni.ErrInvalid) {
			return nil, invalid("runtime_config.network_config.pod_cidr", "%v", err)
		}
		return nil, s.fail(err, "pod_cidr")
	}
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}
