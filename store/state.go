package store

import (
	"iter"
	"maps"

	"github.com/crimux/crimux/store/eventpb"
)

// State is what the events up to one of them amount to: what is known of every
// backend, sandbox and container, and which operations have no outcome yet.
//
// It changes only by [State.Apply]. The records that its methods return are
// never changed once they are in a state, only replaced: they may be kept and
// read without a lock, and must not be changed. A State itself is not safe for
// concurrent use; [Log.View] gives it out under a lock.
type State struct {
	seq    uint64
	bootID string
	policy *eventpb.Policy
	// partial is set after a gap, until the next snapshot.
	partial bool

	sandboxes  map[string]*eventpb.Sandbox
	containers map[string]*eventpb.Container
	operations map[string]*eventpb.Operation
	backends   map[string]*eventpb.Backend

	byUID               groups[*eventpb.Sandbox]
	byBackend           groups[*eventpb.Sandbox]
	containersBySandbox groups[*eventpb.Container]
	containersByBackend groups[*eventpb.Container]
	operationsByBackend groups[*eventpb.Operation]
	runsByUID           groups[*eventpb.Operation] // RunPodSandbox only
}

// NewState returns the state before the first event.
func NewState() *State {
	return &State{
		sandboxes:           map[string]*eventpb.Sandbox{},
		containers:          map[string]*eventpb.Container{},
		operations:          map[string]*eventpb.Operation{},
		backends:            map[string]*eventpb.Backend{},
		byUID:               groups[*eventpb.Sandbox]{},
		byBackend:           groups[*eventpb.Sandbox]{},
		containersBySandbox: groups[*eventpb.Container]{},
		containersByBackend: groups[*eventpb.Container]{},
		operationsByBackend: groups[*eventpb.Operation]{},
		runsByUID:           groups[*eventpb.Operation]{},
	}
}

// Seq returns the sequence number of the last event in the state, 0 where
// there is none.
func (s *State) Seq() uint64 { return s.seq }

// Partial tells that events before this point were taken out of the log, and
// that the state is only what those that are left amount to: enough to tell the
// story of a pod whose events were kept, and not what was at that time.
func (s *State) Partial() bool { return s.partial }

// BootID returns the kernel's boot id of the last start.
func (s *State) BootID() string { return s.bootID }

// Policy returns the placement policy in force, nil where none was recorded.
func (s *State) Policy() *eventpb.Policy { return s.policy }

// Sandbox returns the sandbox of that id, or nil.
func (s *State) Sandbox(id string) *eventpb.Sandbox { return s.sandboxes[id] }

// Container returns the container of that id, or nil.
func (s *State) Container(id string) *eventpb.Container { return s.containers[id] }

// Operation returns the open operation of that id, or nil.
func (s *State) Operation(op string) *eventpb.Operation { return s.operations[op] }

// Backend returns the health of the backend of that name as last recorded, or
// nil.
func (s *State) Backend(name string) *eventpb.Backend { return s.backends[name] }

// Sandboxes returns all sandboxes in no particular order.
func (s *State) Sandboxes() iter.Seq[*eventpb.Sandbox] { return maps.Values(s.sandboxes) }

// Containers returns all containers in no particular order.
func (s *State) Containers() iter.Seq[*eventpb.Container] { return maps.Values(s.containers) }

// Operations returns all open operations in no particular order.
func (s *State) Operations() iter.Seq[*eventpb.Operation] { return maps.Values(s.operations) }

// Backends returns the health of all backends in no particular order.
func (s *State) Backends() iter.Seq[*eventpb.Backend] { return maps.Values(s.backends) }

// SandboxesOf returns the sandboxes on a backend in no particular order.
func (s *State) SandboxesOf(backend string) iter.Seq[*eventpb.Sandbox] {
	return s.byBackend.of(backend)
}

// SandboxesOfPod returns the sandboxes of the pod with that UID, on whatever
// backend, in no particular order.
func (s *State) SandboxesOfPod(uid string) iter.Seq[*eventpb.Sandbox] {
	return s.byUID.of(uid)
}

// ContainersOf returns the containers on a backend in no particular order.
func (s *State) ContainersOf(backend string) iter.Seq[*eventpb.Container] {
	return s.containersByBackend.of(backend)
}

// ContainersIn returns the containers of a sandbox in no particular order.
func (s *State) ContainersIn(sandboxID string) iter.Seq[*eventpb.Container] {
	return s.containersBySandbox.of(sandboxID)
}

// OperationsOf returns the open operations on a backend in no particular order.
func (s *State) OperationsOf(backend string) iter.Seq[*eventpb.Operation] {
	return s.operationsByBackend.of(backend)
}

// groups is an index: records by the value of one of their fields, and by
// their id within that.
type groups[T any] map[string]map[string]T

func (g groups[T]) put(key, id string, rec T) {
	m := g[key]
	if m == nil {
		m = map[string]T{}
		g[key] = m
	}
	m[id] = rec
}

// move puts rec, whose key was from, if it was there at all, under to.
func (g groups[T]) move(from, to, id string, rec T) {
	if from != to {
		g.del(from, id)
	}
	g.put(to, id, rec)
}

func (g groups[T]) del(key, id string) {
	m := g[key]
	delete(m, id)
	if len(m) == 0 {
		delete(g, key)
	}
}

func (g groups[T]) of(key string) iter.Seq[T] { return maps.Values(g[key]) }

func (s *State) putSandbox(r *eventpb.Sandbox) {
	id, old := r.GetId(), s.sandboxes[r.GetId()]
	s.sandboxes[id] = r
	s.byUID.move(old.GetPod().GetUid(), r.GetPod().GetUid(), id, r)
	s.byBackend.move(old.GetBackend(), r.GetBackend(), id, r)
}

// dropSandbox takes the sandbox and its containers out.
func (s *State) dropSandbox(id string) {
	for cid := range s.containersBySandbox[id] {
		s.dropContainer(cid)
	}
	old := s.sandboxes[id]
	s.byUID.del(old.GetPod().GetUid(), id)
	s.byBackend.del(old.GetBackend(), id)
	delete(s.sandboxes, id)
}

func (s *State) putContainer(r *eventpb.Container) {
	id, old := r.GetId(), s.containers[r.GetId()]
	s.containers[id] = r
	s.containersBySandbox.move(old.GetSandboxId(), r.GetSandboxId(), id, r)
	s.containersByBackend.move(old.GetBackend(), r.GetBackend(), id, r)
}

func (s *State) dropContainer(id string) {
	old := s.containers[id]
	s.containersBySandbox.del(old.GetSandboxId(), id)
	s.containersByBackend.del(old.GetBackend(), id)
	delete(s.containers, id)
}

// putOperation needs no move: backend and intent of an operation never change.
func (s *State) putOperation(r *eventpb.Operation) {
	s.operations[r.GetOp()] = r
	s.operationsByBackend.put(r.GetBackend(), r.GetOp(), r)
	if r.GetIntent().GetMethod() == methodRunPodSandbox {
		s.runsByUID.put(r.GetIntent().GetPod().GetUid(), r.GetOp(), r)
	}
}

func (s *State) dropOperation(op string) {
	old := s.operations[op]
	s.operationsByBackend.del(old.GetBackend(), op)
	s.runsByUID.del(old.GetIntent().GetPod().GetUid(), op)
	delete(s.operations, op)
}
