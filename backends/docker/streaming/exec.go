package streaming

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/status"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	// pollFirst and pollMost are the shortest and longest pause between looks
	// at a command whose streams have ended but which may still run.
	pollFirst = time.Millisecond
	pollMost  = 100 * time.Millisecond
)

// executor runs a session's command for the library.
type executor struct {
	*Server
	// streams are those that were asked for. The library hands over all of
	// them to a WebSocket client.
	streams *remotecommand.Options
}

// ExecInContainer runs a command with the session's streams. A command that
// ran and failed is a utilexec.CodeExitError.
func (e executor) ExecInContainer(ctx context.Context, _, _, id string, cmd []string, in io.Reader, stdout, stderr io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	leave, err := e.sessions.enter()
	if err != nil {
		return err
	}
	defer leave()
	code, x, err := e.session(ctx, id, cmd, only(e.streams, in, stdout, stderr), tty, resize)
	switch {
	case err != nil:
		err = withCleanup(err, e.hangup(ctx, x, tty))
		if ctx.Err() != nil {
			return nil // the client has gone, and there is nobody to tell
		}
		return err
	case code != 0:
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return nil
}

// session runs a command until it has ended.
func (e executor) session(ctx context.Context, id string, cmd []string, client streams, tty bool, resize <-chan remotecommand.TerminalSize) (int, *execution, error) {
	x, err := e.start(ctx, id, container.ExecOptions{
		Cmd: cmd, Tty: tty,
		AttachStdin: e.streams.Stdin, AttachStdout: e.streams.Stdout, AttachStderr: e.streams.Stderr,
	})
	if err != nil {
		return 0, x, err
	}
	defer x.conn.Close()
	if tty {
		go follow(ctx, resize, func(ctx context.Context, size container.ResizeOptions) error {
			return e.engine.ContainerExecResize(ctx, x.id, size)
		})
	}
	if err := client.pump(ctx, x.conn, tty); err != nil {
		return 0, x, err
	}
	code, err := e.exitCode(ctx, x)
	return code, x, err
}

// execution is a command that the Engine was told of.
type execution struct {
	id        string // of the Engine's exec
	container string
	asked     bool // the Engine was asked to start it, and may have
	conn      *raw
}

// start creates a command and begins it. On an error the execution is what
// came of it; its connection is closed.
func (s *Server) start(ctx context.Context, id string, o container.ExecOptions) (*execution, error) {
	x := &execution{container: id}
	created, err := s.engine.ContainerExecCreate(ctx, id, o)
	if err != nil {
		return x, engineError(ctx, "exec in container "+id, err)
	}
	x.id = created.ID
	conn, err := s.dial(ctx)
	if err != nil {
		return x, err
	}
	x.asked = true
	if err := s.upgrade(ctx, conn, "/exec/"+url.PathEscape(x.id)+"/start", nil, container.ExecStartOptions{Tty: o.Tty}); err != nil {
		return x, err
	}
	x.conn = conn
	return x, nil
}

// exitCode waits until a command whose streams have ended has ended too, and
// returns its exit code. The two do not come together: the Engine may still be
// busy noting the end, and a command may close its streams and go on.
func (s *Server) exitCode(ctx context.Context, x *execution) (int, error) {
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		seen, err := s.engine.ContainerExecInspect(ctx, x.id)
		if err != nil {
			return 0, engineError(ctx, fmt.Sprintf("exit code of a command in container %s", x.container), err)
		}
		if !seen.Running {
			return seen.ExitCode, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return 0, status.FromContextError(err).Err()
		}
	}
}

// sleep waits, but not longer than ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// withCleanup adds to err what went wrong when its consequences were undone.
func withCleanup(err, cleanup error) error {
	if cleanup == nil {
		return err
	}
	return status.Errorf(status.Code(err), "%s; and then: %s", status.Convert(err).Message(), status.Convert(cleanup).Message())
}

// follow carries the client's terminal size to the command or container until
// the session ends. The first size often comes before the command runs, so a
// refused one is tried again for a moment. A size that cannot be set is given
// up: a terminal of the wrong size is no reason to end a session.
func follow(ctx context.Context, sizes <-chan remotecommand.TerminalSize, set func(context.Context, container.ResizeOptions) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			o := container.ResizeOptions{Height: uint(size.Height), Width: uint(size.Width)}
			for pause := pollFirst; pause <= pollMost; pause *= 2 {
				if set(ctx, o) == nil || sleep(ctx, pause) != nil {
					break
				}
			}
		}
	}
}
