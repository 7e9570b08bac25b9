package docker

import (
	"context"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// createNamed makes a container. A container of the same name that is left of
// an operation long undone makes room for it.
func (s *server) createNamed(ctx context.Context, config *container.Config, host *container.HostConfig, name string) (id string, err error) {
	made, err := s.engine.ContainerCreate(ctx, config, host, nil, nil, name)
	if cerrdefs.IsConflict(err) {
		if err := s.makeRoom(ctx, name, err); err != nil {
			return "", err
		}
		made, err = s.engine.ContainerCreate(ctx, config, host, nil, nil, name)
	}
	if err != nil {
		return "", s.fail(err, "create container %s", name)
	}
	return made.ID, nil
}

// makeRoom removes what is left of an undone operation under a name. Any other
// container of that name is somebody's, and is left alone: the error says
// whose.
func (s *server) makeRoom(ctx context.Context, name string, conflict error) error {
	c, err := s.engine.ContainerInspect(ctx, name)
	if cerrdefs.IsNotFound(err) {
		return nil // somebody else has just removed it
	}
	if err != nil {
		return s.fail(conflict, "create container %s", name)
	}
	o, _ := decodeObject(c.Name, c.Config.Labels)
	if s.ops.undone(o.op) {
		if err := s.undoByLabel(ctx, o.op, nil); err != nil {
			return s.fail(err, "create container %s: remove what is left of an earlier attempt", name)
		}
		return nil
	}
	switch s.ops.look(o.op) {
	case hidden, broken:
		return status.Errorf(codes.Aborted, "container %s exists as %s from an attempt that is still being carried out or cleaned up: try again", name, c.ID)
	}
	return status.Errorf(codes.AlreadyExists, "container %s exists as %s (%s): remove it, or ask for another attempt", name, c.ID, c.State.Status)
}

// neverStarted is how old an infra container must be that was never started
// before nobody can be about to start it: a RunPodSandbox and its undoing take
// less, whoever made it.
const neverStarted = runBound + undoBound

// leftover reports whether a container is what came late of a creation that is
// over: the Engine finishes one whose caller has died, and whoever undid it
// had looked too early.
func (s *server) leftover(f *found) bool {
	if f.op == "" {
		return false
	}
	if s.ops.undone(f.op) {
		return true
	}
	return f.kind == typeSandbox && f.State.Status == container.StateCreated && engineTime(f.State.StartedAt).IsZero() &&
		s.ops.look(f.op) == visible && time.Since(time.Unix(0, f.createdAtNanos())) > neverStarted
}

// tidy removes leftovers. What cannot be removed now is met again by the next
// audit.
func (s *server) tidy(ctx context.Context) {
	for _, kind := range []string{typeSandbox, typeContainer} {
		for _, f := range s.cache.all(kind) {
			if ctx.Err() != nil || !s.leftover(f) {
				continue
			}
			err := safely(func() error { return s.undoByLabel(ctx, f.op, nil) })
			if err != nil && ctx.Err() == nil {
				s.log.Warn("what is left of an undone creation cannot be removed", "container", f.ID, "name", f.Name, "error", err)
				continue
			}
			s.log.Info("removed what came late of an undone creation", "container", f.ID, "name", f.Name)
		}
	}
}
