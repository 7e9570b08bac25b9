package docker

import (
	"context"

	"github.com/docker/docker/api/types/container"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdateContainerResources implements the RuntimeService. What is 0 or empty
// stays as it is. annotations change nothing.
func (s *server) UpdateContainerResources(ctx context.Context, r *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	if r.GetWindows() != nil {
		return nil, refused("windows", "this is a Linux node")
	}
	if r.GetLinux() == nil {
		return nil, invalid("linux", "is required")
	}
	resources, err := translateResources("linux", r.GetLinux())
	if err != nil {
		return nil, err
	}
	f, err := s.lookUp(ctx, typeContainer, "container_id", r.GetContainerId())
	if err != nil {
		return nil, err
	}
	score, err := oomScore("linux.oom_score_adj", r.GetLinux().GetOomScoreAdj(), s.node.oomFloor)
	if err != nil {
		return nil, err
	}
	if r.GetLinux().GetOomScoreAdj() != 0 && score != f.HostConfig.OomScoreAdj {
		return nil, refused("linux.oom_score_adj", "the docker engine cannot change that of a container")
	}
	if _, err := s.engine.ContainerUpdate(ctx, f.ID, container.UpdateConfig{Resources: resources}); err != nil {
		return nil, s.fail(err, "update container %s", f.ID)
	}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}
