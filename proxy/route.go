package proxy

import (
	"context"
	"errors"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// route finds the backend of a call and builds what is recorded of it.
func (s *Server) route(ctx context.Context, m *method, frame *backends.Frame) (*call, error) {
	switch m.class {
	case byHandler:
		return s.routeNew(ctx, m, frame)
	case bySandbox:
		return s.routeSandbox(ctx, m, frame)
	default:
		return s.routeContainer(ctx, m, frame)
	}
}

// placement are the fields that a request for a new sandbox is placed by.
type placement struct{ config, handler protowire.Number }

var placements = map[string]placement{
	runtimeapi.RuntimeService_RunPodSandbox_FullMethodName: {config: 1, handler: 2},
	runtimeapi.RuntimeService_RestorePod_FullMethodName:    {config: 2, handler: 3},
}

// routeNew lets the policy place a new sandbox.
func (s *Server) routeNew(ctx context.Context, m *method, frame *backends.Frame) (*call, error) {
	req := wire.Message(frame.Bytes())
	at := placements[m.full]
	pod, err := podKey(m, req, at.config)
	if err != nil {
		return nil, err
	}
	r, err := s.decide(pod, req.String(at.handler))
	if err != nil {
		return nil, err
	}
	target := s.set.Get(r.Backend)
	if target == nil {
		return nil, status.Errorf(codes.FailedPrecondition, "%s: backend %q is not in the configuration", m.name, r.Backend)
	}
	if err := s.admit(ctx, m, target); err != nil {
		return nil, err
	}
	c := &call{
		method: m,
		frame:  replaced(frame, req.With(r.BackendHandler, at.handler)),
		target: target,
		intent: s.sandboxIntent(m, req.Msg(at.config), pod, r),
		key:    joinKey(m.name, pod.Namespace, pod.Name, pod.Uid, pod.Attempt),
	}
	if m.full == runtimeapi.RuntimeService_RunPodSandbox_FullMethodName {
		c.earlier = func(ctx context.Context) (backends.Answer, bool) { return s.earlierSandbox(ctx, pod) }
	}
	return c, nil
}

// podKey reads the metadata of a sandbox config and refuses what names no pod.
func podKey(m *method, req wire.Message, config protowire.Number) (*eventpb.PodKey, error) {
	if !req.Has(config) {
		return nil, status.Errorf(codes.InvalidArgument, "%s: config is missing", m.name)
	}
	if !req.Msg(config).Has(1) {
		return nil, status.Errorf(codes.InvalidArgument, "%s: config.metadata is missing", m.name)
	}
	if err := noRehearsalLabel(m, req.Msg(config).Map(6)); err != nil {
		return nil, err
	}
	meta := req.Msg(config).Msg(1)
	for _, f := range []struct{ name, value string }{{"name", meta.String(1)}, {"uid", meta.String(2)}, {"namespace", meta.String(3)}} {
		if f.value == "" {
			return nil, status.Errorf(codes.InvalidArgument, "%s: config.metadata.%s is empty", m.name, f.name)
		}
		if !utf8.ValidString(f.value) {
			return nil, status.Errorf(codes.InvalidArgument, "%s: config.metadata.%s is not UTF-8: %q", m.name, f.name, f.value)
		}
	}
	return keyOf(meta), nil
}

// decide asks the policy about a new sandbox.
func (s *Server) decide(pod *eventpb.PodKey, handler string) (r policy.Route, err error) {
	s.log.View(func(st *store.State) {
		r, err = policy.Decide(
			policy.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.Uid, Handler: handler},
			view{st}, s.config)
	})
	var unknown *policy.UnknownHandlerError
	switch {
	case err == nil:
		return r, nil
	case errors.As(err, &unknown):
		return r, status.Error(codes.InvalidArgument, err.Error())
	default:
		return r, status.Error(codes.FailedPrecondition, err.Error())
	}
}

// routeSandbox sends a call to the backend that has the sandbox.
func (s *Server) routeSandbox(ctx context.Context, m *method, frame *backends.Frame) (*call, error) {
	req := wire.Message(frame.Bytes())
	id := req.String(idField)
	if id == "" {
		return s.withoutID(m, frame, "pod_sandbox_id")
	}
	target, sb, err := s.findSandbox(ctx, id)
	if err != nil {
		return nil, err
	}
	c := &call{method: m, frame: frame, target: target, intent: sandboxCallIntent(m, id, sb)}
	switch m.full {
	case runtimeapi.RuntimeService_CreateContainer_FullMethodName:
		return s.routeCreate(c, req, sb)
	case runtimeapi.RuntimeService_PodSandboxStatus_FullMethodName:
		c.rewrite = handlerOut(sb, 1, 9)
	case runtimeapi.RuntimeService_PortForward_FullMethodName:
		c.rewrite = absoluteURL
	}
	return c, nil
}

// withoutID answers a call without an id. The kubelet asks for the stats of
// the sandbox "" to learn whether a runtime has them: that goes to the
// default, whose answer, Unimplemented or not, is the one it looks for.
func (s *Server) withoutID(m *method, frame *backends.Frame, field string) (*call, error) {
	if m.full == runtimeapi.RuntimeService_PodSandboxStats_FullMethodName {
		return &call{method: m, frame: frame, target: s.defaultBackend()}, nil
	}
	return nil, status.Errorf(codes.InvalidArgument, "%s: %s is empty", m.name, field)
}

// routeCreate completes the route of a CreateContainer in sandbox sb.
func (s *Server) routeCreate(c *call, req wire.Message, sb *eventpb.Sandbox) (*call, error) {
	if !req.Has(2) {
		return nil, status.Errorf(codes.InvalidArgument, "%s: config is missing", c.method.name)
	}
	config := req.Msg(2)
	meta := config.Msg(1)
	if !config.Has(1) || meta.String(1) == "" {
		return nil, status.Errorf(codes.InvalidArgument, "%s: config.metadata is missing or has no name", c.method.name)
	}
	if err := noRehearsalLabel(c.method, config.Map(9)); err != nil {
		return nil, err
	}
	s.containerIntent(c.intent, config)
	c.key = joinKey(c.method.name, c.intent.SandboxId, c.intent.ContainerName, "", c.intent.ContainerAttempt)
	c.frame = replaced(c.frame, handlerIn(req, sb.GetRoute().GetBackendHandler(), 2, 2, imageHandler))
	c.earlier = func(ctx context.Context) (backends.Answer, bool) { return s.earlierContainer(ctx, c) }
	return c, nil
}

// routeContainer sends a call to the backend that has the container.
func (s *Server) routeContainer(ctx context.Context, m *method, frame *backends.Frame) (*call, error) {
	req := wire.Message(frame.Bytes())
	id := req.String(idField)
	if id == "" {
		return s.withoutID(m, frame, "container_id")
	}
	target, ctr, sb, err := s.findContainer(ctx, id)
	if err != nil {
		return nil, err
	}
	c := &call{method: m, frame: frame, target: target, intent: containerCallIntent(m, id, ctr, sb)}
	switch m.full {
	case runtimeapi.RuntimeService_StopContainer_FullMethodName:
		c.intent.Grace = req.Int(2)
	case runtimeapi.RuntimeService_ContainerStatus_FullMethodName:
		c.rewrite = handlerOut(sb, 1, 8, imageHandler)
	case runtimeapi.RuntimeService_Exec_FullMethodName, runtimeapi.RuntimeService_Attach_FullMethodName:
		c.rewrite = absoluteURL
	}
	return c, nil
}

// defaultBackend is where calls go that nothing else places.
func (s *Server) defaultBackend() *backends.Member { return s.set.Get(s.config.Default) }

// replaced returns frame where msg are its bytes, and a new frame otherwise.
func replaced(frame *backends.Frame, msg wire.Message) *backends.Frame {
	return rewritten(frame, func(wire.Message) wire.Message { return msg })
}

// view shows the state to the policy.
type view struct{ st *store.State }

var _ policy.View = view{}

func (v view) Epoch() uint64 { return v.st.Epoch() }

func (v view) Live(uid string) (string, bool) { return v.st.Live(uid) }

func (v view) Decision(uid string) (policy.Decision, bool) {
	r, ok := v.st.Decision(uid)
	if !ok {
		return policy.Decision{}, false
	}
	return policy.Decision{Backend: r.GetBackend(), BackendHandler: r.GetBackendHandler(), Epoch: r.GetEpoch(), Rule: r.GetRule()}, true
}
