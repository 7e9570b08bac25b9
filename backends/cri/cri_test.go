package cri

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// runtime answers Version and GetContainerEvents as its fields say.
type runtime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	answer func(context.Context) error
}

func (r *runtime) Version(ctx context.Context, _ *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{}, r.answer(ctx)
}

func (r *runtime) GetContainerEvents(_ *runtimeapi.GetEventsRequest, st grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	return r.answer(st.Context())
}

func serve(t *testing.T, r *runtime) (*Backend, *grpc.Server) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "r.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(s, r)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	b, err := New("crio", "unix://"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, s
}

// TestContentType is that of a kubelet: CRI-O drops the connection of whoever
// has another.
func TestContentType(t *testing.T) {
	types := make(chan string, 2)
	b, _ := serve(t, &runtime{answer: func(ctx context.Context) error {
		md, _ := metadata.FromIncomingContext(ctx)
		types <- strings.Join(md.Get("content-type"), ",")
		return nil
	}})
	for what := range asked(t, b) {
		if got := <-types; got != "application/grpc" {
			t.Errorf("a %s has the content type %q", what, got)
		}
	}
}

// asked are the errors of a unary call and of a stream.
func asked(t *testing.T, b *Backend) map[string]error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	st, err := b.Stream(ctx, runtimeapi.RuntimeService_GetContainerEvents_FullMethodName)
	if err == nil {
		if err = st.Send(backends.NewFrame(nil)); err == nil {
			err = st.CloseSend()
		}
		if err == nil {
			_, err = st.Recv()
		}
	}
	return map[string]error{"call": b.Probe(ctx), "stream": err}
}

// TestWhoseErrorItIs: a runtime's own Unavailable comes back as it was; that of
// not reaching it names it.
func TestWhoseErrorItIs(t *testing.T) {
	own := status.Error(codes.Unavailable, "the image service is starting")
	for name, answer := range map[string]func(context.Context) error{
		"plain":         func(context.Context) error { return own },
		"with a header": func(ctx context.Context) error { return sent(ctx, own) },
	} {
		b, _ := serve(t, &runtime{answer: answer})
		for what, err := range asked(t, b) {
			if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "the image service is starting" {
				t.Errorf("%s: a %s gets %v", name, what, err)
			}
		}
	}

	var s *grpc.Server
	dies := &runtime{answer: func(ctx context.Context) error {
		go s.Stop()
		<-ctx.Done()
		return ctx.Err()
	}}
	b, server := serve(t, dies)
	s = server
	for what, err := range asked(t, b) {
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `backend "crio" does not answer at unix://`) {
			t.Errorf("a %s during which the runtime dies gets %v", what, err)
		}
	}
}

func sent(ctx context.Context, err error) error {
	if herr := grpc.SendHeader(ctx, metadata.Pairs("k", "v")); herr != nil {
		return herr
	}
	return err
}
