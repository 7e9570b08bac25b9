package sink

import (
	"context"
	"errors"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refusedError is the answer of a collector that does not want a request as it
// is: sending the same again is of no use.
type refusedError struct{ error }

// refusesGRPC tells whether an answer is about what was sent: not about the
// moment, for which OTLP has its retryable codes, and not about who sends and
// where to, which would be the same for any other event.
func refusesGRPC(err error) bool {
	s := status.Convert(err)
	switch s.Code() {
	case codes.OK, codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return false
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented, codes.NotFound:
		return false
	case codes.ResourceExhausted:
		for _, d := range s.Details() {
			if _, quota := d.(*errdetails.RetryInfo); quota {
				return false // It will be taken another time.
			}
		}
	}
	return true
}

// refusesHTTP is refusesGRPC for a status of HTTP.
func refusesHTTP(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusProxyAuthRequired:
		return false
	}
	return code >= 400
}

// settle finds a way on from an event that the collector refuses though it was
// sent alone, the first of the batch: without its detail, for it may be too
// large, or without it, for it must not hold up the rest for ever. An event is
// given up only where the collector takes a later one: one that takes nothing
// will be mended some day, and nothing is lost until then.
//
// When it has taken something else it is asked once more: it may have been
// mended just now.
func (s *Sink) settle(ctx context.Context, batch []item, err error) (settled bool) {
	if !errors.As(err, &refusedError{}) {
		return false
	}
	plain, hasDetail := withoutDetail(batch[0])
	took := hasDetail && s.took(ctx, plain)
	if !took && !s.takes(ctx, batch[1:]) {
		return false
	}
	rejected, again := s.send(ctx, batch[:1])
	switch {
	case again == nil && rejected == nil:
	case again != nil && !errors.As(again, &refusedError{}):
		return false
	case took:
		s.logger.Warn("the collector refuses an event, and took it without its detail", "seq", batch[0].pos.Seq, "error", err)
	default:
		s.logger.Warn("the collector refuses an event for good: it is not shipped", "seq", batch[0].pos.Seq, "error", err)
	}
	return true
}

// took sends one event, and tells whether it was taken.
func (s *Sink) took(ctx context.Context, it item) bool {
	rejected, err := s.send(ctx, []item{it})
	return err == nil && rejected == nil
}

// takes tells whether the collector takes any of those events, of which it
// tries a few. What it takes comes again when its turn is.
func (s *Sink) takes(ctx context.Context, later []item) bool {
	for i := 0; i < len(later) && ctx.Err() == nil; i = 2*i + 1 {
		if s.took(ctx, later[i]) {
			return true
		}
	}
	return false
}

// withoutDetail is the event less what may be long; ok is false where it has no
// detail.
func withoutDetail(it item) (plain item, ok bool) {
	var rest []attribute.KeyValue
	it.record.WalkAttributes(func(kv attribute.KeyValue) bool {
		if kv.Key == attrDetail {
			ok = true
		} else {
			rest = append(rest, kv)
		}
		return true
	})
	record := it.record.Clone()
	record.SetAttributes(append(rest, attribute.Bool(attrTruncated, true))...)
	return item{pos: it.pos, record: record}, ok
}

// sizeOf is about what a record takes up in a request.
func sizeOf(r *sdklog.Record) int {
	size := len(r.Body().AsString())
	r.WalkAttributes(func(kv attribute.KeyValue) bool {
		size += len(kv.Key) + 8
		if kv.Value.Type() == attribute.STRING {
			size += len(kv.Value.AsString())
		}
		return true
	})
	return size
}
