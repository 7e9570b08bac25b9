package docker

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// applySettings gives a started container what the Engine could not give it. It may
// be repeated. A container that cannot have what was asked for is not left
// running without it: other runtimes would not have started it either.
func (s *server) applySettings(ctx context.Context, f *found) error {
	err := s.writeSettings(f)
	if err == nil || errors.Is(err, errEnded) {
		return nil
	}
	return s.startedInVain(ctx, f.ID, err)
}

// startedInVain ends a container that was started and must not run. It returns why,
// and what went wrong with that.
func (s *server) startedInVain(ctx context.Context, id string, err error) error {
	code, text := codeOf(err), err.Error()
	if st, ok := statusIn(err); ok {
		code, text = st.Code(), st.Message()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	if failed := s.stop(ctx, id, 0); failed != nil {
		return status.Errorf(status.Code(failed), "start container %s: %s; and it could not be stopped again: %s", id, text, status.Convert(failed).Message())
	}
	return status.Errorf(code, "start container %s: %s; it was stopped again", id, text)
}

// writeSettings writes what was remembered at the container's creation.
func (s *server) writeSettings(f *found) error {
	settings, err := decodeCgroupSettings(f.cgroup)
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if settings.empty() || !f.State.Running || f.State.Pid <= 0 {
		return nil
	}
	c, err := s.node.proc.cgroupOf(f.State.Pid, f.ID)
	if errors.Is(err, errCgroupUnseen) && !settings.asked() {
		return nil
	}
	if err != nil {
		return err
	}
	return settings.write(c)
}
