package streaming

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// linger is how long a connection may stay open after its session ended, so
// that the client reads the last of it. The library closes it by itself but
// when a client never opens the streams that it promised.
const linger = 10 * time.Second

// conns are the connections that sessions took over from the HTTP server,
// which does not close those by itself. The zero value is ready for use.
type conns struct {
	mu     sync.Mutex
	all    map[*watched]struct{}
	closed bool
}

// add takes up a connection, and closes it when it came too late.
func (c *conns) add(w *watched) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		if c.all == nil {
			c.all = map[*watched]struct{}{}
		}
		c.all[w] = struct{}{}
	}
	c.mu.Unlock()
	if closed {
		_ = w.Close()
	}
}

// drop forgets a connection.
func (c *conns) drop(w *watched) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, w)
}

// closeAll closes what is there and what comes later.
func (c *conns) closeAll() {
	c.mu.Lock()
	c.closed = true
	var all []*watched
	for w := range c.all {
		all = append(all, w)
	}
	c.mu.Unlock()
	for _, w := range all {
		_ = w.Close()
	}
}

// gate counts the sessions that are at work, in the Engine or in a pod. The
// zero value is open.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup
}

// errClosed answers a session that begins when the server has ended.
var errClosed = status.Error(codes.Unavailable, "the streaming server has ended")

// enter lets a session begin. It says leave when it ends.
func (g *gate) enter() (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errClosed
	}
	g.inside.Add(1)
	return g.inside.Done, nil
}

// close lets no more sessions begin and waits for those that have.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.inside.Wait()
}

// takeover is the ResponseWriter of a session. It hands out the connection in
// a form that tells when the client has gone: after a takeover the request's
// own context does not.
type takeover struct {
	http.ResponseWriter
	conns *conns
	gone  func()
	conn  *watched
}

// Hijack implements http.Hijacker.
func (t *takeover) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := t.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, fmt.Errorf("take over the connection: %w", http.ErrNotSupported)
	}
	conn, rw, err := h.Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	// What the server has read ahead comes first. Buffered bytes are there: a
	// Peek of them cannot fail.
	ahead, _ := rw.Reader.Peek(rw.Reader.Buffered())
	w := &watched{Conn: conn, conns: t.conns, gone: t.gone}
	w.in = io.MultiReader(bytes.NewReader(bytes.Clone(ahead)), conn)
	t.conn = w
	t.conns.add(w)
	return w, bufio.NewReadWriter(bufio.NewReader(w), bufio.NewWriter(w)), nil
}

// finish lets go of the connection when the session has ended.
func (t *takeover) finish() {
	if t.conn != nil {
		t.conn.finish()
	}
}

// watched is a connection that tells when it ends.
type watched struct {
	net.Conn
	in    io.Reader
	conns *conns
	gone  func()

	once sync.Once
	err  error

	mu    sync.Mutex
	timer *time.Timer
	ended bool
}

// Read reads, and tells when there is no more to come.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.in.Read(p)
	if err != nil && !isTimeout(err) {
		w.gone()
	}
	return n, err
}

// isTimeout reports whether a read merely ran into a deadline.
func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// Close closes the connection.
func (w *watched) Close() error {
	w.once.Do(func() {
		w.gone()
		w.conns.drop(w)
		w.err = w.Conn.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = true
		if w.timer != nil {
			w.timer.Stop()
		}
	})
	return w.err
}

// finish closes the connection after a while, if nobody has done so by then.
func (w *watched) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended && w.timer == nil {
		w.timer = time.AfterFunc(linger, func() { _ = w.Close() })
	}
}
