package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/cni"
)

// stepCreated is the step of a sandbox that is made and about to get its
// network: its data is the CNI plan, or nothing for the host's network.
const stepCreated = "sandbox.created"

// Steps of a pod's network, with its addresses or the sandbox's id. Nothing is
// undone by them: they are on disk with the outcome.
const (
	stepAttached = "network.attached"
	stepDetached = "network.detached"
)

// undoBound is how long undoing may take, counted from the failure: what ended
// the operation's own context must not end this.
const undoBound = time.Minute

// RunPodSandbox implements the RuntimeService.
//
//	translate → plan → image → create → start → step → resolv.conf → ADD
//
// Nothing has an effect before everything is known to be translatable. The
// step is on disk before the ADD. A failure undoes what was done in reverse.
func (s *server) RunPodSandbox(ctx context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	f, err := s.usableFacts(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := translateSandbox(r, f, s.node)
	if err != nil {
		return nil, err
	}
	run := &sandboxRun{server: s, spec: spec, journal: journalIn(ctx)}
	if spec.attach != nil {
		run.plan, err = s.pods.net.Plan(*spec.attach)
		if err != nil {
			return nil, s.fail(err, "network of pod %s/%s", spec.id.namespace, spec.id.pod)
		}
	}
	run.op = s.ops.begin(run.journal)
	if err := safely(func() error { return run.do(ctx) }); err != nil {
		return nil, run.undo(ctx, err)
	}
	s.made(run.op, run.id)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: run.id}, nil
}

// sandboxRun is one RunPodSandbox under way.
type sandboxRun struct {
	*server
	spec    *sandboxSpec
	journal backends.Journal
	op      string
	plan    *cni.Plan // nil on the host's network

	tried bool   // the container may have been made
	id    string // set once we know that it was
	pid   int    // of the infra process, once it runs
	added bool   // the ADD was tried
	// checkpoint waits until the checkpoint is written; nil before that began.
	checkpoint func() error
}

// do makes the sandbox.
func (r *sandboxRun) do(ctx context.Context) error {
	if err := r.create(ctx); err != nil {
		return err
	}
	if err := r.engine.ContainerStart(ctx, r.id, container.StartOptions{}); err != nil {
		return r.fail(err, "start the infra container of sandbox %s", r.id)
	}
	c, err := r.inspect(ctx, typeSandbox, r.id)
	if err != nil {
		return err
	}
	if !c.State.Running || c.State.Pid <= 0 {
		return status.Errorf(codes.Internal, "the infra container of sandbox %s ended at once, exit code %d: check the pod infra image %s",
			r.id, c.State.ExitCode, c.Config.Image)
	}
	r.pid = c.State.Pid
	durable, err := r.record()
	if err != nil {
		return err
	}
	if r.spec.resolvConf != "" {
		if err := writeInPlace(c.ResolvConfPath, r.spec.resolvConf); err != nil {
			return r.fail(err, "dns_config of sandbox %s", r.id)
		}
	}
	if err := durable(ctx); err != nil {
		return r.fail(err, "record sandbox %s", r.id)
	}
	if err := r.checkpoint(); err != nil {
		return r.fail(err, "sandbox %s", r.id)
	}
	if r.plan == nil {
		return nil
	}
	r.added = true
	if err := r.pods.add(ctx, r.plan); err != nil {
		return r.fail(err, "set up the network of sandbox %s", r.id)
	}
	r.journal.Step(backends.Step{Name: stepAttached, ID: r.pods.addressesText(r.id)})
	return nil
}

// create makes the infra container.
func (r *sandboxRun) create(ctx context.Context) error {
	img, err := r.infra.ensure(ctx)
	if err != nil {
		return r.fail(err, "pod infra image")
	}
	if err := r.spec.finish(img, r.op, time.Now()); err != nil {
		return err
	}
	r.tried = true
	if r.id, err = r.createNamed(ctx, r.spec.config, r.spec.host, r.spec.id.name()); err != nil {
		return err
	}
	r.checkpoint = async(func() error { return r.pods.keep(r.id, r.spec) })
	return nil
}

// async does something meanwhile; wait returns how it ended.
func async(do func() error) (wait func() error) {
	ended := make(chan error, 1)
	go func() { ended <- safely(do) }()
	return sync.OnceValue(func() error { return <-ended })
}

// record queues the step that undoing needs. The network namespace exists by
// now and is kept, so that the plan can say which it is.
func (r *sandboxRun) record() (durable func(context.Context) error, err error) {
	step := backends.Step{Name: stepCreated, ID: r.id}
	if r.plan != nil {
		netns, err := r.pods.pins.pin(r.id, r.pid)
		if err != nil {
			return nil, r.fail(err, "network of sandbox %s", r.id)
		}
		if r.plan, err = r.plan.For(r.id, netns); err != nil {
			return nil, r.fail(err, "network of sandbox %s", r.id)
		}
		if step.Data, err = r.plan.Marshal(); err != nil {
			return nil, r.fail(err, "network of sandbox %s", r.id)
		}
	}
	return r.journal.Step(step), nil
}

// undo takes back what was done. It returns cause, and what could not be
// undone.
func (r *sandboxRun) undo(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	err := r.takeBack(ctx, cause)
	if err == nil {
		r.ops.set(r.op, opUndone)
		return cause
	}
	r.ops.set(r.op, opUnfinished)
	what := "what was made of it"
	if r.id != "" {
		what = "sandbox " + r.id
	}
	return status.Errorf(status.Code(cause), "%s; and it could not be undone: %v; %s stays NOTREADY until it is stopped and removed",
		status.Convert(cause).Message(), err, what)
}

// takeBack undoes in reverse.
func (r *sandboxRun) takeBack(ctx context.Context, cause error) error {
	if r.id == "" {
		if r.tried && uncertain(cause) {
			return r.undoByLabel(ctx, r.op, nil)
		}
		return nil
	}
	if r.checkpoint != nil {
		// What came of it is the cause, or no matter: it goes again.
		_ = r.checkpoint()
	}
	if r.added {
		if err := r.pods.del(ctx, r.plan, r.pid); err != nil {
			// It stays, so that the DEL can be tried again, but it must never
			// look ready.
			return errors.Join(err, r.kill(ctx, r.id))
		}
	}
	if err := errors.Join(r.pods.pins.unpin(r.id), r.pods.kept.Remove(r.id), r.removeNow(ctx, r.id)); err != nil {
		return err
	}
	r.pods.forget(r.id)
	return nil
}

// kill ends a container that must never look ready again.
func (s *server) kill(ctx context.Context, id string) error {
	err := ignoreGone(s.engine.ContainerKill(ctx, id, "KILL"))
	s.settled(ctx, id)
	return err
}

// removeNow removes a container whatever it does, and forgets it. That it is
// gone already is as good.
//
// The Engine lists a container before it has one of that id. So one that it does
// not have, and that nobody has seen, is not remembered as gone: it may come, and
// an event will tell of it.
func (s *server) removeNow(ctx context.Context, id string) error {
	err := s.removeFromEngine(ctx, id)
	if cerrdefs.IsNotFound(err) && s.cache.peek(id) == nil {
		return nil
	}
	if err := ignoreGone(err); err != nil {
		return err
	}
	s.forget(id)
	return nil
}

// removeFromEngine removes a container, or waits until somebody else has.
func (s *server) removeFromEngine(ctx context.Context, id string) error {
	for {
		err := s.engine.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if !cerrdefs.IsConflict(err) {
			return err
		}
		// Somebody else is removing it.
		gone, failed := s.engine.ContainerWait(ctx, id, container.WaitConditionRemoved)
		select {
		case end := <-gone:
			if end.Error == nil {
				return nil
			}
			// They have failed, and it is still there: now it is on us.
		case err := <-failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("remove container %s: another removal is in progress: %w", id, ctx.Err())
		}
	}
}

// ignoreGone turns "there is no such thing" and "it does not run" into success.
func ignoreGone(err error) error {
	if cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) {
		return nil
	}
	return err
}

// writeInPlace replaces the content of a file that is bind mounted into
// containers: a new file under the same name would not be seen there.
func writeInPlace(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}
