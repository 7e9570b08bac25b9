package docker

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/image"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateContainer implements the RuntimeService. Its one lasting effect is
// found again by the operation's label, so there is no step to record.
func (s *server) CreateContainer(ctx context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	if err := checkCreate(r); err != nil {
		return nil, err
	}
	f, err := s.usableFacts(ctx)
	if err != nil {
		return nil, err
	}
	sandbox, err := s.runningSandbox(ctx, r)
	if err != nil {
		return nil, err
	}
	spec, err := translateContainer(r, sandbox, f, s.node)
	if err != nil {
		return nil, err
	}
	if err := s.checkTarget(ctx, spec.targetID, sandbox.id); err != nil {
		return nil, err
	}
	img, err := s.imageFor(ctx, r.GetConfig().GetImage().GetImage())
	if err != nil {
		return nil, err
	}
	if err := makeHostPaths(spec.hostPaths); err != nil {
		return nil, err
	}
	op := s.ops.begin(journalIn(ctx))
	var id string
	if err := safely(func() (err error) {
		if id, err = s.create(ctx, spec, img, op); err != nil {
			return err
		}
		return s.stays(sandbox.id)
	}); err != nil {
		return nil, s.undoCreate(ctx, op, id != "", err)
	}
	s.settled(ctx, id)
	s.made(op, id)
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

// create makes the container.
func (s *server) create(ctx context.Context, spec *containerSpec, img image.InspectResponse, op string) (string, error) {
	if err := spec.finish(img, op, time.Now()); err != nil {
		return "", err
	}
	return s.createNamed(ctx, spec.config, spec.host, spec.id.name())
}

// undoCreate makes sure that a failed creation leaves nothing behind, of which
// it may be known that it was made. It returns cause, and what could not be
// undone.
func (s *server) undoCreate(ctx context.Context, op string, made bool, cause error) error {
	if !made && !uncertain(cause) {
		s.ops.set(op, opUndone)
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	if err := s.undoByLabel(ctx, op, nil); err != nil {
		s.ops.set(op, opUnfinished)
		return status.Errorf(status.Code(cause), "%s; and whether it was made is not known: %v", status.Convert(cause).Message(), err)
	}
	s.ops.set(op, opUndone)
	return cause
}

// runningSandbox returns the sandbox that a container is to be made in.
func (s *server) runningSandbox(ctx context.Context, r *runtimeapi.CreateContainerRequest) (podSandbox, error) {
	f, err := s.lookUp(ctx, typeSandbox, "pod_sandbox_id", r.GetPodSandboxId())
	if err != nil {
		return podSandbox{}, err
	}
	if !f.State.Running {
		return podSandbox{}, status.Errorf(codes.FailedPrecondition, "sandbox %s does not run: make another", f.ID)
	}
	if uid := r.GetSandboxConfig().GetMetadata().GetUid(); uid != "" && uid != f.uid {
		return podSandbox{}, invalid("sandbox_config.metadata.uid", "%q: sandbox %s is that of pod %q", uid, f.ID, f.uid)
	}
	return podSandbox{id: f.ID, object: f.object, hostNetwork: f.HostConfig.NetworkMode.IsHost()}, nil
}

// checkTarget makes sure that a pid namespace is only joined within the pod.
func (s *server) checkTarget(ctx context.Context, target, sandbox string) error {
	if target == "" {
		return nil
	}
	const field = "config.linux.security_context.namespace_options.target_id"
	f, err := s.lookUp(ctx, typeContainer, field, target)
	if status.Code(err) == codes.NotFound {
		return invalid(field, "%q: there is no such container", target)
	}
	if err != nil {
		return err
	}
	if f.sandboxID != sandbox {
		return invalid(field, "%q: the container belongs to another pod", target)
	}
	return nil
}

// imageFor returns the image that a container is made from.
func (s *server) imageFor(ctx context.Context, ref string) (image.InspectResponse, error) {
	img, ok, err := s.findImage(ctx, ref)
	if err != nil {
		return img, err
	}
	if !ok {
		return img, status.Errorf(codes.NotFound, "image %q is not in the docker engine: pull it first", ref)
	}
	return img, nil
}

// makeHostPaths makes directories for mounts of paths that do not exist, as
// containerd and CRI-O do and pods rely on.
func makeHostPaths(paths []string) error {
	for _, p := range paths {
		if _, err := os.Stat(p); !os.IsNotExist(err) {
			continue // what else is wrong with it, the mount will tell
		}
		if err := os.MkdirAll(p, 0o755); err != nil {
			return status.Errorf(codes.FailedPrecondition, "mount of %s: it does not exist and cannot be made: %v", strings.TrimSpace(p), err)
		}
	}
	return nil
}
