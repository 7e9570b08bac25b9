package proxy

import (
	"cmp"
	"context"
	"slices"
	"sync"

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
		s.givenBy.note(req.At(1, 1), place.target.Name())
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
// When nothing tells which, there are two kinds. A request with annotations
// comes before a pull, which would go to the default: it is answered by the
// default, and in a migration by its target too, since a pod of the default
// may go there and a container's image is brought to whichever lacks it. The
// kubelet's bare look-up of an image's user comes when the pod's sandbox is
// there, before each container: it is answered from whichever runtime with a
// sandbox has the image, the one that gave it last first. To be told that
// there is none would have the kubelet run the container as root.
func (s *Server) imageStatus(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	req := wire.Message(frame.Bytes())
	spec := req.Msg(1)
	place, err := s.placeImage(spec, nil)
	if err != nil {
		return backends.Answer{}, err
	}
	switch {
	case place.target != nil:
		return s.imageStatusOf(ctx, m, frame, place)
	case spec.Has(2):
		return s.firstWithImage(ctx, m, frame, s.defaultsPods())
	}
	return s.firstWithImage(ctx, m, frame, s.withSandboxes(s.givenBy.of(spec.String(1))))
}

// imageStatusOf asks the runtime of the image's pod.
func (s *Server) imageStatusOf(ctx context.Context, m *method, frame *backends.Frame, place imagePlace) (backends.Answer, error) {
	req := wire.Message(frame.Bytes())
	front := req.At(1, imageHandler)
	a, err := read(ctx, place.target, m.full, replaced(frame, handlerIn(req, place.backendHandler, 1, imageHandler)))
	if err != nil {
		return a, err
	}
	if wire.Message(a.Body.Bytes()).Msg(1) != nil {
		s.givenBy.note(req.At(1, 1), place.target.Name())
	}
	if front != "" {
		a.Body = rewritten(a.Body, withFront(front, 1, imageSpec, imageHandler))
	}
	return a, nil
}

// firstWithImage answers from the first of the members that has the image, and
// from the first of all where none has.
func (s *Server) firstWithImage(ctx context.Context, m *method, frame *backends.Frame, members []*backends.Member) (backends.Answer, error) {
	parts := ask(ctx, members, m.full, frame)
	for i := range parts {
		p := &parts[i]
		if p.err != nil || wire.Message(p.ans.Body.Bytes()).Msg(1) == nil {
			continue
		}
		if own := wire.Message(p.ans.Body.Bytes()).At(1, imageSpec, imageHandler); own != "" {
			p.ans.Body = rewritten(p.ans.Body, withFront(s.frontHandler(p.member.Name(), own), 1, imageSpec, imageHandler))
		}
		return p.ans, nil
	}
	return parts[0].ans, parts[0].err
}

// defaultsPods are the members that a pod without a RuntimeClass may be put
// on, the default first.
func (s *Server) defaultsPods() []*backends.Member {
	list := []*backends.Member{s.defaultBackend()}
	if m := s.config.Migration; m.To != "" && m.Percent > 0 {
		list = append(list, s.set.Get(m.To))
	}
	return list
}

// withSandboxes returns the default and the members that have sandboxes, the
// one named first. Those that have none are not asked: a client that pulls
// what is not there, and whose pull goes to the default, must not be told of
// an image elsewhere.
func (s *Server) withSandboxes(first string) []*backends.Member {
	all := s.defaultFirst()
	some := all[:1]
	s.log.View(func(st *store.State) {
		for _, m := range all[1:] {
			if n, _ := stillThere(st, m.Name()); n > 0 {
				some = append(some, m)
			}
		}
	})
	slices.SortStableFunc(some, func(a, b *backends.Member) int {
		return cmp.Compare(btoi(b.Name() == first), btoi(a.Name() == first))
	})
	return some
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
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

// givenKept bounds what is remembered of images.
const givenKept = 1024

// givenBy remembers which backend has last given an image to a pod that is
// known to be its own: two runtimes may have two images by one name.
type givenBy struct {
	mu    sync.Mutex
	byRef map[string]string
}

func (g *givenBy) note(ref, backend string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byRef == nil || len(g.byRef) >= givenKept {
		g.byRef = make(map[string]string)
	}
	g.byRef[ref] = backend
}

func (g *givenBy) of(ref string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.byRef[ref]
}
