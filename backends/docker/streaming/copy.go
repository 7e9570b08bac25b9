package streaming

import (
	"context"
	"io"

	"github.com/docker/docker/pkg/stdcopy"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// streams are the client's side of a session. Each may be nil.
type streams struct {
	in             io.Reader
	stdout, stderr io.Writer
}

// only returns the streams that were asked for.
func only(o *remotecommand.Options, in io.Reader, stdout, stderr io.WriteCloser) streams {
	var s streams
	if o.Stdin && in != nil {
		s.in = in
	}
	if o.Stdout && stdout != nil {
		s.stdout = stdout
	}
	if o.Stderr && stderr != nil {
		s.stderr = stderr
	}
	return s
}

// pump carries a session: from the client to the Engine and back, until the
// Engine ends its side, a stream of the client fails or ctx ends. The
// connection stays open.
//
// The goroutine that reads the client's input ends with the client's
// connection, which the library closes when the session has ended.
func (s streams) pump(ctx context.Context, c *raw, tty bool) error {
	if s.in != nil {
		go func() {
			// Whether the input ended or broke off, the command sees its end.
			_, _ = io.Copy(c, s.in)
			_ = c.CloseWrite()
		}()
	}
	stdout, stderr := s.stdout, s.stderr
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	var err error
	if tty {
		_, err = io.Copy(stdout, c)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, c)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
