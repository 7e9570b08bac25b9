package proxy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// removeImage removes an image from the runtime that the request names, and
// otherwise from each that has it and has no container of it: the kubelet,
// which sees one list of images, does not say where.
//
// Its garbage collector takes an OK for the image's bytes being free, and an
// error for nothing having happened. So it is OK where the image was removed
// anywhere, even if it stays where it is used, which the next list shows; and
// FailedPrecondition where all who have it use it. containerd itself would
// remove an image under its containers.
func (s *Server) removeImage(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	req := wire.Message(frame.Bytes())
	members := s.defaultFirst()
	if h := req.At(1, imageHandler); h != "" {
		place, err := s.placeImage(req.Msg(1), nil)
		if err != nil {
			return backends.Answer{}, err
		}
		members = []*backends.Member{place.target}
		frame = replaced(frame, handlerIn(req, place.backendHandler, 1, imageHandler))
	}
	if len(s.set.All()) == 1 {
		return s.send(ctx, s.removeCall(m, frame, members[0]))
	}
	question := backends.NewFrame(wire.AppendItem(nil, 1, wire.Message(frame.Bytes()).Msg(1)))
	r := removal{ans: backends.Answer{Body: backends.NewFrame(nil)}}
	for _, p := range ask(ctx, members, runtimeapi.ImageService_ImageStatus_FullMethodName, question) {
		r.one(ctx, s, m, frame, p)
	}
	return r.answer(m)
}

// removal is the removal of one image from several runtimes.
type removal struct {
	removed bool
	// used says where it is used, away who could not be asked, failed what
	// went wrong otherwise.
	used         []string
	away, failed error
	ans          backends.Answer
}

// one removes the image from one runtime; p is what that says of it.
func (r *removal) one(ctx context.Context, s *Server, m *method, frame *backends.Frame, p part) {
	if p.err != nil {
		r.note(p.ans, p.err)
		return
	}
	img := wire.Message(p.ans.Body.Bytes()).Msg(1)
	if img == nil {
		return
	}
	if users := s.imageUsers(p.member.Name(), img); len(users) > 0 {
		r.used = append(r.used, fmt.Sprintf("%s: containers %s", p.member.Name(), strings.Join(users, ", ")))
		return
	}
	a, err := s.send(ctx, s.removeCall(m, frame, p.member))
	switch {
	case err != nil:
		r.note(a, err)
		return
	case !r.removed && r.failed == nil:
		r.ans = a
	}
	r.removed = true
}

func (r *removal) note(a backends.Answer, err error) {
	switch status.Code(err) {
	case codes.FailedPrecondition:
		r.used = append(r.used, status.Convert(err).Message())
	case codes.Unavailable:
		if r.away == nil {
			r.away = err
		}
	default:
		if r.failed == nil {
			r.ans, r.failed = a, err
		}
	}
}

func (r *removal) answer(m *method) (backends.Answer, error) {
	switch {
	case r.failed != nil:
		return r.ans, r.failed
	case r.removed:
		return r.ans, nil
	case len(r.used) > 0:
		return backends.Answer{}, status.Errorf(codes.FailedPrecondition, "%s: the image is in use: %s", m.name, strings.Join(r.used, "; "))
	}
	return r.ans, r.away
}

// imageUsers are the containers on a backend that are made of an image, those
// that are just being made included.
func (s *Server) imageUsers(backend string, img wire.Message) []string {
	names := append([]string{img.String(imageID)}, append(texts(img, imageTags), texts(img, imageDigests)...)...)
	var users []string
	s.log.View(func(st *store.State) {
		for c := range st.ContainersOf(backend) {
			if slices.ContainsFunc([]string{c.GetImageId(), c.GetImageRef(), c.GetImage()}, func(ref string) bool { return slices.Contains(names, ref) }) {
				users = append(users, c.GetId())
			}
		}
		for op := range st.OperationsOf(backend) {
			if in := op.GetIntent(); in.GetMethod() == "CreateContainer" && slices.Contains(names, in.GetImage()) {
				users = append(users, in.GetContainerName()+" (being made)")
			}
		}
	})
	slices.Sort(users)
	return users
}

func (s *Server) removeCall(m *method, frame *backends.Frame, target *backends.Member) *call {
	image := wire.Message(frame.Bytes()).Msg(1).String(1)
	return &call{method: m, frame: frame, target: target, intent: &eventpb.Intent{Method: m.name, Image: valid(image)}}
}
