package docker

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdatePodSandboxResources implements the RuntimeService. It announces to
// runtimes that keep a pod in a virtual machine what its size will be. Here
// the pod's cgroup is the kubelet's own, which it writes after this call, and
// the infra process needs nothing: there is nothing to do, and any error but
// Unimplemented would reject the pod's resize.
func (s *server) UpdatePodSandboxResources(ctx context.Context, r *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	if _, err := s.seen(ctx, typeSandbox, "pod_sandbox_id", r.GetPodSandboxId()); err != nil {
		return nil, err
	}
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}
