package proxy

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// servicePrefix are the services that crimux stands in front of. A backend's
// socket may serve others, such as containerd's own, which can do anything
// without a record: those are not reachable through crimux.
const servicePrefix = "/runtime.v1."

// passUnknown carries out a method that is newer than this version of crimux:
// its frames go both ways as they are. Its backend is that of the sandbox or
// container that field 1 of the first message names, as in every method of
// CRI that has an id, and otherwise the default.
func (s *Server) passUnknown(ctx context.Context, full string, ss grpc.ServerStream) error {
	if !strings.HasPrefix(full, servicePrefix) {
		return status.Errorf(codes.Unimplemented, "unknown method %s: crimux serves runtime.v1", full)
	}
	first := new(backends.Frame)
	if err := ss.RecvMsg(first); err != nil {
		return err
	}
	target, err := s.unknownTarget(wire.Message(first.Bytes()))
	if err != nil {
		return err
	}
	if err := target.Check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := target.Stream(ctx, full)
	if err != nil {
		return err
	}
	go upload(ss, st, first, cancel)
	return download(ss, st)
}

// unknownTarget finds the backend by the id in field 1.
func (s *Server) unknownTarget(first wire.Message) (*backends.Member, error) {
	id := first.String(idField)
	if sb := s.knownSandbox(id); sb != nil {
		if err := notOfRehearsal(sb.GetLabels(), "sandbox", id); err != nil {
			return nil, err
		}
		return s.member(sb.GetBackend())
	}
	if ctr := s.knownContainer(id); ctr != nil {
		if err := notOfRehearsal(ctr.GetLabels(), "container", id); err != nil {
			return nil, err
		}
		return s.member(ctr.GetBackend())
	}
	return s.defaultBackend(), nil
}

// upload sends the client's messages on. It ends with the client's half of
// the stream; a failure of the backend's is told by download.
func upload(ss grpc.ServerStream, st backends.Stream, f *backends.Frame, cancel context.CancelFunc) {
	for {
		err := st.Send(f)
		f.Free()
		if err != nil {
			return
		}
		f = new(backends.Frame)
		if err := ss.RecvMsg(f); errors.Is(err, io.EOF) {
			if st.CloseSend() != nil {
				cancel()
			}
			return
		} else if err != nil {
			cancel()
			return
		}
	}
}

// download sends the backend's header, messages and trailer on.
func download(ss grpc.ServerStream, st backends.Stream) error {
	h, err := st.Header()
	if err == nil && len(h) > 0 {
		err = ss.SendHeader(replyHeader(h))
	}
	if err != nil {
		return err
	}
	for {
		f, err := st.Recv()
		if err != nil {
			ss.SetTrailer(st.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		err = ss.SendMsg(f)
		f.Free()
		if err != nil {
			return err
		}
	}
}
