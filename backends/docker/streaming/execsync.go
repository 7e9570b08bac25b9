package streaming

import (
	"context"
	"time"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxOutput bounds the output of an ExecSync, both streams together: so the
// answer, with what frames it, is no longer than a kubelet takes, and a probe
// that prints too much has its exit code all the same.
const maxOutput = 16<<20 - 1<<10

// ExecSync runs cmd in a container to its end and returns its output, of which
// the first 16 MiB, and its exit code. A timeout of 0 is none.
//
// When the time is up it answers DeadlineExceeded, and when ctx ends, that;
// in both cases, and when the Engine breaks off, the command and all its
// descendants have been killed by then. If that could not be made sure of
// within 10 s the error says so. A command that cannot be started is
// answered as the Engine does: exit code 126 or 127 and the reason on stdout.
func (s *Server) ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (*runtimeapi.ExecSyncResponse, error) {
	switch {
	case containerID == "":
		return nil, status.Error(codes.InvalidArgument, "a container_id is needed")
	case len(cmd) == 0:
		return nil, status.Error(codes.InvalidArgument, "exec needs a command")
	case timeout < 0:
		return nil, status.Errorf(codes.InvalidArgument, "timeout %v is below zero", timeout)
	}
	run, cancel := ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		run, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()

	left := maxOutput
	stdout, stderr := capped{left: &left}, capped{left: &left}
	code, x, err := s.runToEnd(run, containerID, cmd, &stdout, &stderr)
	if err == nil {
		return &runtimeapi.ExecSyncResponse{Stdout: stdout.b, Stderr: stderr.b, ExitCode: int32(code)}, nil
	}
	killed := s.kill(ctx, x)
	switch {
	case ended(ctx) != nil:
		err = status.FromContextError(ended(ctx)).Err()
	case ended(run) != nil:
		err = status.Errorf(codes.DeadlineExceeded, "command in container %s did not end within %v and was killed", containerID, timeout)
	}
	return nil, withCleanup(err, killed)
}

// runToEnd runs a command until it has ended.
func (s *Server) runToEnd(ctx context.Context, id string, cmd []string, stdout, stderr *capped) (int, *execution, error) {
	x, err := s.start(ctx, id, container.ExecOptions{Cmd: cmd, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return 0, x, err
	}
	defer x.conn.Close()
	if err := (streams{stdout: stdout, stderr: stderr}).pump(ctx, x.conn, false); err != nil {
		return 0, x, engineError(ctx, "output of a command in container "+id, err)
	}
	code, err := s.exitCode(ctx, x)
	return code, x, err
}

// capped is a writer that keeps what there is room for and takes any number of
// bytes, so that a command that prints more still comes to its end.
type capped struct {
	b    []byte
	left *int // room, shared with the other stream
}

// Write never fails.
func (w *capped) Write(p []byte) (int, error) {
	keep := min(len(p), *w.left)
	*w.left -= keep
	w.b = append(w.b, p[:keep]...)
	return len(p), nil
}
