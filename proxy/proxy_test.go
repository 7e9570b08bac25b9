package proxy

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func wantCode(t *testing.T, err error, code codes.Code, parts ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("got %v, want code %v", err, code)
	}
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("error %v does not say %q", err, p)
		}
	}
}

// events returns the log's events so far.

func (n *node) events(t *testing.T) []*eventpb.Event {
	t.Helper()
	var list []*eventpb.Event
	err := n.log.Records(1, func(r store.Record) error {
		e, err := r.Event()
		list = append(list, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPodsGoWhereTheirHandlerSays(t *testing.T) {
	n := newNode(t)
	for handler, backend := range map[string]*fakeRuntime{"front-a": n.a, "front-b": n.b, "": n.a} {
		id := n.run(t, "pod-"+handler, handler)
		backend.edit(func() {
			sb := backend.sandboxes[id]
			if sb == nil {
				t.Errorf("handler %q: %s is not on backend %s", handler, id, backend.name)
				return
			}
			if want := map[string]string{"front-a": "own-a"}[handler]; sb.RuntimeHandler != want {
				t.Errorf("handler %q: the backend was told %q, want %q", handler, sb.RuntimeHandler, want)
			}
		})
		st, err := n.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
		if err != nil || st.Status.RuntimeHandler != handler {
			t.Errorf("status of %s: handler %q, %v; want %q", id, st.GetStatus().GetRuntimeHandler(), err, handler)
		}
	}
	list, err := n.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var handlers []string
	for _, sb := range list.Items {
		handlers = append(handlers, sb.RuntimeHandler)
	}
	slices.Sort(handlers)
	if !slices.Equal(handlers, []string{"", "front-a", "front-b"}) {
		t.Errorf("the merged list shows handlers %q", handlers)
	}
}

func TestUnknownHandler(t *testing.T) {
	n := newNode(t)
	_, err := n.RunPodSandbox(t.Context(), runRequest("p", "gvisor"))
	wantCode(t, err, codes.InvalidArgument, "gvisor", "front-a", "front-b")
	n.nothingHappened(t)
}

// nothingHappened checks that no backend was asked to change anything and

// that the log has no operation.

func (n *node) nothingHappened(t *testing.T) {
	t.Helper()
	for _, f := range []*fakeRuntime{n.a, n.b} {
		for _, m := range methods {
			if m.recording == asOperation && f.called(m.name) > 0 {
				t.Errorf("backend %s got %s", f.name, m.name)
			}
		}
	}
	for _, e := range n.events(t) {
		if e.GetIntent() != nil {
			t.Errorf("the log has an intent: %v", e)
		}
	}
}

func TestBadRequestsAreRefusedByName(t *testing.T) {
	n := newNode(t)
	ctx := t.Context()
	run := func(edit func(*runtimeapi.RunPodSandboxRequest)) func() error {
		return func() error {
			r := runRequest("p", "")
			edit(r)
			_, err := n.RunPodSandbox(ctx, r)
			return err
		}
	}
	for want, call := range map[string]func() error{
		"config is missing":                run(func(r *runtimeapi.RunPodSandboxRequest) { r.Config = nil }),
		"config.metadata is missing":       run(func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata = nil }),
		"config.metadata.uid is empty":     run(func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata.Uid = "" }),
		"config.metadata.name is empty":    run(func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata.Name = "" }),
		"config.metadata.namespace is emp": run(func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata.Namespace = "" }),
		"StopPodSandbox: pod_sandbox_id": func() error {
			_, err := n.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{})
			return err
		},
		"StartContainer: container_id": func() error {
			_, err := n.StartContainer(ctx, &runtimeapi.StartContainerRequest{})
			return err
		},
		"PullImage: image": func() error {
			_, err := n.images.PullImage(ctx, &runtimeapi.PullImageRequest{})
			return err
		},
	} {
		wantCode(t, call(), codes.InvalidArgument, want)
	}
	n.nothingHappened(t)

	sb := n.run(t, "p", "")
	_, err := n.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sb})
	wantCode(t, err, codes.InvalidArgument, "config is missing")
	_, err = n.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sb, Config: &runtimeapi.ContainerConfig{}})
	wantCode(t, err, codes.InvalidArgument, "config.metadata")
	if n.a.called("CreateContainer") != 0 {
		t.Error("a request without config reached the backend")
	}
}

// TestIntentBeforeEffect: when the backend hears of an operation, its intent

// is in the log, and when the client hears of the outcome, so is that.

func TestErrorsPassUnchanged(t *testing.T) {
	n := newNode(t)
	detail, err := status.New(codes.Unknown, "RegistryUnavailable: try later").WithDetails(&runtimeapi.ImageSpec{Image: "detail"})
	if err != nil {
		t.Fatal(err)
	}
	n.a.setBefore(func(ctx context.Context, method string, _ any) error {
		if method != "PullImage" && method != "ListImages" {
			return nil
		}
		grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t"))
		return detail.Err()
	})
	var trailer metadata.MD
	_, err = n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "i"}}, grpc.Trailer(&trailer))
	if got := status.Convert(err); got.Code() != codes.Unknown || got.Message() != detail.Message() || len(got.Details()) != 1 {
		t.Errorf("the error came as %v with details %v", err, got.Details())
	}
	if got := trailer.Get("x-trailer"); len(got) != 1 || got[0] != "t" {
		t.Errorf("the trailer came as %v", trailer)
	}
}

func TestTraceMetadataAndDeadlineAreForwarded(t *testing.T) {
	n := newNode(t)
	var got metadata.MD
	var deadline time.Time
	n.a.setBefore(func(ctx context.Context, method string, _ any) error {
		if method == "PodSandboxStatus" {
			got, _ = metadata.FromIncomingContext(ctx)
			deadline, _ = ctx.Deadline()
		}
		return nil
	})
	id := n.run(t, "p", "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", "00-aa-bb-01", "authorization", "secret")
	if _, err := n.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}); err != nil {
		t.Fatal(err)
	}
	if v := got.Get("traceparent"); len(v) != 1 || v[0] != "00-aa-bb-01" {
		t.Errorf("traceparent arrived as %v", v)
	}
	if len(got.Get("authorization")) != 0 {
		t.Error("metadata beyond tracing was forwarded")
	}
	if want, _ := ctx.Deadline(); want.Sub(deadline).Abs() > time.Minute {
		t.Errorf("the deadline arrived as %v, want %v", deadline, want)
	}
}

// TestUnknownMethodsAndFieldsPass uses a service descriptor that neither side

// has compiled in: a method newer than this CRI.

func TestUnknownMethodsAndFieldsPass(t *testing.T) {
	n := newNode(t)
	id := n.run(t, "p", "front-b")
	// The fake answers a method it does not know with its own Unimplemented.
	err := n.conn.Invoke(t.Context(), "/runtime.v1.RuntimeService/TeleportPod",
		&runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}, new(runtimeapi.PodSandboxStatusResponse))
	wantCode(t, err, codes.Unimplemented, "TeleportPod")
	err = n.conn.Invoke(t.Context(), "/containerd.services.tasks.v1.Tasks/Kill",
		&runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}, new(runtimeapi.PodSandboxStatusResponse))
	wantCode(t, err, codes.Unimplemented, "crimux serves runtime.v1")

	var seen []byte
	n.b.setBefore(func(_ context.Context, method string, req any) error {
		if method == "PodSandboxStatus" {
			seen = req.(*runtimeapi.PodSandboxStatusRequest).ProtoReflect().GetUnknown()
		}
		return nil
	})
	req := &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}
	unknown := []byte{0xfa, 0x3e, 0x03, 'n', 'e', 'w'} // field 1007
	req.ProtoReflect().SetUnknown(unknown)
	if _, err := n.PodSandboxStatus(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, unknown) {
		t.Errorf("the unknown field arrived as %x", seen)
	}
}

// settled waits until the state has what the observer adds to new objects.

// crashDuring begins a RunPodSandbox for each name and then takes the log's

// file as it is: what a kill -9 at that moment leaves.

// TestSecretsAreNotRecorded looks for what must not be there in the file.

// TestNamesMustBeText: what could not be recorded is refused for what it is,
// not as a failure of the log.
func TestNamesMustBeText(t *testing.T) {
	meta := wire.AppendItem(wire.AppendItem(wire.AppendItem(nil, 1, []byte("n")), 2, []byte("\xff")), 3, []byte("ns"))
	req := wire.AppendItem(nil, 1, wire.AppendItem(nil, 1, meta))
	_, err := podKey(methods[runtimeapi.RuntimeService_RunPodSandbox_FullMethodName], req, 1)
	wantCode(t, err, codes.InvalidArgument, "config.metadata.uid is not UTF-8")
}

// FuzzRequests: no bytes of a request, as any method's, stop the front.
func FuzzRequests(f *testing.F) {
	n := newNode(f)
	names := slices.Sorted(maps.Keys(methods))
	for i := range names {
		f.Add(uint8(i), []byte(nil))
		f.Add(uint8(i), []byte(wire.AppendItem(nil, 1, []byte("id"))))
		f.Add(uint8(i), []byte(wire.AppendItem(nil, 1, wire.AppendItem(nil, 1, wire.AppendItem(nil, 1, []byte("n"))))))
	}
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		m := methods[names[int(i)%len(names)]]
		if m.streams {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := n.server.unary(ctx, m, backends.NewFrame(b))
		if c := status.Code(err); c == codes.DeadlineExceeded || c == codes.ResourceExhausted {
			t.Errorf("%s with %x: %v", m.name, b, err)
		}
	})
}
