package proxy

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// maxGathered bounds what one backend may stream as one list: far above what
// a node can have, and below what would end the daemon.
const maxGathered = 256 << 20

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
//
// What a backend streams is read to its end before any of it is shown. Until
// then it is not known whether it is the list: one that breaks off is none,
// and half of it would have pods missing. It also keeps a client that reads
// slowly, or not at all, from the backend. Then the messages are sent as they
// came, one by one: what they come to together has no limit.
func (s *Server) streamList(ctx context.Context, m *method, req *backends.Frame, ss grpc.ServerStream) error {
	msg := wire.Message(req.Bytes())
	if err := msg.Valid(); err != nil {
		return status.Errorf(codes.InvalidArgument, "%s: %v", m.name, err)
	}
	members := s.concerned(m.unary, msg)
	parts := make([]part, len(members))
	b := &beginning{ss: ss}
	var wg sync.WaitGroup
	for i, member := range members {
		wg.Go(func() { parts[i] = gather(ctx, member, m, req, b) })
	}
	wg.Wait()
	if err := over(ctx); err != nil {
		return err
	}
	l, err := s.merge(m.unary, msg, parts)
	if err == nil {
		l.messages, err = sendable(l.messages)
	}
	if herr := b.end(l.header); herr != nil {
		return herr
	}
	ss.SetTrailer(l.trailer)
	if err != nil {
		return err
	}
	return sendAll(ss, l.messages)
}

// beginning is the header of a stream to the client. It is that of the backend
// whose header comes first, and goes out when it comes: a client is not kept
// waiting for the slowest of them. Where no backend sends one before its end
// it is that of the list.
type beginning struct {
	ss   grpc.ServerStream
	mu   sync.Mutex
	sent bool
	err  error
}

// came sends the header of a backend, unless one was sent already.
func (b *beginning) came(h metadata.MD) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.sent {
		b.sent = true
		b.err = b.ss.SendHeader(replyHeader(h))
	}
}

// end gives the header of the list to what follows, where none was sent.
func (b *beginning) end(h metadata.MD) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent || len(h) == 0 {
		return b.err
	}
	return b.ss.SetHeader(replyHeader(h))
}

// sendAll sends messages and lets go of each as it is sent.
func sendAll(ss grpc.ServerStream, messages []*backends.Frame) error {
	for i, f := range messages {
		messages[i] = nil
		err := ss.SendMsg(f)
		f.Free()
		if err != nil {
			return err
		}
	}
	return nil
}

// gather reads the whole stream of one backend.
func gather(ctx context.Context, m *backends.Member, method *method, req *backends.Frame, b *beginning) part {
	p := part{member: m}
	if p.err = m.Check(); p.err != nil {
		return p
	}
	guarded, cancel := guardList(ctx, m, method)
	defer cancel()
	p.drain(guarded, method.full, req, b)
	if status.Code(p.err) == codes.Unimplemented {
		return p.unary(ctx, method, req)
	}
	if guarded.Err() != nil && ctx.Err() == nil {
		// However it ended: what was broken off is no list.
		p.err = context.Cause(guarded)
	}
	for _, f := range p.messages {
		if p.err == nil {
			p.err = garbled(m, method, f)
		}
	}
	if p.err != nil {
		for _, f := range p.messages {
			f.Free()
		}
		p.messages = nil
	}
	return p
}

// unary is the share of a backend that does not stream the list. If it does
// not have it at all, what it said of the stream is its answer.
func (p part) unary(ctx context.Context, method *method, req *backends.Frame) part {
	ans, err := readList(ctx, p.member, method.unary, req)
	if status.Code(err) == codes.Unimplemented {
		return p
	}
	p.ans, p.err, p.messages = ans, err, nil
	if err == nil {
		p.messages = pieces(ans.Body, pieceSize)
	}
	return p
}

// drain reads a stream to its end.
func (p *part) drain(ctx context.Context, full string, req *backends.Frame, b *beginning) {
	st, err := open(ctx, p.member, full, req)
	if err != nil {
		p.err = err
		return
	}
	// A stream that ends at once has no header; its error is told by Recv.
	if h, err := st.Header(); err == nil && h != nil {
		p.ans.Header = h
		b.came(h)
	}
	for size := 0; ; {
		f, err := st.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			p.err = err
			break
		}
		p.messages = append(p.messages, f)
		if size += f.Len(); size > maxGathered {
			p.err = status.Errorf(codes.ResourceExhausted, "backend %q streams more than %d bytes as one list", p.member.Name(), maxGathered)
			return
		}
	}
	p.ans.Trailer = st.Trailer()
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
