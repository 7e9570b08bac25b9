package docker

import (
	"context"
	"errors"
	"fmt"
	"path"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/cni"
)

// stopAgain is the grace in seconds of a stop that is carried out again: how much of the
// first one's was left is not known.
const stopAgain = 10

// Recover implements [backends.Recoverer]. What was being created is undone,
// a start is observed, and what was being stopped or removed is carried out
// again. Until it has succeeded, what the operation made is never ready.
func (b *Backend) Recover(ctx context.Context, op backends.Unfinished, _ backends.Journal) (backends.Recovered, error) {
	s := b.srv
	s.ops.set(op.Op, opUnfinished)
	method := path.Base(op.Method)
	if err := s.api.ensure(ctx); err != nil {
		return backends.Recovered{}, s.fail(err, "recover %s", method)
	}
	out, err := s.recover(ctx, method, op)
	if err != nil {
		return backends.Recovered{}, s.fail(err, "recover %s", method)
	}
	s.ops.set(op.Op, opUndone)
	if out.Code == codes.OK {
		s.ops.set(op.Op, opDone)
	}
	return out, nil
}

func (s *server) recover(ctx context.Context, method string, op backends.Unfinished) (backends.Recovered, error) {
	switch method {
	case "RunPodSandbox", "CreateContainer":
		if err := s.undoByLabel(ctx, op.Op, op.Steps); err != nil {
			return backends.Recovered{}, err
		}
		return aborted("undone after a crash: ask again"), nil
	case "StartContainer":
		return s.observeStart(ctx, op.ContainerID)
	case "StopContainer":
		_, err := s.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: op.ContainerID, Timeout: stopAgain})
		return again(err)
	case "RemoveContainer":
		_, err := s.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: op.ContainerID})
		return again(err)
	case "StopPodSandbox":
		return again(s.onQuietSandbox(ctx, op.SandboxID, s.stopSandbox))
	case "RemovePodSandbox":
		return again(s.onQuietSandbox(ctx, op.SandboxID, s.removeSandbox))
	}
	return aborted("cut off by a crash: what it did stands, ask again"), nil
}

// onQuietSandbox is onSandbox after the plugins that a crash left running for
// the sandbox have ended: two DELs at once undo each other's work.
func (s *server) onQuietSandbox(ctx context.Context, id string, do func(context.Context, *found) error) error {
	return s.onSandbox(ctx, id, func(ctx context.Context, f *found) error {
		if err := s.pods.net.Quiesce(ctx, f.ID); err != nil {
			return fmt.Errorf("end the network plugins of sandbox %s: %w", f.ID, err)
		}
		return do(ctx, f)
	})
}

func aborted(why string) backends.Recovered {
	return backends.Recovered{Code: codes.Aborted, Message: why}
}

// again is the result of an operation that was carried out a second time. What
// is refused now was refused then, and is owed to nobody.
func again(err error) (backends.Recovered, error) {
	if status.Code(err) == codes.InvalidArgument {
		return aborted(status.Convert(err).Message()), nil
	}
	if err != nil {
		return backends.Recovered{}, err
	}
	return backends.Recovered{Code: codes.OK, Message: "carried out again after a crash"}, nil
}

// observeStart tells whether a container was started.
func (s *server) observeStart(ctx context.Context, id string) (backends.Recovered, error) {
	f, err := s.lookUp(ctx, typeContainer, "container_id", id)
	switch status.Code(err) {
	case codes.NotFound, codes.InvalidArgument:
		return aborted("there is no such container"), nil
	}
	if err != nil {
		return backends.Recovered{}, err
	}
	if engineTime(f.State.StartedAt).IsZero() {
		return aborted("the container was not started: ask again"), nil
	}
	// The crash may have come before it had all its limits.
	if err := s.applySettings(ctx, f); err != nil {
		if uncertain(err) {
			return backends.Recovered{}, err
		}
		return aborted(status.Convert(err).Message()), nil
	}
	if err := s.logs.follow(f); err != nil {
		return backends.Recovered{}, err
	}
	return backends.Recovered{Code: codes.OK, Message: "found started after a crash"}, nil
}

// undoByLabel removes whatever op made: what carries its label, and the
// networks that its steps tell of, even where the container has vanished.
func (s *server) undoByLabel(ctx context.Context, op string, steps []backends.Step) error {
	made, err := s.madeBy(ctx, op)
	if err != nil {
		return err
	}
	plans, err := plansOf(steps)
	if err != nil {
		return err
	}
	for _, o := range made {
		if o.kind == typeSandbox {
			if err := s.undoNetwork(ctx, o.ID, plans[o.ID]); err != nil {
				return err
			}
			if err := s.pods.kept.Remove(o.ID); err != nil {
				return err
			}
		}
		if err := s.removeNow(ctx, o.ID); err != nil {
			return fmt.Errorf("remove container %s: %w", o.ID, err)
		}
		delete(plans, o.ID)
		s.pods.forget(o.ID)
	}
	for id, plan := range plans {
		if err := s.undoNetwork(ctx, id, plan); err != nil {
			return err
		}
		if err := s.pods.kept.Remove(id); err != nil {
			return err
		}
		s.pods.forget(id)
	}
	return nil
}

// madeBy returns what carries the operation's label.
func (s *server) madeBy(ctx context.Context, op string) ([]listed, error) {
	all, err := s.engine.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelOp+"="+op)),
	})
	if err != nil {
		return nil, err
	}
	var made []listed
	for _, c := range all {
		// An image's label makes nothing ours.
		if o, ok := decodeSummary(c); ok && o.op == op {
			made = append(made, listed{Summary: c, object: o})
		}
	}
	return made, nil
}

// plansOf returns the network plans that steps tell of, by sandbox.
func plansOf(steps []backends.Step) (map[string]*cni.Plan, error) {
	plans := map[string]*cni.Plan{}
	for _, st := range steps {
		if st.Name != stepCreated || len(st.Data) == 0 {
			continue
		}
		p, err := cni.ParsePlan(st.Data)
		if err != nil {
			return nil, fmt.Errorf("step %s of sandbox %s: %w", st.Name, st.ID, err)
		}
		plans[st.ID] = p
	}
	return plans, nil
}

// undoNetwork ends plugins that a crash left running and takes the network
// away again. Without a plan and without a cached result there was no ADD.
func (s *server) undoNetwork(ctx context.Context, id string, plan *cni.Plan) error {
	if err := s.pods.net.Quiesce(ctx, id); err != nil {
		return fmt.Errorf("end the network plugins of sandbox %s: %w", id, err)
	}
	if plan == nil {
		cached, _, ok, err := s.pods.net.Cached(id)
		if err != nil {
			return fmt.Errorf("network of sandbox %s: %w", id, err)
		}
		if !ok {
			return s.pods.pins.unpin(id)
		}
		plan = cached
	}
	pid := 0
	c, err := s.engine.ContainerInspect(ctx, id)
	switch {
	case err == nil:
		pid = c.State.Pid
	case !cerrdefs.IsNotFound(err):
		return fmt.Errorf("inspect sandbox %s: %w", id, err)
	}
	if err := s.pods.del(ctx, plan, pid); err != nil {
		// It must never look ready while the DEL is owed.
		return errors.Join(err, s.kill(ctx, id))
	}
	return nil
}
