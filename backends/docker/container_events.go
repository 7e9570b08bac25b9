package docker

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// eventsKept is how many events wait for a slow reader before its stream is
// ended. It is never made to believe that there were none.
const eventsKept = 4096

// containerEvents are the open streams of GetContainerEvents, and what they
// have been told. Sandboxes and containers are told of alike, as containerd
// does. What was there at the start of crimux is no event.
type containerEvents struct {
	mu    sync.Mutex
	shown map[string]shown
	open  map[*eventStream]struct{}
	// begun is set once all that was there at the start is known.
	begun bool
}

// shown is what was told of a container.
type shown struct {
	f     *found
	phase phase
}

// phase is how far a container has come.
type phase int

const (
	phaseNone phase = iota
	phaseCreated
	phaseStarted
	phaseStopped
	phaseDeleted
)

func newContainerEvents() *containerEvents {
	return &containerEvents{shown: map[string]shown{}, open: map[*eventStream]struct{}{}}
}

// made ends an operation that has made something: from now on it is seen.
func (s *server) made(op, id string) {
	s.ops.set(op, opDone)
	s.announce(id)
}

// announce tells the streams what has become of a container since it was
// spoken of last. It may be called at any time, and says nothing twice.
func (s *server) announce(id string) {
	e := s.events
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.shown[id]
	f := s.cache.peek(id)
	if f != nil && s.ops.look(f.op) == hidden {
		return
	}
	now := phaseOf(f, before.phase)
	if now == before.phase {
		if f != nil {
			e.shown[id] = shown{f, now}
		}
		return
	}
	if f == nil {
		f = before.f
		delete(e.shown, id)
	} else {
		e.shown[id] = shown{f, now}
	}
	if len(e.open) == 0 || !e.begun {
		return
	}
	for _, kind := range between(before.phase, now, !engineTime(f.State.StartedAt).IsZero()) {
		s.tell(f, kind)
	}
}

// phaseOf is how far a container has come; f is nil where it is gone.
func phaseOf(f *found, before phase) phase {
	switch {
	case f == nil && before == phaseNone:
		return phaseNone
	case f == nil:
		return phaseDeleted
	case f.kind == typeSandbox && f.State.Running:
		return phaseStarted
	case f.kind == typeSandbox && engineTime(f.State.StartedAt).IsZero():
		return phaseCreated
	}
	switch f.criState() {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return phaseStarted
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return phaseCreated
	}
	return phaseStopped
}

// between are the events that lead from one phase to another. What has passed
// in between, too fast to be seen, is told as well.
func between(from, to phase, started bool) (kinds []runtimeapi.ContainerEventType) {
	for _, step := range []struct {
		phase phase
		kind  runtimeapi.ContainerEventType
		real  bool
	}{
		{phaseCreated, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, true},
		{phaseStarted, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, started},
		{phaseStopped, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, started || to == phaseStopped},
		{phaseDeleted, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, true},
	} {
		if from < step.phase && step.phase <= to && step.real {
			kinds = append(kinds, step.kind)
		}
	}
	return kinds
}

// tell sends one event to all streams. The caller holds the lock.
func (s *server) tell(f *found, kind runtimeapi.ContainerEventType) {
	out := &runtimeapi.ContainerEventResponse{ContainerId: f.ID, ContainerEventType: kind, CreatedAt: time.Now().UnixNano()}
	sandbox := f
	if f.kind == typeContainer {
		sandbox = s.cache.peek(f.sandboxID)
	}
	if sandbox != nil {
		// A network that cannot be read is the business of PodSandboxStatus.
		if st, err := s.sandboxStatus(sandbox); err == nil {
			out.PodSandboxStatus = st
		}
		out.ContainersStatuses = s.statusesIn(sandbox.ID)
	}
	body, err := proto.Marshal(out)
	if err != nil {
		s.log.Error("container event cannot be encoded", "container", f.ID, "error", err)
		return
	}
	for stream := range s.events.open {
		if !stream.push(body) {
			delete(s.events.open, stream)
		}
	}
}

// begin is called when all that was there at the start is known.
func (e *containerEvents) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begun = true
}

// subscribe opens a stream of events from now on.
func (e *containerEvents) subscribe(ctx context.Context) *eventStream {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := &eventStream{ctx: ctx, wake: make(chan struct{}, 1)}
	e.open[st] = struct{}{}
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.open, st)
	})
	return st
}

// eventStream is one reader's. It implements [backends.Stream].
type eventStream struct {
	ctx  context.Context
	wake chan struct{}

	mu      sync.Mutex
	waiting [][]byte
	over    bool
}

// push queues an event; false says that the reader is too slow.
func (st *eventStream) push(body []byte) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over = len(st.waiting) >= eventsKept; !st.over {
		st.waiting = append(st.waiting, body)
	}
	poke(st.wake)
	return !st.over
}

// Send implements [backends.Stream]: there is nothing in the request.
func (*eventStream) Send(*backends.Frame) error { return nil }

// CloseSend implements [backends.Stream].
func (*eventStream) CloseSend() error { return nil }

// Header implements [backends.Stream].
func (*eventStream) Header() (metadata.MD, error) { return nil, nil }

// Trailer implements [backends.Stream].
func (*eventStream) Trailer() metadata.MD { return nil }

// Recv implements [backends.Stream]. A reader that was too slow gets what was
// kept for it, and then an error.
func (st *eventStream) Recv() (*backends.Frame, error) {
	for {
		next, over := st.next()
		switch {
		case st.ctx.Err() != nil:
			return nil, status.FromContextError(st.ctx.Err()).Err()
		case next != nil:
			return backends.NewFrame(next), nil
		case over:
			return nil, status.Errorf(codes.ResourceExhausted, "GetContainerEvents: the reader was too slow and has missed events: list the containers again")
		}
		select {
		case <-st.wake:
		case <-st.ctx.Done():
		}
	}
}

// next takes the next event, nil where none waits. over says that none comes
// any more.
func (st *eventStream) next() (next []byte, over bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.waiting) > 0 {
		next, st.waiting = st.waiting[0], st.waiting[1:]
	}
	return next, st.over
}
