package proxy

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// part is one backend's share of a merged answer.
type part struct {
	member *backends.Member
	ans    backends.Answer
	err    error
	// messages are the share of a list: its one answer, or what came by its
	// streaming form.
	messages []*backends.Frame
}

// mergedList is messages that are one answer by concatenation, of so
// many parts, with a header and a trailer.
type mergedList struct {
	messages        []*backends.Frame
	parts           int
	header, trailer metadata.MD
}

// ask sends a call to every given member at once.
func ask(ctx context.Context, members []*backends.Member, full string, frame *backends.Frame) []part {
	parts := make([]part, len(members))
	one := func(i int) {
		parts[i].member = members[i]
		parts[i].ans, parts[i].err = readList(ctx, members[i], full, frame)
	}
	var wg sync.WaitGroup
	for i := 1; i < len(members); i++ {
		wg.Go(func() { one(i) })
	}
	one(0)
	wg.Wait()
	return parts
}

// fanOut asks the backends that may have something and merges their answers.
func (s *Server) fanOut(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	parts := ask(ctx, s.concerned(m.full, wire.Message(frame.Bytes())), m.full, frame)
	if ctx.Err() != nil {
		return backends.Answer{}, status.FromContextError(ctx.Err()).Err()
	}
	for i := range parts {
		if p := &parts[i]; p.err == nil {
			p.messages = []*backends.Frame{p.ans.Body}
		}
	}
	l, err := s.merge(m.full, wire.Message(frame.Bytes()), parts)
	return l.whole(err)
}

// merge makes one list of the parts. full is the unary list that they answer,
// also where they came by its streaming form.
func (s *Server) merge(full string, req wire.Message, parts []part) (mergedList, error) {
	s.hideRehearsals(full, parts)
	switch full {
	case runtimeapi.RuntimeService_ListPodSandbox_FullMethodName:
		return s.mergeWhole(parts, sandboxItem, func(backend string) ([]byte, error) { return s.lastSandboxes(backend, req.Msg(1)) })
	case runtimeapi.RuntimeService_ListContainers_FullMethodName:
		return s.mergeWhole(parts, containerItem, func(backend string) ([]byte, error) { return s.lastContainers(backend, req.Msg(1)) })
	case runtimeapi.ImageService_ListImages_FullMethodName:
		for i := range parts {
			s.imageHandlers(&parts[i])
		}
		return mergeAnswered(parts, mergeImages)
	case runtimeapi.ImageService_ImageFsInfo_FullMethodName:
		return mergeAnswered(parts, asOne(mergeFsInfo(diskFullness)))
	case runtimeapi.RuntimeService_ListMetricDescriptors_FullMethodName:
		return s.mergeDescriptors(parts)
	case runtimeapi.RuntimeService_ListPodSandboxMetrics_FullMethodName:
		return s.mergeMetrics(parts)
	}
	return mergeAnswered(parts, asTheyAre)
}

// mergeWhole merges a list that must not omit anything: a pod or container
// missing from it is started twice or freed while it runs. For a backend that
// does not answer, its items are taken from the state as last known.
func (s *Server) mergeWhole(parts []part, item itemRewrite, lastKnown func(backend string) ([]byte, error)) (mergedList, error) {
	var all []*backends.Frame
	for i := range parts {
		p := &parts[i]
		if p.err == nil {
			all = append(all, changed(p.messages, func(f *backends.Frame) *backends.Frame { return s.rewriteItems(f, item) })...)
			continue
		}
		if !absent(p.err) {
			return failed(p)
		}
		b, err := lastKnown(p.member.Name())
		if err != nil {
			return mergedList{}, err
		}
		all = append(all, pieces(backends.NewFrame(b), pieceSize)...)
	}
	return listOf(all, parts), nil
}

// changed applies fn to each message, and leaves out one of which nothing is
// left: a stream has none without items but what a runtime sent so itself.
func changed(messages []*backends.Frame, fn func(*backends.Frame) *backends.Frame) []*backends.Frame {
	kept := messages[:0]
	for _, f := range messages {
		if g := fn(f); g == f || g.Len() > 0 {
			kept = append(kept, g)
		}
	}
	return kept
}

// absent tells whether an error means that the backend has no answer to give,
// not that the question or the answer was wrong. That a list is too large or
// unknown to the backend must be told, not papered over.
func absent(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.ResourceExhausted, codes.Unimplemented:
		return false
	}
	return true
}

// mergeAnswered merges the parts that were answered: of statistics and images
// a part is better than nothing. The first error counts where nobody
// answered; a backend that does not implement the call is passed over.
func mergeAnswered(parts []part, merge func([]*backends.Frame) ([]*backends.Frame, error)) (mergedList, error) {
	var all []*backends.Frame
	answered, first := 0, -1
	for i, p := range parts {
		switch {
		case p.err == nil:
			answered++
			all = append(all, p.messages...)
		case first < 0 || status.Code(parts[first].err) == codes.Unimplemented && status.Code(p.err) != codes.Unimplemented:
			first = i
		}
	}
	switch answered {
	case 0:
		return failed(&parts[first])
	case 1:
		return listOf(all, parts), nil
	}
	all, err := merge(all)
	if err != nil {
		return mergedList{}, err
	}
	return listOf(all, parts), nil
}

// asTheyAre is the merging of messages by concatenation.
func asTheyAre(messages []*backends.Frame) ([]*backends.Frame, error) { return messages, nil }

// asOne is a merging that makes one message.
func asOne(merge func([]*backends.Frame) (*backends.Frame, error)) func([]*backends.Frame) ([]*backends.Frame, error) {
	return func(messages []*backends.Frame) ([]*backends.Frame, error) {
		f, err := merge(messages)
		return []*backends.Frame{f}, err
	}
}

// failed is a list that comes to the error of one part.
func failed(p *part) (mergedList, error) {
	return mergedList{header: p.ans.Header, trailer: p.ans.Trailer}, p.err
}

// listOf is a list of these messages with the header and trailer of the first
// part that was answered.
func listOf(messages []*backends.Frame, parts []part) mergedList {
	l := mergedList{messages: messages, parts: len(parts)}
	for _, p := range parts {
		if p.err == nil {
			l.header, l.trailer = p.ans.Header, p.ans.Trailer
			break
		}
	}
	return l
}

// whole is the list, or how it failed, as one answer.
func (l mergedList) whole(err error) (backends.Answer, error) {
	a := backends.Answer{Header: l.header, Trailer: l.trailer}
	if err != nil {
		return a, err
	}
	a.Body = backends.Concat(l.messages...)
	if a.Body.Len() > backends.MaxMessage {
		return backends.Answer{}, status.Errorf(codes.ResourceExhausted,
			"the merged answer of %d backends is %d bytes, more than the %d that fit a message", l.parts, a.Body.Len(), backends.MaxMessage)
	}
	return a, nil
}
