package docker

import (
	"context"
	"errors"
	"fmt"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/cni"
)

// invalid refuses a request because of one of its fields.
func invalid(field, format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, "%s: %s", field, fmt.Sprintf(format, args...))
}

// refused refuses a field that this backend cannot carry over.
func refused(field, why string) error {
	return status.Errorf(codes.InvalidArgument, "%s: not supported on the docker backend: %s", field, why)
}

// notFound says that the Engine has no such object, or one that is not ours to touch.
func notFound(kind, id string) error {
	return status.Errorf(codes.NotFound, "%s %q: not found in the docker engine", kind, id)
}

// fail makes a gRPC status of an error: its code by type, its message with
// what was being done.
func (s *server) fail(err error, format string, args ...any) error {
	doing := fmt.Sprintf(format, args...)
	if st, ok := statusIn(err); ok {
		return status.Errorf(st.Code(), "%s: %s", doing, st.Message())
	}
	if client.IsErrConnectionFailed(err) {
		return status.Errorf(codes.Unavailable, "%s: docker engine at %s cannot be reached: check that dockerd runs and listens there: %v",
			doing, s.endpoint, err)
	}
	return status.Errorf(codeOf(err), "%s: %v", doing, err)
}

// statusIn finds a gRPC status in the chain of err.
func statusIn(err error) (*status.Status, bool) {
	var with interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &with) {
		return nil, false
	}
	return with.GRPCStatus(), true
}

// codeOf is the gRPC code for the Engine's errors, by their type.
func codeOf(err error) codes.Code {
	for _, c := range []struct {
		is   func(error) bool
		code codes.Code
	}{
		{func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }, codes.DeadlineExceeded},
		{func(err error) bool { return errors.Is(err, context.Canceled) }, codes.Canceled},
		{func(err error) bool { return errors.Is(err, cni.ErrNoNetwork) }, codes.FailedPrecondition},
		{func(err error) bool { return errors.Is(err, cni.ErrInvalid) }, codes.InvalidArgument},
		{client.IsErrConnectionFailed, codes.Unavailable},
		{cerrdefs.IsNotFound, codes.NotFound},
		{cerrdefs.IsInvalidArgument, codes.InvalidArgument},
		{cerrdefs.IsUnauthorized, codes.Unauthenticated},
		{cerrdefs.IsPermissionDenied, codes.PermissionDenied},
		{cerrdefs.IsAlreadyExists, codes.AlreadyExists},
		{cerrdefs.IsConflict, codes.FailedPrecondition},
		{cerrdefs.IsFailedPrecondition, codes.FailedPrecondition},
		{cerrdefs.IsUnavailable, codes.Unavailable},
		{cerrdefs.IsNotImplemented, codes.Unimplemented},
		{cerrdefs.IsInternal, codes.Internal},
	} {
		if c.is(err) {
			return c.code
		}
	}
	return codes.Unknown
}

// uncertain reports whether an effect may have taken place although its call
// returned err: the Engine did not get to answer, or failed on the way.
func uncertain(err error) bool {
	code := codeOf(err)
	if st, ok := statusIn(err); ok {
		code = st.Code()
	}
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.AlreadyExists,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.Aborted:
		return false
	}
	return true
}
