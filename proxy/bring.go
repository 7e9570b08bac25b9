package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store/eventpb"
)

// A kubelet asks once for an image and then makes containers of it, for ever,
// if it must. With several runtimes behind one socket it may have been told of
// an image on one of them, and the pod is on another. So a CreateContainer
// that fails because its runtime lacks the image has the image brought there:
// copied from the runtime that has it, or else pulled; and is sent again.

// Steps of a CreateContainer whose image was brought.
const (
	stepImageCopied = "image.copied"
	stepImagePulled = "image.pulled"
)

// bringBound is how long bringing one image may take. It goes on when the
// kubelet gives up waiting, which then finds it on its way or there.
const bringBound = 15 * time.Minute

// Fields of ImageSpec and CreateContainerRequest.
const (
	userSpecifiedImage protowire.Number = 18
	createConfig       protowire.Number = 2
	createSandbox      protowire.Number = 3
	configImage        protowire.Number = 2
)

// bringer brings images, each to each backend once at a time.
type bringer struct {
	flights     singleflight.Group
	credentials *credentials
}

// wanted is the image of a CreateContainer.
type wanted struct {
	// asked is what the runtime is asked for: mostly an id, as some runtime
	// has told it to the kubelet. name is what the pod asks for, "" where
	// that is not known.
	asked, name string
	// spec is the ImageSpec, sandbox the PodSandboxConfig.
	spec, sandbox wire.Message
}

func imageWanted(req wire.Message) wanted {
	spec := req.Msg(createConfig).Msg(configImage)
	w := wanted{asked: spec.String(1), name: spec.String(userSpecifiedImage), spec: spec, sandbox: req.Msg(createSandbox)}
	if w.name == "" && !isDigest(w.asked) {
		w.name = w.asked
	}
	return w
}

// uid is the pod's.
func (w wanted) uid() string { return w.sandbox.Msg(1).String(2) }

// refs are the references to look for, the more exact first.
func (w wanted) refs() []string {
	if w.name == "" || w.name == w.asked {
		return []string{w.asked}
	}
	return []string{w.asked, w.name}
}

// isDigest tells an image's id from its name.
func isDigest(ref string) bool {
	hex, ok := strings.CutPrefix(ref, "sha256:")
	return ok && hex != ""
}

// effect has the backend carry out a call. One of a container whose image the
// backend lacks is carried out once more when the image has been brought.
func (s *Server) effect(ctx context.Context, c *call, j backends.Journal) (backends.Answer, error) {
	a, err := c.target.Invoke(ctx, &backends.Call{Method: c.method.full, Request: c.frame, Journal: j})
	if err == nil || c.method.full != runtimeapi.RuntimeService_CreateContainer_FullMethodName || !mayLackImage(err) {
		return a, err
	}
	w := imageWanted(wire.Message(c.frame.Bytes()))
	if w.asked == "" || c.intent.GetPod() == nil {
		return a, err // it is not for an image that this fails
	}
	if there, serr := imageOn(ctx, c.target, w.asked); serr != nil || there != nil {
		return a, err
	}
	got, berr := s.bring(ctx, c.target, w)
	if len(s.set.All()) == 1 && errors.Is(berr, errNowhere) && errors.Is(berr, errNotPulled) {
		return a, err // nothing was tried, and the runtime has said all there is
	}
	if berr != nil {
		code := status.Code(err)
		if ctx.Err() != nil {
			code = codes.Unavailable // no answer yet, and not of the runtime's making
		}
		return a, status.Errorf(code, "%s; the image %s could not be brought there: %s",
			status.Convert(err).Message(), valid(w.asked), strings.ReplaceAll(berr.Error(), "\n", "; "))
	}
	if got.step != "" {
		if serr := j.Step(backends.Step{Name: got.step, ID: valid(got.what)})(ctx); serr != nil {
			return backends.Answer{}, serr
		}
	}
	again := replaced(c.frame, wire.Message(c.frame.Bytes()).With(got.ref, createConfig, configImage, 1))
	return c.target.Invoke(ctx, &backends.Call{Method: c.method.full, Request: again, Journal: j})
}

// mayLackImage tells whether a create's error may be that of a missing image.
// Runtimes have no code of their own for that; whether it is is asked.
func mayLackImage(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.Unknown, codes.Internal, codes.FailedPrecondition, codes.InvalidArgument:
		return true
	}
	return false
}

// imageOn asks a backend for an image; nil where it has none of that name.
func imageOn(ctx context.Context, m *backends.Member, ref string) (wire.Message, error) {
	req := wire.Message(nil).With(ref, 1, 1)
	a, err := read(ctx, m, runtimeapi.ImageService_ImageStatus_FullMethodName, backends.NewFrame(req))
	if err != nil {
		return nil, err
	}
	// The frame is left to the collector: what is returned aliases it.
	return wire.Message(a.Body.Bytes()).Msg(1), nil
}

// brought is how an image came to a backend.
type brought struct {
	// ref is what that backend is to be asked for.
	ref string
	// step and what are recorded; step is "" where the image was there
	// already, under a name other than the one asked for.
	step, what string
}

// bring brings an image to a backend: from the node's other runtimes, or else
// from its registry.
func (s *Server) bring(ctx context.Context, target *backends.Member, w wanted) (brought, error) {
	// Who carries it out may outlive the request, whose memory goes with it.
	w.spec, w.sandbox = append(wire.Message(nil), w.spec...), append(wire.Message(nil), w.sandbox...)
	got, err := s.fly(ctx, joinKey(stepImageCopied, target.Name(), w.asked, w.name, 0), func(ctx context.Context) (brought, error) {
		return s.copyFromAny(ctx, target, w)
	})
	if err == nil || ctx.Err() != nil {
		return got, err
	}
	got, perr := s.fly(ctx, joinKey(stepImagePulled, target.Name(), w.uid(), w.name, 0), func(ctx context.Context) (brought, error) {
		return s.pullAgain(ctx, target, w, !errors.Is(err, errNowhere))
	})
	if perr != nil {
		return brought{}, errors.Join(err, perr)
	}
	return got, nil
}

// fly has fn carried out apart from its caller, whose end ends only the wait,
// and once for all who ask for the same key meanwhile.
func (s *Server) fly(ctx context.Context, key string, fn func(context.Context) (brought, error)) (brought, error) {
	flight := s.bringer.flights.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bringBound)
		defer cancel()
		return fn(ctx)
	})
	landed := make(chan singleflight.Result, 1)
	s.operations.Go(func() { landed <- <-flight })
	select {
	case r := <-landed:
		if r.Err != nil {
			return brought{}, r.Err
		}
		return r.Val.(brought), nil
	case <-ctx.Done():
		return brought{}, errors.New("it is on its way still: try again")
	}
}

// errNowhere says that no other runtime of the node has the image.
var errNowhere = errors.New("no other runtime of the node has it")

// errNotPulled says that no registry was asked for the image.
var errNotPulled = errors.New("it is not pulled for this pod")

// copyFromAny copies the image from the first other runtime that can give it.
func (s *Server) copyFromAny(ctx context.Context, target *backends.Member, w wanted) (brought, error) {
	var tried []error
	for _, m := range s.defaultFirst() {
		if m == target || m.Check() != nil {
			continue
		}
		ref, img := w.on(ctx, m)
		if img == nil {
			continue
		}
		got, err := s.copyImage(ctx, m, target, ref, img, w)
		if err == nil {
			return got, nil
		}
		tried = append(tried, fmt.Errorf("copying it from %s: %s", m.Name(), status.Convert(err).Message()))
	}
	if tried == nil {
		return brought{}, errNowhere
	}
	return brought{}, errors.Join(tried...)
}

// on returns the reference by which a backend has the image, and the image.
// A backend that cannot be asked does not have it.
func (w wanted) on(ctx context.Context, m *backends.Member) (string, wire.Message) {
	for _, ref := range w.refs() {
		if img, err := imageOn(ctx, m, ref); err == nil && img != nil {
			return ref, img
		}
	}
	return "", nil
}

// copyImage copies an image from one backend to another.
func (s *Server) copyImage(ctx context.Context, from, to *backends.Member, ref string, img wire.Message, w wanted) (brought, error) {
	// One and the same image may have another id there: then it is known by
	// its digest, and there already.
	if have := firstOn(ctx, to, texts(img, imageDigests)); have != "" {
		return brought{ref: have}, nil
	}
	source, gives := from.Backend.(backends.ImageSource)
	sink, takes := to.Backend.(backends.ImageSink)
	if !gives || !takes {
		return brought{}, status.Error(codes.Unimplemented, "these backends cannot give images to each other")
	}
	archive, info, err := source.ExportImage(ctx, ref)
	if err != nil {
		return brought{}, err
	}
	// A name that it has already is that of another image.
	known := append([]string{w.asked, info.ID}, texts(img, imageDigests)...)
	for _, n := range append([]string{w.name}, info.Names...) {
		if firstOn(ctx, to, []string{n}) == "" {
			known = append(known, n)
		}
	}
	err = sink.ImportImage(ctx, archive, info)
	if cerr := archive.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return brought{}, err
	}
	name := w.name
	if name == "" {
		name = ref
	}
	have := firstOn(ctx, to, known)
	if have == "" {
		return brought{}, status.Errorf(codes.DataLoss, "the image is not there afterwards")
	}
	return brought{ref: have, step: stepImageCopied, what: name + " from " + from.Name()}, nil
}

// firstOn returns the first reference that a backend has an image of, "" for
// none.
func firstOn(ctx context.Context, m *backends.Member, refs []string) string {
	for _, ref := range refs {
		if ref == "" {
			continue
		}
		if img, err := imageOn(ctx, m, ref); err == nil && img != nil {
			return ref
		}
	}
	return ""
}

// pullAgain pulls the image with what this pod's last pull of it brought. An
// image that neither this pod has pulled nor the node has anywhere is not
// pulled: its pod may be one that must not.
func (s *Server) pullAgain(ctx context.Context, target *backends.Member, w wanted, elsewhere bool) (brought, error) {
	if w.name == "" {
		return brought{}, fmt.Errorf("%w: only its id is known", errNotPulled)
	}
	auth, known := s.bringer.credentials.of(w.uid(), w.name)
	if !known && !elsewhere {
		return brought{}, fmt.Errorf("%w, which has not asked for that itself: its imagePullPolicy may be Never", errNotPulled)
	}
	m := methods[runtimeapi.ImageService_PullImage_FullMethodName]
	req := wire.AppendItem(nil, 1, w.spec.With(w.name, 1).With("", userSpecifiedImage))
	if auth != nil {
		req = wire.AppendItem(req, 2, auth)
	}
	c := &call{
		method: m, target: target,
		frame:  backends.NewFrame(wire.AppendItem(req, 3, w.sandbox)),
		intent: &eventpb.Intent{Method: m.name, Image: valid(w.name), Pod: keyOf(w.sandbox.Msg(1))},
	}
	if _, err := s.send(ctx, c); err != nil {
		return brought{}, fmt.Errorf("pulling it: %s", clean(status.Convert(err).Message(), c))
	}
	have := firstOn(ctx, target, w.refs())
	if have == "" {
		return brought{}, errors.New("it was pulled, and is not there")
	}
	return brought{ref: have, step: stepImagePulled, what: w.name}, nil
}
