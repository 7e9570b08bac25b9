package streaming

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxMessage bounds what of an Engine's error answer is read.
const maxMessage = 64 << 10

// raw is a connection to the Engine that carries a container's or a command's
// streams.
type raw struct {
	net.Conn
	r *bufio.Reader
	// release ends the connection's dependence on its context.
	release func() bool
}

// Read reads what came after the Engine's answer.
func (c *raw) Read(p []byte) (int, error) { return c.r.Read(p) }

// Close closes the connection.
func (c *raw) Close() error {
	c.release()
	return c.Conn.Close()
}

// CloseWrite ends the standard input.
func (c *raw) CloseWrite() error {
	w, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return nil // a transport without half-close: the input ends with the session
	}
	return w.CloseWrite()
}

// dial connects to the Engine. The connection is closed when ctx ends, at any
// time: so no caller waits for an Engine that does not answer.
func (s *Server) dial(ctx context.Context) (*raw, error) {
	conn, err := s.engine.Dialer()(ctx)
	if err != nil {
		return nil, engineError(ctx, "connect to the Docker Engine", err)
	}
	c := &raw{Conn: conn, r: bufio.NewReader(conn)}
	c.release = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return c, nil
}

// upgrade posts to the Engine and makes the connection a raw stream. It closes
// the connection if that fails.
func (s *Server) upgrade(ctx context.Context, c *raw, path string, query url.Values, body any) error {
	payload, err := json.Marshal(body)
	if err == nil {
		u := url.URL{Path: "/v" + s.engine.ClientVersion() + path, RawQuery: query.Encode()}
		err = c.exchange(ctx, u.String(), payload)
	}
	if err != nil {
		_ = c.Close()
		return engineError(ctx, "open a stream on the Docker Engine", err)
	}
	return nil
}

// exchange sends the request and reads the answer's head.
func (c *raw) exchange(ctx context.Context, target string, payload []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	req.Host = "docker"
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	if err := req.Write(c.Conn); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, req)
	if err != nil {
		return err
	}
	// Engines before the upgrade header answered 200 and went on as raw stream.
	if resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode == http.StatusOK {
		return nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	if err != nil {
		return err
	}
	var said struct{ Message string }
	if json.Unmarshal(b, &said) != nil || said.Message == "" {
		said.Message = resp.Status
	}
	return status.Error(httpCode(resp.StatusCode), said.Message)
}

// httpCode returns what an Engine's answer means for the CRI.
func httpCode(n int) codes.Code {
	switch n {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.FailedPrecondition
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Unknown
}

// engineError makes a gRPC status of an error of the Engine's client. The end
// of the context comes before what it led to.
func engineError(ctx context.Context, doing string, err error) error {
	if cause := ended(ctx); cause != nil {
		return status.Errorf(status.FromContextError(cause).Code(), "%s: %v", doing, cause)
	}
	code := codes.Unknown
	var network net.Error
	switch s, ok := status.FromError(err); {
	case ok:
		return status.Errorf(s.Code(), "%s: %s", doing, s.Message())
	case errdefs.IsNotFound(err):
		code = codes.NotFound
	case errdefs.IsConflict(err):
		code = codes.FailedPrecondition
	case errdefs.IsInvalidArgument(err):
		code = codes.InvalidArgument
	case errdefs.IsUnavailable(err), errors.As(err, &network):
		code = codes.Unavailable
	}
	return status.Errorf(code, "%s: %v", doing, err)
}

// ended returns why a context has ended, nil if it has not. A connection notes
// by itself that the time is up, and may do so before the context.
func ended(ctx context.Context) error {
	if at, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// running returns a container, or an error when it does not run.
func (s *Server) running(ctx context.Context, id string) (container.InspectResponse, error) {
	c, err := s.engine.ContainerInspect(ctx, id)
	if err != nil {
		return c, engineError(ctx, fmt.Sprintf("look at container %s", id), err)
	}
	if c.ContainerJSONBase == nil || c.State == nil || c.Config == nil {
		return c, status.Errorf(codes.Internal, "the Docker Engine says nothing of the state of container %s", id)
	}
	if !c.State.Running {
		return c, status.Errorf(codes.FailedPrecondition, "container %s is not running: it is %s", id, c.State.Status)
	}
	return c, nil
}
