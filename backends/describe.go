package backends

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// LabelRehearsal is the label of the sandboxes and containers that a rehearsal
// has made; its value is the rehearsal's id. They are not the kubelet's, and no
// request of its own may carry the label.
const LabelRehearsal = "crimux.dev/rehearsal"

// Describer is a backend that can tell what a pod was made with: what the log
// does not keep, as far as the runtime has kept it. It may hold secrets, and
// is neither recorded nor answered to the kubelet.
type Describer interface {
	// DescribeSandbox returns what is left of a RunPodSandbox.
	DescribeSandbox(ctx context.Context, id string) (SandboxDescription, error)
	// DescribeContainer returns what is left of a CreateContainer.
	DescribeContainer(ctx context.Context, id string) (ContainerDescription, error)
	// SandboxPID returns the process that holds a sandbox's namespaces.
	SandboxPID(ctx context.Context, id string) (int, error)
}

// SandboxDescription is what a sandbox was made with.
type SandboxDescription struct {
	Config *runtimeapi.PodSandboxConfig
	// Unknown names the fields of it that the runtime cannot tell.
	Unknown []string
}

// ContainerDescription is what a container was made with.
type ContainerDescription struct {
	Config *runtimeapi.ContainerConfig
	// Unknown names the fields of it that the runtime cannot tell.
	Unknown []string
}
