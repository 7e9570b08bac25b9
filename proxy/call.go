package proxy

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store/eventpb"
)

// call is a unary call with its route: what is sent, to whom, and what of it
// is recorded.
type call struct {
	method *method
	// frame is the request as the backend gets it.
	frame  *backends.Frame
	target *backends.Member
	// intent is what an operation records; of other calls only the ids.
	intent *eventpb.Intent
	// key names the operation among those in flight; "" joins nothing.
	key string
	// earlier returns the answer of an earlier identical call whose effect
	// is still there; nil where there can be none.
	earlier func(context.Context) (backends.Answer, bool)
	// rewrite adjusts the answer on its way out; nil changes nothing.
	rewrite func(wire.Message) wire.Message
}

// unary carries out one unary call.
func (s *Server) unary(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	req := wire.Message(frame.Bytes())
	if err := req.Valid(); err != nil {
		return backends.Answer{}, status.Errorf(codes.InvalidArgument, "%s: %v", m.name, err)
	}
	switch m.class {
	case fanOut:
		return s.fanOut(ctx, m, frame)
	case nodeWide:
		return s.nodeWide(ctx, m, frame)
	case byImage:
		return s.image(ctx, m, frame)
	}
	c, err := s.route(ctx, m, frame)
	if err != nil {
		return backends.Answer{}, err
	}
	return s.send(ctx, c)
}

// send takes a routed call through recording and effect.
func (s *Server) send(ctx context.Context, c *call) (backends.Answer, error) {
	if err := c.target.Check(); err != nil {
		return backends.Answer{}, err
	}
	a, err := s.carry(ctx, c)
	if c.method.recording == asOperation {
		s.acted(c.target)
		err = boundIsNoDeadline(ctx, c, err)
	}
	if err == nil && c.rewrite != nil {
		a.Body = rewritten(a.Body, c.rewrite)
	}
	return a, err
}

func (s *Server) carry(ctx context.Context, c *call) (backends.Answer, error) {
	switch c.method.recording {
	case asOperation:
		return s.operate(ctx, c)
	case behind:
		return s.recordBehind(ctx, c)
	case counted:
		return s.countProbe(ctx, c)
	}
	return read(ctx, c.target, c.method.full, c.frame)
}

// acted has the backend looked at where its own events do not tell those who
// wait for them what an operation has done.
func (s *Server) acted(m *backends.Member) {
	if s.events.watched() && !s.feeds[m.Name()].listening() {
		s.lanes[m.Name()].wake()
	}
}

// boundIsNoDeadline makes the end of an operation that its backend bounds by
// itself, while its caller still waits, an error that is not mistaken for the
// end of the caller's own time.
func boundIsNoDeadline(ctx context.Context, c *call, err error) error {
	if _, bounds := c.target.Backend.(backends.Bounder); !bounds || ctx.Err() != nil || status.Code(err) != codes.DeadlineExceeded {
		return err
	}
	return status.Errorf(codes.Unavailable, "backend %q has not finished %s in the time that it may take: %s",
		c.target.Name(), c.method.name, status.Convert(err).Message())
}

// read asks one backend for something that changes nothing. It gives up when
// the backend's breaker opens, and for what is merged also when the backend
// answers probes and not this for too long.
func read(ctx context.Context, m *backends.Member, full string, frame *backends.Frame) (backends.Answer, error) {
	return readUnder(ctx, m, full, frame, guardPatiently)
}

// readList is read for a caller that waits for several backends: it gives up
// earlier on one that does not answer probes either.
func readList(ctx context.Context, m *backends.Member, full string, frame *backends.Frame) (backends.Answer, error) {
	return readUnder(ctx, m, full, frame, guardList)
}

// guard derives the context of a question to one backend.
type guard func(context.Context, *backends.Member, *method) (context.Context, context.CancelFunc)

func readUnder(ctx context.Context, m *backends.Member, full string, frame *backends.Frame, guard guard) (backends.Answer, error) {
	if err := m.Check(); err != nil {
		return backends.Answer{}, err
	}
	guarded, cancel := guard(ctx, m, methods[full])
	defer cancel()
	a, err := m.Invoke(guarded, &backends.Call{Method: full, Request: frame, Journal: backends.NoJournal})
	if err != nil && guarded.Err() != nil && ctx.Err() == nil {
		return a, context.Cause(guarded)
	}
	if err == nil {
		err = garbled(m, methods[full], a.Body)
	}
	return a, err
}

// guardList is the guard of a question that a client waits for.
func guardList(ctx context.Context, m *backends.Member, method *method) (context.Context, context.CancelFunc) {
	if method == nil || !merged(method) {
		return m.Guard(ctx)
	}
	return m.GuardList(ctx, method.name)
}

// guardPatiently is the guard of a question off the request path.
func guardPatiently(ctx context.Context, m *backends.Member, method *method) (context.Context, context.CancelFunc) {
	if method == nil || !merged(method) {
		return m.Guard(ctx)
	}
	return m.GuardRead(ctx, method.name)
}

// over is the error of a call whose own time is over: to the moment, since the
// backends know it too, and one may end a stream in good order for it.
func over(ctx context.Context) error {
	err := ctx.Err()
	if deadline, ok := ctx.Deadline(); ok && err == nil && !time.Now().Before(deadline) {
		err = context.DeadlineExceeded
	}
	if err == nil {
		return nil
	}
	return status.FromContextError(err).Err()
}

// merged tells whether the backends' answers to a method are merged.
func merged(m *method) bool {
	return m.class == fanOut || m.full == runtimeapi.RuntimeService_Status_FullMethodName
}

// garbled is an error where an answer that is to be merged is no message: what
// other backends say must not become unreadable by it.
func garbled(m *backends.Member, method *method, body *backends.Frame) error {
	if method == nil || method.class != fanOut {
		return nil
	}
	if err := wire.Message(body.Bytes()).Valid(); err != nil {
		return status.Errorf(codes.Unavailable, "backend %q answers %s with what cannot be read: %v", m.Name(), method.name, err)
	}
	return nil
}

// rewritten returns f as fn changes it, and f itself where it changes nothing.
func rewritten(f *backends.Frame, fn func(wire.Message) wire.Message) *backends.Frame {
	before := f.Bytes()
	after := fn(before)
	if same(after, before) {
		return f
	}
	return backends.NewFrame(after)
}
