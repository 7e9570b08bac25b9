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
}

// ask sends a call to every given member at once.
func ask(ctx context.Context, members []*backends.Member, full string, frame *backends.Frame) []part {
	parts := make([]part, len(members))
	one := func(i int) {
		parts[i].member = members[i]
		parts[i].ans, parts[i].err = read(ctx, members[i], full, frame)
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
	return s.merge(m.full, wire.Message(frame.Bytes()), parts)
}

// merge makes one answer of the parts. full is the unary list that they
// answer, also where they came by its streaming form.
func (s *Server) merge(full string, req wire.Message, parts []part) (backends.Answer, error) {
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
		return mergeAnswered(parts, mergeFsInfo(diskFullness))
	case runtimeapi.RuntimeService_ListMetricDescriptors_FullMethodName:
		return s.mergeDescriptors(parts)
	case runtimeapi.RuntimeService_ListPodSandboxMetrics_FullMethodName:
		return s.mergeMetrics(parts)
	}
	return mergeAnswered(parts, concat)
}

// mergeWhole merges a list that must not omit anything: a pod or container
// missing from it is started twice or freed while it runs. For a backend that
// does not answer, its items are taken from the state as last known.
func (s *Server) mergeWhole(parts []part, item itemRewrite, lastKnown func(backend string) ([]byte, error)) (backends.Answer, error) {
	frames := make([]*backends.Frame, 0, len(parts))
	for i := range parts {
		p := &parts[i]
		if p.err == nil {
			frames = append(frames, s.rewriteItems(p.ans.Body, item))
			continue
		}
		if !absent(p.err) {
			return p.ans, p.err
		}
		b, err := lastKnown(p.member.Name())
		if err != nil {
			return backends.Answer{}, err
		}
		frames = append(frames, backends.NewFrame(b))
	}
	return whole(backends.Concat(frames...), parts)
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
func mergeAnswered(parts []part, merge func([]*backends.Frame) (*backends.Frame, error)) (backends.Answer, error) {
	var frames []*backends.Frame
	first := -1
	for i, p := range parts {
		switch {
		case p.err == nil:
			frames = append(frames, p.ans.Body)
		case first < 0 || status.Code(parts[first].err) == codes.Unimplemented:
			first = i
		}
	}
	if len(frames) == 0 {
		return parts[first].ans, parts[first].err
	}
	if len(frames) == 1 {
		return whole(frames[0], parts)
	}
	f, err := merge(frames)
	if err != nil {
		return backends.Answer{}, err
	}
	return whole(f, parts)
}

// whole checks that a merged answer can be sent and gives it the first part's
// header and trailer.
func whole(f *backends.Frame, parts []part) (backends.Answer, error) {
	if f.Len() > backends.MaxMessage {
		return backends.Answer{}, status.Errorf(codes.ResourceExhausted,
			"the merged answer of %d backends is %d bytes, more than the %d that fit a message", len(parts), f.Len(), backends.MaxMessage)
	}
	var h, t metadata.MD
	for _, p := range parts {
		if p.err == nil {
			h, t = p.ans.Header, p.ans.Trailer
			break
		}
	}
	return backends.Answer{Body: f, Header: h, Trailer: t}, nil
}

func concat(frames []*backends.Frame) (*backends.Frame, error) {
	return backends.Concat(frames...), nil
}
