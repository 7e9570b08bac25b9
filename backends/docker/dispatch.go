package docker

import (
	"context"
	"fmt"
	"path"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// handler is what grpc generates for a unary method.
type handler = func(srv any, ctx context.Context, decode func(any) error, i grpc.UnaryServerInterceptor) (any, error)

// handlers are the unary CRI methods by their full name.
var handlers = func() map[string]handler {
	all := map[string]handler{}
	for _, d := range []*grpc.ServiceDesc{&runtimeapi.RuntimeService_ServiceDesc, &runtimeapi.ImageService_ServiceDesc} {
		for _, m := range d.Methods {
			all["/"+d.ServiceName+"/"+m.MethodName] = handler(m.Handler)
		}
	}
	return all
}()

// withoutEngine are the methods that answer while the Engine is away.
var withoutEngine = map[string]bool{
	runtimeapi.RuntimeService_Status_FullMethodName:                true,
	runtimeapi.RuntimeService_UpdateRuntimeConfig_FullMethodName:   true,
	runtimeapi.RuntimeService_ListMetricDescriptors_FullMethodName: true,
}

// Invoke implements [backends.Backend]: it decodes the frame and calls the
// method in-process.
func (b *Backend) Invoke(ctx context.Context, c *backends.Call) (answer backends.Answer, err error) {
	list, listed := lists[c.Method]
	h, ok := handlers[c.Method]
	if !ok {
		return backends.Answer{}, unimplemented(c.Method)
	}
	if !withoutEngine[c.Method] {
		if err := b.srv.api.ensure(ctx); err != nil {
			return backends.Answer{}, b.srv.fail(err, "%s", path.Base(c.Method))
		}
	}
	defer func() {
		// One request must not take the node's other pods down with it.
		if p := recover(); p != nil {
			b.log.Error("panic in a CRI method", "method", path.Base(c.Method), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			answer, err = backends.Answer{}, status.Errorf(codes.Internal, "%s: docker backend: internal error: %v", path.Base(c.Method), p)
		}
	}()
	if listed {
		body, err := list(b.srv, ctx, c.Request.Bytes())
		if err != nil {
			return backends.Answer{}, statusError(err)
		}
		return backends.Answer{Body: backends.NewFrame(body)}, nil
	}
	decode := func(m any) error {
		msg, ok := m.(proto.Message)
		if !ok {
			return status.Errorf(codes.Internal, "%s: request type %T is no protobuf message", path.Base(c.Method), m)
		}
		return decodeRequest(path.Base(c.Method), c.Request.Bytes(), msg)
	}
	out, err := h(b.srv, withJournal(ctx, c.Journal), decode, nil)
	if err != nil {
		return backends.Answer{}, statusError(err)
	}
	msg, ok := out.(proto.Message)
	if !ok {
		return backends.Answer{}, status.Errorf(codes.Internal, "%s: answer type %T is no protobuf message", path.Base(c.Method), out)
	}
	body, err := proto.Marshal(msg)
	if err != nil {
		return backends.Answer{}, status.Errorf(codes.Internal, "%s: encode answer: %v", path.Base(c.Method), err)
	}
	return backends.Answer{Body: backends.NewFrame(body)}, nil
}

// safely is for what a handler does in other goroutines, whose panics Invoke
// does not see.
func safely(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = status.Errorf(codes.Internal, "docker backend: internal error: %v", p)
		}
	}()
	return do()
}

// Stream implements [backends.Backend]. The front answers the list streams
// itself, over the unary lists.
func (b *Backend) Stream(ctx context.Context, method string) (backends.Stream, error) {
	if method == runtimeapi.RuntimeService_GetContainerEvents_FullMethodName {
		return b.srv.events.subscribe(ctx), nil
	}
	return nil, unimplemented(method)
}

func unimplemented(method string) error {
	return status.Errorf(codes.Unimplemented, "%s: the docker backend does not implement this method", path.Base(method))
}

// statusError makes sure that what leaves the backend is a gRPC status.
func statusError(err error) error {
	if st, ok := statusIn(err); ok {
		return st.Err()
	}
	return status.Error(codeOf(err), err.Error())
}

type journalKey struct{}

func withJournal(ctx context.Context, j backends.Journal) context.Context {
	return context.WithValue(ctx, journalKey{}, j)
}

// journalIn returns the journal of the call that ctx belongs to.
func journalIn(ctx context.Context) backends.Journal {
	if j, ok := ctx.Value(journalKey{}).(backends.Journal); ok {
		return j
	}
	return backends.NoJournal
}
