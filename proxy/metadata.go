package proxy

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
)

// forwarded are the metadata keys that go on to a backend: those of tracing.
// Anything else is between the two ends of one connection.
var forwarded = []string{"traceparent", "tracestate", "baggage", "grpc-trace-bin", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"}

// forward returns ctx with the caller's trace metadata on the way out.
func forward(ctx context.Context) context.Context {
	in, ok := metadata.FromIncomingContext(ctx)
	if !ok {
		return ctx
	}
	var out metadata.MD
	for _, k := range forwarded {
		if v := in.Get(k); len(v) > 0 {
			if out == nil {
				out = make(metadata.MD, 2)
			}
			out[k] = v
		}
	}
	if out == nil {
		return ctx
	}
	return metadata.NewOutgoingContext(ctx, out)
}

// replyHeader drops from a backend's header what gRPC writes itself.
func replyHeader(h metadata.MD) metadata.MD {
	out := make(metadata.MD, len(h))
	for k, v := range h {
		if k != "content-type" && !strings.HasPrefix(k, "grpc-") && !strings.HasPrefix(k, ":") {
			out[k] = v
		}
	}
	return out
}
