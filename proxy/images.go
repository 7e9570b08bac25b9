package proxy

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// An image goes where its pod goes. A PullImage names the pod; an ImageStatus
// does so only through the pod's annotations, which the kubelet sends along.

// image carries out the calls about one image.
func (s *Server) image(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	req := wire.Message(frame.Bytes())
	spec := req.Msg(1)
	if spec.String(1) == "" {
		return backends.Answer{}, status.Errorf(codes.InvalidArgument, "%s: image is missing or names none", m.name)
	}
	switch m.full {
	case runtimeapi.ImageService_PullImage_FullMethodName:
		return s.pull(ctx, m, frame)
	case runtimeapi.ImageService_RemoveImage_FullMethodName:
		return s.removeImage(ctx, m, frame)
	default:
		return s.imageStatus(ctx, m, frame)
	}
}

// imagePlace is where the image of a request belongs. Its zero value says
// that the request names no pod.
type imagePlace struct {
	target         *backends.Member
	backendHandler string
}

// placeImage finds the runtime that the image of a request is for: by its
// runtime_handler, by the pod that the request names, or by the pod whose
// annotations it carries.
func (s *Server) placeImage(spec, sandboxConfig wire.Message) (imagePlace, error) {
	if h := spec.String(imageHandler); h != "" {
		r, err := s.decide(&eventpb.PodKey{}, h)
		if err != nil {
			return imagePlace{}, err
		}
		return imagePlace{s.set.Get(r.Backend), r.BackendHandler}, nil
	}
	var p imagePlace
	uid := sandboxConfig.Msg(1).String(2)
	s.log.View(func(st *store.State) {
		if uid == "" {
			uid = podOfAnnotations(st, spec.Map(2))
		}
		if r, ok := st.Decision(uid); ok && uid != "" {
			p = imagePlace{s.set.Get(r.GetBackend()), r.GetBackendHandler()}
		}
	})
	return p, nil
}

// configKeys are annotations that the kubelet puts on each pod and sends with
// both RunPodSandbox and ImageStatus: a hash for static pods, and the time at
// which it first saw the pod, to the nanosecond.
var configKeys = []string{"kubernetes.io/config.hash", "kubernetes.io/config.seen"}

// podOfAnnotations returns the uid of the pod that has the annotations, ""
// where none can be told.
func podOfAnnotations(st *store.State, annotations map[string]string) string {
	for _, key := range configKeys {
		want := annotations[key]
		if want == "" {
			continue
		}
		for sb := range st.Sandboxes() {
			if sb.GetAnnotations()[key] == want {
				return sb.GetPod().GetUid()
			}
		}
	}
	return ""
}

// pull brings an image to the runtime of its pod.
func (s *Server) pull(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	req := wire.Message(frame.Bytes())
	place, err := s.placeImage(req.Msg(1), req.Msg(3))
	if err != nil {
		return backends.Answer{}, err
	}
	if place.target == nil {
		place = s.futurePlace(req.Msg(3))
	}
	c := &call{
		method: m,
		frame:  replaced(frame, handlerIn(req, place.backendHandler, 1, imageHandler)),
		target: place.target,
		intent: &eventpb.Intent{Method: m.name, Image: valid(req.Msg(1).String(1))},
	}
	if meta := req.Msg(3).Msg(1); meta != nil {
		c.intent.Pod = keyOf(meta)
	}
	a, err := s.send(ctx, c)
	if err == nil {
		s.bringer.credentials.remember(req.At(3, 1, 2), req.At(1, 1), req.Msg(2))
	}
	return a, err
}

// futurePlace is where the policy would put the pod of a sandbox config that
// has no handler and is not known: the default for a request without one.
func (s *Server) futurePlace(sandboxConfig wire.Message) imagePlace {
	if pod := keyOf(sandboxConfig.Msg(1)); pod.Uid != "" {
		if r, err := s.decide(pod, ""); err == nil && s.set.Get(r.Backend) != nil {
			return imagePlace{s.set.Get(r.Backend), r.BackendHandler}
		}
	}
	return imagePlace{target: s.defaultBackend()}
}

// imageStatus answers for the runtime of the pod that the request is about.
// When nothing tells which, a request with annotations, which comes before a
// pull, is answered by the default; the kubelet's bare look-up of an image's
// user, which comes when the pod's sandbox is there, is answered from
// whichever runtime with a sandbox has the image.
func (s *Server) imageStatus(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	req := wire.Message(frame.Bytes())
	spec := req.Msg(1)
	place, err := s.placeImage(spec, nil)
	if err != nil {
		return backends.Answer{}, err
	}
	if place.target == nil && spec.Has(2) {
		place.target = s.defaultBackend()
	}
	if place.target != nil {
		front := spec.String(imageHandler)
		a, err := read(ctx, place.target, m.full, replaced(frame, handlerIn(req, place.backendHandler, 1, imageHandler)))
		if err == nil && front != "" {
			a.Body = rewritten(a.Body, withFront(front, 1, 7, imageHandler))
		}
		return a, err
	}
	parts := ask(ctx, s.withSandboxes(), m.full, frame)
	for _, p := range parts {
		if p.err == nil && wire.Message(p.ans.Body.Bytes()).Has(1) {
			return p.ans, nil
		}
	}
	return parts[0].ans, parts[0].err
}

// withSandboxes returns the default and the members that have sandboxes. Those
// that have none are not asked: a client that pulls what is not there, and
// whose pull goes to the default, must not be told of an image elsewhere.
func (s *Server) withSandboxes() []*backends.Member {
	all := s.defaultFirst()
	some := all[:1]
	s.log.View(func(st *store.State) {
		for _, m := range all[1:] {
			if n, _ := stillThere(st, m.Name()); n > 0 {
				some = append(some, m)
			}
		}
	})
	return some
}

// defaultFirst returns all members, the default at the head.
func (s *Server) defaultFirst() []*backends.Member {
	d := s.defaultBackend()
	list := []*backends.Member{d}
	for _, m := range s.set.All() {
		if m != d {
			list = append(list, m)
		}
	}
	return list
}

// removeImage removes an image from the runtime that the request names, and
// otherwise from each that has it: the kubelet, which sees one list of
// images, does not say where.
func (s *Server) removeImage(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	req := wire.Message(frame.Bytes())
	if h := req.Msg(1).String(imageHandler); h != "" {
		place, err := s.placeImage(req.Msg(1), nil)
		if err != nil {
			return backends.Answer{}, err
		}
		return s.send(ctx, s.removeCall(m, replaced(frame, handlerIn(req, place.backendHandler, 1, imageHandler)), place.target))
	}
	members := s.defaultFirst()
	if len(members) == 1 {
		return s.send(ctx, s.removeCall(m, frame, members[0]))
	}
	having := ask(ctx, members, runtimeapi.ImageService_ImageStatus_FullMethodName, statusRequest(req))
	ans := backends.Answer{Body: backends.NewFrame(nil)}
	var firstErr error
	for _, p := range having {
		if p.err == nil && !wire.Message(p.ans.Body.Bytes()).Has(1) {
			continue
		}
		a, err := s.send(ctx, s.removeCall(m, frame, p.member))
		if err != nil && firstErr == nil {
			ans, firstErr = a, err
		}
	}
	return ans, firstErr
}

func (s *Server) removeCall(m *method, frame *backends.Frame, target *backends.Member) *call {
	image := wire.Message(frame.Bytes()).Msg(1).String(1)
	return &call{method: m, frame: frame, target: target, intent: &eventpb.Intent{Method: m.name, Image: valid(image)}}
}

// statusRequest asks for the status of the image of a RemoveImageRequest.
func statusRequest(req wire.Message) *backends.Frame {
	return backends.NewFrame(wire.AppendItem(nil, 1, req.Msg(1)))
}
