package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store/eventpb"
)

// lookAgain lies between two looks at a container that is to end.
const lookAgain = 200 * time.Millisecond

// operationBound bounds one operation of a rehearsal: a kubelet waits no longer.
const operationBound = 4 * time.Minute

// errRefused ends a rehearsal whose pod the backend does not take: that is a
// result, not a failure.
var errRefused = errors.New("refused")

// carryOut makes the pod on the target. Whatever it has made is noted.
func (r *rehearsal) carryOut(ctx context.Context) error {
	pod := r.sandboxConfig()
	if err := r.runSandbox(ctx, pod); err != nil {
		return unless(err, errRefused)
	}
	if r.req.Level == LevelStart && !r.req.Network {
		if err := r.linksDown(ctx); err != nil {
			return err
		}
	}
	running := make(map[string]string)
	for _, ctr := range r.source.containers {
		id, err := r.container(ctx, pod, ctr)
		if errors.Is(err, errRefused) {
			continue
		}
		if err != nil {
			return err
		}
		if id != "" {
			running[ctr.record.GetName()] = id
		}
	}
	return r.settle(ctx, running)
}

func unless(err, result error) error {
	if errors.Is(err, result) {
		return nil
	}
	return err
}

// handler is what the target is told for the pods that come to it.
func (r *rehearsal) handler() string {
	for _, rule := range r.s.config.Routes {
		if rule.Backend == r.target.Name() {
			return rule.BackendHandler
		}
	}
	if m := r.s.config.Migration; m.To == r.target.Name() {
		return m.BackendHandler
	}
	return ""
}

func (r *rehearsal) runSandbox(ctx context.Context, pod *runtimeapi.PodSandboxConfig) error {
	m := methods[runtimeapi.RuntimeService_RunPodSandbox_FullMethodName]
	frame, err := rehearsalFrame(&runtimeapi.RunPodSandboxRequest{Config: pod, RuntimeHandler: r.handler()})
	if err != nil {
		return err
	}
	config := wire.Message(frame.Bytes()).Msg(1)
	p := r.source.sandbox.GetPod()
	c := &call{method: m, frame: frame, target: r.target, intent: r.s.sandboxIntent(m, config, keyOf(config.Msg(1)), policy.Route{
		Backend: r.target.Name(), BackendHandler: r.handler(),
		Rule: fmt.Sprintf("rehearsal of %s/%s", p.GetNamespace(), p.GetName()),
	})}
	if err := r.s.admit(ctx, m, r.target); err != nil {
		r.report.operation(m.name, "", resultOf(r.source.run), resultNow(err, c, 0))
		return errRefused
	}
	r.say("making a sandbox on %s", r.target.Name())
	r.sandbox, err = r.do(ctx, c, "", r.source.run)
	return err
}

// do carries out an operation and notes how it went. The error is errRefused
// where the backend said no, and what kept it from saying anything otherwise.
func (r *rehearsal) do(ctx context.Context, c *call, container string, recorded *eventpb.Outcome) (id string, err error) {
	if ctx.Err() != nil {
		return "", status.FromContextError(ctx.Err()).Err()
	}
	began := time.Now()
	// Once begun it is brought to its end, also when the rehearsal is ended
	// meanwhile: what is half made cannot be found and undone.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationBound)
	defer cancel()
	a, err := r.s.send(whole, c)
	if whole.Err() != nil || status.Code(err) == codes.Unavailable {
		r.s.rehearsals.owe(r.target.Name())
		return "", err
	}
	r.report.operation(c.method.name, container, resultOf(recorded), resultNow(err, c, took(began)))
	if err != nil {
		r.say("%s %s: %s", c.method.name, container, clean(status.Convert(err).Message(), c))
		return "", errRefused
	}
	if returnsID(c.method) {
		id = wire.Message(a.Body.Bytes()).String(idField)
		r.s.rehearsals.note(id)
	}
	a.Body.Free()
	return id, nil
}

// resultNow is how an operation went, with what is recorded nowhere struck out.
func resultNow(err error, c *call, nanoseconds int64) *Result {
	st := status.Convert(err)
	return &Result{Code: st.Code().String(), Message: clean(st.Message(), c), Nanoseconds: nanoseconds}
}

// container makes one container, and starts it where that was asked for and
// recorded. The id is "" unless it must go on running.
func (r *rehearsal) container(ctx context.Context, pod *runtimeapi.PodSandboxConfig, ctr *sourceContainer) (string, error) {
	name := ctr.record.GetName()
	config := r.containerConfig(ctr)
	if err := r.bringImage(ctx, pod, config); err != nil {
		return "", err
	}
	m := methods[runtimeapi.RuntimeService_CreateContainer_FullMethodName]
	frame, err := rehearsalFrame(&runtimeapi.CreateContainerRequest{PodSandboxId: r.sandbox, Config: config, SandboxConfig: pod})
	if err != nil {
		return "", err
	}
	in := sandboxCallIntent(m, r.sandbox, r.s.knownSandbox(r.sandbox))
	r.s.containerIntent(in, wire.Message(frame.Bytes()).Msg(2))
	r.say("making container %s", name)
	id, err := r.do(ctx, &call{method: m, frame: frame, target: r.target, intent: in}, name, ctr.create)
	if err != nil {
		return "", err
	}
	was := endOf(ctr.record)
	if r.req.Level != LevelStart || !r.mayStart(name, config, was) {
		r.report.Containers = append(r.report.Containers, RehearsedContainer{Name: name, Recorded: was})
		return "", nil
	}
	return r.start(ctx, ctr, id, was)
}

// mayStart tells whether a container may be started, and notes why not.
func (r *rehearsal) mayStart(name string, config *runtimeapi.ContainerConfig, was ContainerEnd) bool {
	switch {
	case was.State != endRunning && was.State != endExited:
		r.note("%s was not started, since it is %s in the recording", name, was.State)
		return false
	case !r.req.Network && mayOpenNetwork(config):
		r.note("%s was not started, since it may set the network up by itself: --network starts it", name)
		return false
	}
	return true
}

func (r *rehearsal) start(ctx context.Context, ctr *sourceContainer, id string, was ContainerEnd) (string, error) {
	name := ctr.record.GetName()
	m := methods[runtimeapi.RuntimeService_StartContainer_FullMethodName]
	known := r.s.knownContainer(id)
	c := &call{
		method: m, frame: backends.NewFrame(byID(id)), target: r.target,
		intent: containerCallIntent(m, id, known, r.s.knownSandbox(r.sandbox)),
	}
	r.say("starting container %s", name)
	if _, err := r.do(ctx, c, name, ctr.start); err != nil {
		return "", err
	}
	if was.State == endRunning {
		return id, nil
	}
	r.say("waiting for the end of container %s", name)
	now, err := r.await(ctx, id, r.req.Timeout)
	if err != nil {
		return "", err
	}
	r.compare(ctr, was, now)
	return "", nil
}

// settle looks whether what has to run goes on running.
func (r *rehearsal) settle(ctx context.Context, running map[string]string) error {
	if len(running) == 0 {
		return nil
	}
	r.say("looking whether it goes on running for %s", min(rehearsalSettle, r.req.Timeout))
	until := time.Now().Add(min(rehearsalSettle, r.req.Timeout))
	for _, ctr := range r.source.containers {
		id := running[ctr.record.GetName()]
		if id == "" {
			continue
		}
		now, err := r.await(ctx, id, time.Until(until))
		if err != nil {
			return err
		}
		r.compare(ctr, endOf(ctr.record), now)
	}
	return nil
}

// compare notes how a container is beside how it was.
func (r *rehearsal) compare(ctr *sourceContainer, was, now ContainerEnd) {
	name := ctr.record.GetName()
	r.report.Containers = append(r.report.Containers, RehearsedContainer{Name: name, Recorded: was, Rehearsed: &now})
	switch {
	case was.same(now):
	case ctr.gone:
		r.note("%s: its end is not compared, since its command is not known", name)
	case was.State == endExited && now.State == endRunning:
		r.report.differ("%s has %s, and still runs after %s", name, was, r.req.Timeout)
	case was.State == endExited:
		r.report.differ("%s has %s, and has now %s", name, was, now)
	default:
		r.report.differ("%s is %s, and has now %s", name, was, now)
	}
}

// await returns how a container is once it has ended, or after the time.
func (r *rehearsal) await(ctx context.Context, id string, limit time.Duration) (ContainerEnd, error) {
	until := time.Now().Add(limit)
	for {
		a, err := read(ctx, r.target, runtimeapi.RuntimeService_ContainerStatus_FullMethodName, backends.NewFrame(byID(id)))
		if err != nil {
			return ContainerEnd{}, err
		}
		st := wire.Message(a.Body.Bytes()).Msg(1)
		c := &eventpb.Container{State: containerState(st.Int(3))}
		withStatus(c, st)
		a.Body.Free()
		if now := endOf(c); now.State == endExited || time.Now().After(until) {
			return now, nil
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return ContainerEnd{}, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// bringImage makes sure that the target has a container's image: it is copied
// from the node's other runtimes, and pulled only if that was asked for.
func (r *rehearsal) bringImage(ctx context.Context, pod *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) error {
	frame, err := rehearsalFrame(&runtimeapi.CreateContainerRequest{Config: config, SandboxConfig: pod})
	if err != nil {
		return err
	}
	w := imageWanted(wire.Message(frame.Bytes()))
	if have := firstOn(ctx, r.target, w.refs()); have != "" {
		config.Image.Image = have
		return nil
	}
	r.say("copying the image %s to %s", w.refs()[len(w.refs())-1], r.target.Name())
	got, err := r.s.fly(ctx, joinKey(stepImageCopied, r.target.Name(), w.asked, w.name, 0), func(ctx context.Context) (brought, error) {
		return r.s.copyFromAny(ctx, r.target, w)
	})
	if err != nil && r.req.Pull && ctx.Err() == nil {
		r.say("pulling the image %s", w.name)
		got, err = r.s.pullAgain(ctx, r.target, w, true)
	}
	if err != nil {
		return status.Errorf(codes.FailedPrecondition, "backend %q lacks the image %s, and it could not be brought there (%v): "+
			"pull it there, or add --pull", r.target.Name(), valid(w.asked), err)
	}
	if got.step != "" {
		r.note("the image %s stays on %s: a pod that begins there meanwhile may use it", valid(got.what), r.target.Name())
	}
	config.Image.Image = got.ref
	return nil
}

func (r *rehearsal) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

// rehearsalFrame is a request as a frame.
func rehearsalFrame(m proto.Message) (*backends.Frame, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode a request of the rehearsal: %v", err)
	}
	return backends.NewFrame(b), nil
}
