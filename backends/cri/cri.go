// Package cri passes CRI calls through to a runtime that speaks CRI itself,
// such as containerd or CRI-O. It decodes nothing: a method or field that is
// newer than crimux reaches the runtime as the kubelet sent it.
package cri

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// window is the flow-control window of streams and connection. It is fixed
// and large because a list of some hundred containers is larger than gRPC's
// default of 64 KiB, and each refill would cost a round trip.
const window = 4 << 20

// Backend is a runtime behind a unix socket. It implements
// [backends.Backend].
type Backend struct {
	name     string
	endpoint string
	conn     *grpc.ClientConn
}

// New returns the backend that listens at endpoint, unix:///path. It does not
// connect: it does so at the first call, and again whenever the connection
// was lost.
func New(name, endpoint string) (*Backend, error) {
	if !strings.HasPrefix(endpoint, "unix:///") {
		return nil, fmt.Errorf("endpoint %q is not of the form unix:///path", endpoint)
	}
	conn, err := grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0),
		// The kubelet retries; gRPC's own retries would only buffer each call.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
		grpc.WithConnectParams(grpc.ConnectParams{
			// A runtime that comes back should be seen within the second.
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(backends.NewCodec()),
			grpc.MaxCallRecvMsgSize(backends.MaxMessage),
			grpc.MaxCallSendMsgSize(backends.MaxMessage),
		))
	if err != nil {
		return nil, fmt.Errorf("backend %q: %w", name, err)
	}
	return &Backend{name: name, endpoint: endpoint, conn: conn}, nil
}

// Name implements [backends.Backend].
func (b *Backend) Name() string { return b.name }

// Invoke implements [backends.Backend].
func (b *Backend) Invoke(ctx context.Context, c *backends.Call) (backends.Answer, error) {
	a := backends.Answer{Body: new(backends.Frame)}
	err := b.conn.Invoke(ctx, c.Method, c.Request, a.Body, grpc.Header(&a.Header), grpc.Trailer(&a.Trailer))
	if err != nil {
		a.Body = nil
		return a, b.explain(err, len(a.Header)+len(a.Trailer) > 0)
	}
	return a, nil
}

// Stream implements [backends.Backend].
func (b *Backend) Stream(ctx context.Context, method string) (backends.Stream, error) {
	s, err := b.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return nil, b.explain(err, false)
	}
	return &stream{ClientStream: s, b: b}, nil
}

// Probe implements [backends.Backend] with the Version call.
func (b *Backend) Probe(ctx context.Context) error {
	a, err := b.Invoke(ctx, &backends.Call{
		Method:  runtimeapi.RuntimeService_Version_FullMethodName,
		Request: backends.NewFrame(nil),
		Journal: backends.NoJournal,
	})
	if err != nil {
		return err
	}
	a.Body.Free()
	return nil
}

// Close implements [backends.Backend].
func (b *Backend) Close() error { return b.conn.Close() }

// explain names the backend where the error is not the runtime's own but that
// of not reaching it. Its own comes with a header or a trailer: those of gRPC
// at least.
func (b *Backend) explain(err error, answered bool) error {
	if status.Code(err) != codes.Unavailable || answered {
		return err
	}
	return status.Errorf(codes.Unavailable, "backend %q does not answer at %s: %s",
		b.name, b.endpoint, status.Convert(err).Message())
}

// stream makes a grpc.ClientStream a [backends.Stream].
type stream struct {
	grpc.ClientStream
	b *Backend
}

func (s *stream) Send(f *backends.Frame) error { return s.SendMsg(f) }

func (s *stream) Recv() (*backends.Frame, error) {
	f := new(backends.Frame)
	if err := s.RecvMsg(f); err != nil {
		// After an error neither of these waits.
		h, herr := s.Header()
		return nil, s.b.explain(err, herr == nil && len(h) > 0 || len(s.Trailer()) > 0)
	}
	return f, nil
}
