package proxy

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// stream answers a server-streaming method.
func (s *Server) stream(ctx context.Context, m *method, req *backends.Frame, ss grpc.ServerStream) error {
	if m.unary == "" {
		return s.containerEvents(ctx, ss)
	}
	return s.streamList(ctx, m, req, ss)
}

// streamList answers the streaming form of a list. All six are always
// answered, over the unary list where a backend is older than they are: one
// Unimplemented would turn streaming off in the kubelet until its restart.
// The messages of both forms are the same on the wire, so what came in
// several is one list by concatenation, merged as any other and sent whole.
func (s *Server) streamList(ctx context.Context, m *method, req *backends.Frame, ss grpc.ServerStream) error {
	msg := wire.Message(req.Bytes())
	if err := msg.Valid(); err != nil {
		return status.Errorf(codes.InvalidArgument, "%s: %v", m.name, err)
	}
	members := s.concerned(m.unary, msg)
	parts := make([]part, len(members))
	var wg sync.WaitGroup
	for i, member := range members {
		wg.Go(func() {
			parts[i].member = member
			parts[i].ans, parts[i].err = collect(ctx, member, m, req)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	a, err := s.merge(m.unary, msg, parts)
	if status.Code(err) == codes.Unimplemented {
		// The error is about the unary list; it was this that was asked for.
		return status.Errorf(codes.Unimplemented, "%s: %s", m.name, status.Convert(err).Message())
	}
	if err == nil && a.Body.Len() == 0 {
		// No items: the stream ends without a message.
		ss.SetTrailer(a.Trailer)
		return ss.SetHeader(replyHeader(a.Header))
	}
	return answer(ss, a, err)
}

// collect reads the whole stream of one backend.
func collect(ctx context.Context, m *backends.Member, method *method, req *backends.Frame) (backends.Answer, error) {
	if err := m.Check(); err != nil {
		return backends.Answer{}, err
	}
	guarded, cancel := guard(ctx, m, method)
	defer cancel()
	a, err := drain(guarded, m, method.full, req)
	if status.Code(err) == codes.Unimplemented {
		return read(ctx, m, method.unary, req)
	}
	if err != nil && guarded.Err() != nil && ctx.Err() == nil {
		err = context.Cause(guarded)
	}
	if err != nil {
		return a, err
	}
	return a, garbled(m, method, a.Body)
}

// drain reads a stream to its end. What came before an error is no list.
func drain(ctx context.Context, m *backends.Member, full string, req *backends.Frame) (a backends.Answer, err error) {
	st, err := open(ctx, m, full, req)
	if err != nil {
		return a, err
	}
	frames := []*backends.Frame{backends.NewFrame(nil)}
	for {
		var f *backends.Frame
		if f, err = st.Recv(); err != nil {
			break
		}
		frames = append(frames, f)
	}
	a.Trailer = st.Trailer()
	if h, herr := st.Header(); herr == nil {
		a.Header = h
	}
	if errors.Is(err, io.EOF) {
		a.Body, err = backends.Concat(frames...), nil
	}
	return a, err
}

// open begins a server-streaming call.
func open(ctx context.Context, m *backends.Member, full string, req *backends.Frame) (backends.Stream, error) {
	st, err := m.Stream(ctx, full)
	if err != nil {
		return nil, err
	}
	// An error of Send is told in full by Recv.
	if err := st.Send(req); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := st.CloseSend(); err != nil {
		return nil, err
	}
	return st, nil
}
