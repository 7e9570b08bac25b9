package proxy

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// operate carries out a call that changes something: intent, effect, outcome.
//
// On a backend that bounds its operations itself (Docker), the operation goes
// on when its caller has gone; its end ends only the wait. A remote runtime
// is told that the caller has gone. Either way an identical call that comes
// meanwhile joins instead of being sent as well.
func (s *Server) operate(ctx context.Context, c *call) (backends.Answer, error) {
	for {
		fl, mine := s.flights.enter(c.key)
		if mine {
			s.launch(ctx, c, fl)
		}
		a, err := fl.wait(ctx)
		if mine || !abandonedFlight(fl) || ctx.Err() != nil {
			return a, err
		}
	}
}

// abandonedFlight tells whether a flight has ended for its own caller only.
func abandonedFlight(fl *flight) bool {
	select {
	case <-fl.done:
		return fl.abandoned
	default:
		return false
	}
}

// launch begins the flight: apart from its caller where the backend sets the
// bound, and on the caller's own time otherwise.
func (s *Server) launch(ctx context.Context, c *call, fl *flight) {
	bounder, ok := c.target.Backend.(backends.Bounder)
	if ok {
		if bound, detached := bounder.Bound(c.method.full, c.frame); detached {
			// The request's buffers are the caller's; the operation may
			// outlive it.
			own := *c
			own.frame = backends.NewFrame(append([]byte(nil), c.frame.Bytes()...))
			s.operations.Go(func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bound)
				defer cancel()
				a, err := s.perform(ctx, &own)
				s.flights.land(c.key, fl, a, err, false)
			})
			return
		}
	}
	a, err := s.perform(ctx, c)
	s.flights.land(c.key, fl, a, err, err != nil && ctx.Err() != nil && ended(err))
}

// perform carries the operation out, unless its effect is there already.
func (s *Server) perform(ctx context.Context, c *call) (backends.Answer, error) {
	if err := s.lanes[c.target.Name()].wait(ctx, c.target); err != nil {
		return backends.Answer{}, err
	}
	if c.method.class == byHandler {
		done, err := s.collector.creating(ctx)
		if err != nil {
			return backends.Answer{}, status.FromContextError(err).Err()
		}
		defer done()
	}
	// What an earlier call did may be known by what could not be written then.
	s.late.flush(s.log)
	if c.earlier != nil {
		if a, ok := c.earlier(ctx); ok {
			return a, nil
		}
	}
	if creates(c.method) {
		if err := s.log.Pressure(); err != nil {
			return backends.Answer{}, status.Errorf(codes.ResourceExhausted, "%s was not begun: %v", c.method.name, err)
		}
	}
	s.lastLook(ctx, c)
	op := store.NewOp()
	began := time.Now()
	intent := &eventpb.Event{Op: op, Backend: c.target.Name(), Kind: &eventpb.Event_Intent{Intent: c.intent}}
	// The intent is waited for to its end: a caller that goes away now must
	// not leave it open to doubt whether the backend will hear of it.
	if _, err := s.log.Append(intent).Wait(context.WithoutCancel(ctx)); err != nil {
		if c.method.undoes {
			return s.unrecorded(ctx, c, err)
		}
		return backends.Answer{}, status.Errorf(codes.ResourceExhausted,
			"%s was not begun, since the event log cannot be written: %v", c.method.name, err)
	}
	a, err := s.effect(ctx, c, &journal{log: s.log, op: op, backend: c.target.Name()})
	s.recent.note(c.target.Name(), c.intent)
	out := &eventpb.Event{Op: op, Backend: c.target.Name(), Kind: &eventpb.Event_Outcome{Outcome: outcome(c, a, err, time.Since(began))}}
	if werr := s.close(ctx, c, out); werr != nil {
		return backends.Answer{}, werr
	}
	return a, err
}

// creates tells whether a method makes what will have to be stopped and
// removed: there must be room in the log for that.
func creates(m *method) bool { return m.class == byHandler || m.name == "CreateContainer" }

// unrecorded carries out a Stop or Remove although the log cannot be written:
// a full disk must not keep a node from freeing what it holds. What came of
// it is observed later.
func (s *Server) unrecorded(ctx context.Context, c *call, cause error) (backends.Answer, error) {
	s.logger.Warn("operation not recorded: the event log cannot be written", "method", c.method.name, "backend", c.target.Name(), "error", cause)
	return c.target.Invoke(ctx, &backends.Call{Method: c.method.full, Request: c.frame, Journal: backends.NoJournal})
}

// outcomeRetry is how long to wait before writing an outcome again.
const outcomeRetry = 500 * time.Millisecond

// close writes the outcome. Until that is done nothing is answered: an OK
// must not be lost. While the log cannot be written it is tried again for as
// long as the operation has time; after that the outcome is written behind
// and the caller is told to ask again, which then finds the effect. A Stop or
// Remove is answered at once, and written behind: without an outcome what it
// was about would count as being changed, and would not be observed.
func (s *Server) close(ctx context.Context, c *call, out *eventpb.Event) error {
	for {
		// The log keeps what it is given: each attempt is a copy.
		_, err := s.log.Append(proto.CloneOf(out)).Wait(context.WithoutCancel(ctx))
		if err == nil {
			return nil
		}
		if c.method.undoes {
			s.late.add(out)
			return nil
		}
		select {
		case <-time.After(outcomeRetry):
		case <-ctx.Done():
			s.late.add(out)
			return status.Errorf(codes.Unavailable, "%s was carried out, but the event log cannot be written: %v", c.method.name, err)
		}
	}
}

// late are outcomes that could not be written while their operation had time.
type late struct {
	// writing is held while they are written: whoever has flushed knows that
	// none is on its way.
	writing sync.Mutex

	mu     sync.Mutex
	events []*eventpb.Event
}

func (l *late) add(e *eventpb.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

// flush tries to write them again and keeps those that still cannot be.
func (l *late) flush(log *store.Log) {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	events := l.events
	l.events = nil
	l.mu.Unlock()
	pending := make([]*store.Pending, len(events))
	for i, e := range events {
		pending[i] = log.Append(proto.CloneOf(e))
	}
	for i, e := range events {
		if _, err := pending[i].Wait(context.Background()); err != nil {
			l.add(e)
		}
	}
}

// outcome is what is recorded of an answer.
func outcome(c *call, a backends.Answer, err error, took time.Duration) *eventpb.Outcome {
	o := &eventpb.Outcome{Duration: int64(took)}
	if err != nil {
		st := status.Convert(err)
		o.Code = uint32(st.Code())
		o.Message = clean(st.Message(), c)
		return o
	}
	if returnsID(c.method) {
		o.Id = valid(wire.Message(a.Body.Bytes()).String(idField))
	}
	return o
}

// returnsID tells whether field 1 of the answer names what was made.
func returnsID(m *method) bool {
	switch m.name {
	case "RunPodSandbox", "RestorePod", "CreateContainer", "PullImage":
		return true
	}
	return false
}

// journal writes a backend's steps into the log.
type journal struct {
	log         *store.Log
	op, backend string
}

// Op implements [backends.Journal].
func (j *journal) Op() string { return j.op }

// Step implements [backends.Journal].
func (j *journal) Step(st backends.Step) func(context.Context) error {
	p := j.log.Append(&eventpb.Event{Op: j.op, Backend: j.backend, Kind: &eventpb.Event_Step{
		Step: &eventpb.Step{Name: st.Name, Id: st.ID, Data: st.Data},
	}})
	return func(ctx context.Context) error {
		if _, err := p.Wait(ctx); err != nil {
			return status.Errorf(codes.ResourceExhausted, "record step %q: %v", st.Name, err)
		}
		return nil
	}
}
