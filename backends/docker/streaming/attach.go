package streaming

import (
	"context"
	"io"
	"net/url"

	"github.com/docker/docker/api/types/container"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// attacher attaches a session to a container for the library.
type attacher struct {
	*Server
	streams *remotecommand.Options
}

// AttachContainer carries the session until the container ends or the client
// goes. What the end of the client's input means to the container is the
// container's own setting, StdinOnce.
func (a attacher) AttachContainer(ctx context.Context, _, _, id string, in io.Reader, stdout, stderr io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	leave, err := a.sessions.enter()
	if err != nil {
		return err
	}
	defer leave()
	c, err := a.running(ctx, id)
	if err != nil {
		return err
	}
	query := url.Values{"stream": {"1"}}
	for name, wanted := range map[string]bool{"stdin": a.streams.Stdin, "stdout": a.streams.Stdout, "stderr": a.streams.Stderr} {
		if wanted {
			query.Set(name, "1")
		}
	}
	conn, err := a.dial(ctx)
	if err != nil {
		return err
	}
	if err := a.upgrade(ctx, conn, "/containers/"+url.PathEscape(c.ID)+"/attach", query, nil); err != nil {
		return err
	}
	defer conn.Close()
	// The container's own setting says how the Engine sends the streams,
	// whatever the client believes.
	tty := c.Config.Tty
	if tty {
		go follow(ctx, resize, func(ctx context.Context, size container.ResizeOptions) error {
			return a.engine.ContainerResize(ctx, c.ID, size)
		})
	}
	err = only(a.streams, in, stdout, stderr).pump(ctx, conn, tty)
	if ctx.Err() != nil {
		return nil // the client has gone, and there is nobody to tell
	}
	return err
}
