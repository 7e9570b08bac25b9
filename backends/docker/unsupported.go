package docker

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// noCheckpoint is why nothing is checkpointed or restored: the Engine has
// checkpoints as an experiment only, into a folder of its own, while the CRI
// asks for an archive that other runtimes can read.
func noCheckpoint(method string) error {
	return status.Errorf(codes.Unimplemented, "%s: not supported on the docker backend: "+
		"the docker engine's checkpoints are experimental and cannot be written as an archive of the CRI", method)
}

// CheckpointContainer implements the RuntimeService.
func (*server) CheckpointContainer(context.Context, *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	return nil, noCheckpoint("CheckpointContainer")
}

// CheckpointPod implements the RuntimeService.
func (*server) CheckpointPod(context.Context, *runtimeapi.CheckpointPodRequest) (*runtimeapi.CheckpointPodResponse, error) {
	return nil, noCheckpoint("CheckpointPod")
}

// RestorePod implements the RuntimeService.
func (*server) RestorePod(context.Context, *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	return nil, noCheckpoint("RestorePod")
}
