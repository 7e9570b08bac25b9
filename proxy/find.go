package proxy

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// findSandbox returns the backend that has the sandbox, and what is known of
// it. An id that nobody knows goes to the default backend, whose answer is
// the one the kubelet would have got from it; the record is then nil.
func (s *Server) findSandbox(ctx context.Context, id string) (*backends.Member, *eventpb.Sandbox, error) {
	sb := s.knownSandbox(id)
	if sb == nil {
		var err error
		if sb, err = s.lookUpSandbox(ctx, id); err != nil {
			return nil, nil, err
		}
	}
	if sb == nil {
		return s.defaultBackend(), nil, s.rehearsals.refuse("sandbox", id)
	}
	if err := notOfRehearsal(sb.GetLabels(), "sandbox", id); err != nil {
		return nil, nil, err
	}
	m, err := s.member(sb.GetBackend())
	return m, sb, err
}

// findContainer is findSandbox for a container; sb is its sandbox, nil where
// that is not known.
func (s *Server) findContainer(ctx context.Context, id string) (m *backends.Member, ctr *eventpb.Container, sb *eventpb.Sandbox, err error) {
	if ctr = s.knownContainer(id); ctr == nil {
		if ctr, err = s.lookUpContainer(ctx, id); err != nil {
			return nil, nil, nil, err
		}
	}
	if ctr == nil {
		return s.defaultBackend(), nil, nil, s.rehearsals.refuse("container", id)
	}
	if err := notOfRehearsal(ctr.GetLabels(), "container", id); err != nil {
		return nil, nil, nil, err
	}
	m, err = s.member(ctr.GetBackend())
	return m, ctr, s.knownSandbox(ctr.GetSandboxId()), err
}

func (s *Server) knownSandbox(id string) (sb *eventpb.Sandbox) {
	s.log.View(func(st *store.State) { sb = st.Sandbox(id) })
	return sb
}

func (s *Server) knownContainer(id string) (ctr *eventpb.Container) {
	s.log.View(func(st *store.State) { ctr = st.Container(id) })
	return ctr
}

// member returns the backend that a record names.
func (s *Server) member(name string) (*backends.Member, error) {
	if m := s.set.Get(name); m != nil {
		return m, nil
	}
	return nil, status.Errorf(codes.FailedPrecondition, "backend %q is not in the configuration any more", name)
}

// lookUpSandbox asks the backends for a sandbox that the state does not know,
// one that is older than crimux, and remembers what it finds.
func (s *Server) lookUpSandbox(ctx context.Context, id string) (*eventpb.Sandbox, error) {
	found, err := s.askAll(ctx, runtimeapi.RuntimeService_ListPodSandbox_FullMethodName, id)
	if err != nil || found == nil {
		return nil, err
	}
	sb := s.sandboxRecord(found.backend, found.item)
	if err := notOfRehearsal(sb.GetLabels(), "sandbox", id); err != nil {
		return nil, err
	}
	if known := s.knownSandbox(sb.GetId()); known != nil {
		return known, nil // It became known meanwhile, and more of it.
	}
	if err := s.remember(ctx, &eventpb.Observed{Cause: "lookup", Sandboxes: []*eventpb.Sandbox{sb}}, found.backend); err != nil {
		return nil, err
	}
	return s.knownSandbox(sb.GetId()), nil
}

// lookUpContainer is lookUpSandbox for a container. Its sandbox is looked up
// as well, since a record without one could not be listed.
func (s *Server) lookUpContainer(ctx context.Context, id string) (*eventpb.Container, error) {
	found, err := s.askAll(ctx, runtimeapi.RuntimeService_ListContainers_FullMethodName, id)
	if err != nil || found == nil {
		return nil, err
	}
	ctr := s.containerRecord(found.backend, found.item)
	if err := notOfRehearsal(ctr.GetLabels(), "container", id); err != nil {
		return nil, err
	}
	if s.knownSandbox(ctr.GetSandboxId()) == nil {
		if _, err := s.lookUpSandbox(ctx, ctr.GetSandboxId()); err != nil {
			return nil, err
		}
	}
	if known := s.knownContainer(ctr.GetId()); known != nil {
		return known, nil // It became known meanwhile, and more of it.
	}
	if err := s.remember(ctx, &eventpb.Observed{Cause: "lookup", Containers: []*eventpb.Container{ctr}}, found.backend); err != nil {
		return nil, err
	}
	return s.knownContainer(ctr.GetId()), nil
}

// remember records what was found, and returns when it is in the state.
func (s *Server) remember(ctx context.Context, o *eventpb.Observed, backend string) error {
	_, err := s.log.Append(&eventpb.Event{Backend: backend, Kind: &eventpb.Event_Observed{Observed: o}}).Wait(ctx)
	if err != nil {
		return status.Errorf(codes.Unavailable, "remember what was found on backend %q: %v", backend, err)
	}
	return nil
}

// found is one item of a list, and whose it is.
type found struct {
	backend string
	item    wire.Message
}

// askAll sends a list of what has the id to every backend and returns the first
// item found, nil where all agree that there is none. As long as a backend
// cannot be asked, none may be said not to have it.
func (s *Server) askAll(ctx context.Context, full, id string) (*found, error) {
	filter := wire.AppendItem(nil, 1, byID(id))
	members := s.set.All()
	hits := make([]*found, len(members))
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { hits[i], errs[i] = askOne(ctx, m, full, filter) })
	}
	wg.Wait()
	for _, h := range hits {
		if h != nil {
			return h, nil
		}
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func askOne(ctx context.Context, m *backends.Member, full string, filter []byte) (*found, error) {
	a, err := read(ctx, m, full, backends.NewFrame(filter))
	if err != nil {
		return nil, err
	}
	var hit *found
	wire.Message(a.Body.Bytes()).Each(1, func(item wire.Message) bool {
		hit = &found{m.Name(), item}
		return false
	})
	return hit, nil
}

// byID is a message whose field 1 is the id: the request and the answer of
// most calls about one object, and the filter of a list.
func byID(id string) []byte { return wire.AppendItem(nil, idField, []byte(id)) }

// earlierSandbox answers an identical RunPodSandbox whose first call took
// effect: the sandbox is known under its key, and its backend says that it is
// ready. This is what makes the retry after a lost answer safe.
func (s *Server) earlierSandbox(ctx context.Context, key *eventpb.PodKey) (backends.Answer, bool) {
	var sb *eventpb.Sandbox
	s.log.View(func(st *store.State) { sb = st.SandboxByKey(key) })
	if sb == nil || s.set.Get(sb.GetBackend()) == nil {
		return backends.Answer{}, false
	}
	id := byID(sb.GetId())
	a, err := read(ctx, s.set.Get(sb.GetBackend()), runtimeapi.RuntimeService_PodSandboxStatus_FullMethodName, backends.NewFrame(id))
	if err != nil {
		return backends.Answer{}, false
	}
	state := runtimeapi.PodSandboxState(wire.Message(a.Body.Bytes()).Msg(1).Int(3))
	return backends.Answer{Body: backends.NewFrame(id)}, state == runtimeapi.PodSandboxState_SANDBOX_READY
}

// earlierContainer answers an identical CreateContainer whose first call took
// effect and that nothing has started since.
func (s *Server) earlierContainer(ctx context.Context, c *call) (backends.Answer, bool) {
	var ctr *eventpb.Container
	s.log.View(func(st *store.State) {
		ctr = st.ContainerByName(c.intent.SandboxId, c.intent.ContainerName, c.intent.ContainerAttempt)
	})
	if ctr == nil {
		return backends.Answer{}, false
	}
	id := byID(ctr.GetId())
	a, err := read(ctx, c.target, runtimeapi.RuntimeService_ContainerStatus_FullMethodName, backends.NewFrame(id))
	if err != nil {
		return backends.Answer{}, false
	}
	st := wire.Message(a.Body.Bytes()).Msg(1)
	created := st.Int(3) == int64(runtimeapi.ContainerState_CONTAINER_CREATED)
	return backends.Answer{Body: backends.NewFrame(id)}, created
}
