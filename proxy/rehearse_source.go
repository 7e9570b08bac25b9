package proxy

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// source is the pod that is rehearsed: what the log has of it, and what its
// backend tells of what it was made with.
type source struct {
	sandbox *eventpb.Sandbox
	config  backends.SandboxDescription
	// run is the recorded outcome of its RunPodSandbox, nil where there is none.
	run        *eventpb.Outcome
	containers []*sourceContainer
}

// sourceContainer is one container of it, in the newest attempt.
type sourceContainer struct {
	record *eventpb.Container
	config backends.ContainerDescription
	// gone is set where the backend does not have it any more.
	gone          bool
	create, start *eventpb.Outcome
}

// planRehearsal finds everything out that a rehearsal needs, and refuses it
// where that cannot be had.
func (s *Server) planRehearsal(ctx context.Context, req RehearsalRequest) (*rehearsal, error) {
	target := s.set.Get(req.On)
	if target == nil {
		return nil, status.Errorf(codes.NotFound, "there is no backend %q: the configuration has %s", req.On, s.backendNames())
	}
	if err := target.Check(); err != nil {
		return nil, err
	}
	if !s.lanes[target.Name()].isClear() {
		return nil, status.Errorf(codes.Unavailable, "backend %q is still being recovered from a crash: try again", target.Name())
	}
	src, err := s.sourceOf(ctx, req.Sandbox)
	if err != nil {
		return nil, err
	}
	if err := s.readHistory(src); err != nil {
		return nil, err
	}
	r := &rehearsal{s: s, req: req, id: newRehearsalID(), target: target, source: src}
	p := src.sandbox.GetPod()
	r.report = &Rehearsal{
		ID: r.id, Namespace: p.GetNamespace(), Name: p.GetName(), UID: p.GetUid(), Sandbox: src.sandbox.GetId(),
		From: src.sandbox.GetBackend(), On: req.On, Level: req.Level, Network: req.Network, HostMounts: req.HostMounts,
	}
	return r, nil
}

func (s *Server) backendNames() (names string) {
	for i, m := range s.set.All() {
		if i > 0 {
			names += ", "
		}
		names += m.Name()
	}
	return names
}

// sourceOf asks the pod's backend what the pod was made with.
func (s *Server) sourceOf(ctx context.Context, sandbox string) (*source, error) {
	src := &source{sandbox: s.knownSandbox(sandbox)}
	if src.sandbox == nil {
		return nil, status.Errorf(codes.NotFound, "there is no sandbox %q any more: only a pod that is there can be rehearsed, since its command and environment are in no log", sandbox)
	}
	if isRehearsal(src.sandbox.GetLabels()) {
		return nil, status.Errorf(codes.InvalidArgument, "sandbox %s is a rehearsal itself", sandbox)
	}
	m, err := s.member(src.sandbox.GetBackend())
	if err != nil {
		return nil, err
	}
	teller, ok := m.Backend.(backends.Describer)
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "backend %q, where the pod is, cannot tell what it was made with", m.Name())
	}
	if err := m.Check(); err != nil {
		return nil, status.Errorf(codes.Unavailable, "what the pod was made with is not known: %s", status.Convert(err).Message())
	}
	guarded, cancel := m.Guard(ctx)
	defer cancel()
	if src.config, err = teller.DescribeSandbox(guarded, sandbox); err != nil {
		return nil, untold(m, "sandbox "+sandbox, err)
	}
	for _, ctr := range s.newestContainers(sandbox) {
		c := &sourceContainer{record: ctr}
		c.config, err = teller.DescribeContainer(guarded, ctr.GetId())
		switch {
		case status.Code(err) == codes.NotFound:
			c.gone = true
		case err != nil:
			return nil, untold(m, "container "+ctr.GetName(), err)
		}
		src.containers = append(src.containers, c)
	}
	return src, nil
}

func untold(m *backends.Member, what string, err error) error {
	st := status.Convert(err)
	return status.Errorf(st.Code(), "backend %q does not tell what %s was made with: %s", m.Name(), what, st.Message())
}

// newestContainers are the containers of a sandbox, each in its newest
// attempt, in the order in which they were made: so that init containers have
// ended before others begin.
func (s *Server) newestContainers(sandbox string) []*eventpb.Container {
	newest := make(map[string]*eventpb.Container)
	s.log.View(func(st *store.State) {
		for c := range st.ContainersIn(sandbox) {
			if have := newest[c.GetName()]; have == nil || c.GetAttempt() > have.GetAttempt() {
				newest[c.GetName()] = c
			}
		}
	})
	var list []*eventpb.Container
	for _, c := range newest {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *eventpb.Container) int {
		return cmp.Or(cmp.Compare(a.GetCreatedAt(), b.GetCreatedAt()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return list
}

// readHistory finds the recorded outcomes: the events since the sandbox came
// to be known.
func (s *Server) readHistory(src *source) error {
	byID := make(map[string]*sourceContainer)
	byOp := make(map[string]*sourceContainer)
	starts := make(map[string]*sourceContainer)
	for _, c := range src.containers {
		byID[c.record.GetId()] = c
		if op := c.record.GetOp(); op != "" {
			byOp[op] = c
		}
	}
	return s.log.Records(max(src.sandbox.GetFirstSeq(), 1), func(rec store.Record) error {
		e, err := rec.Event()
		if err != nil {
			return err
		}
		if in := e.GetIntent(); in.GetMethod() == "StartContainer" {
			if c := byID[in.GetContainerId()]; c != nil {
				starts[e.GetOp()] = c
			}
		}
		o := e.GetOutcome()
		if o == nil {
			return nil
		}
		if e.GetOp() == src.sandbox.GetOp() {
			src.run = o
		}
		if c := byOp[e.GetOp()]; c != nil {
			c.create = o
		}
		if c := starts[e.GetOp()]; c != nil {
			c.start = o
		}
		return nil
	})
}
