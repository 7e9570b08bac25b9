package streaming

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// fake is an Engine for faults that a real one does not show on demand. Its
// commands do not exist: stream serves their output.
type fake struct {
	web *httptest.Server
	// stream serves the raw stream of an exec or attach.
	stream func(r *http.Request, conn net.Conn)
	// refuse answers the upgrade with a status instead.
	refuse int
	// create, and inspect, where set, answer in place of the defaults.
	create  func(ctx context.Context) error
	inspect func(n int) (container.ExecInspect, error)

	mu       sync.Mutex
	inspects int
	sizes    []container.ResizeOptions
	started  []map[string]any
	state    *container.State
	tty      bool
}

func newFake(t *testing.T) *fake {
	f := &fake{state: &container.State{Status: "running", Running: true}}
	f.web = httptest.NewServer(f)
	t.Cleanup(f.web.Close)
	return f
}

// ServeHTTP is the Engine's upgrade to a raw stream.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	f.mu.Lock()
	f.started = append(f.started, body)
	f.mu.Unlock()
	if f.refuse != 0 {
		w.WriteHeader(f.refuse)
		_, _ = io.WriteString(w, `{"message":"said the Engine"}`)
		return
	}
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if f.stream == nil {
		time.Sleep(time.Hour) // an Engine that does not answer
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	f.stream(r, conn)
}

func (f *fake) ContainerInspect(_ context.Context, id string) (container.InspectResponse, error) {
	if id == "nobody" {
		return container.InspectResponse{}, errdefs.ErrNotFound
	}
	return container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{ID: id, State: f.state}, Config: &container.Config{Tty: f.tty},
	}, nil
}

func (f *fake) ContainerResize(ctx context.Context, _ string, o container.ResizeOptions) error {
	return f.ContainerExecResize(ctx, "", o)
}

func (f *fake) ContainerExecResize(_ context.Context, _ string, o container.ResizeOptions) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sizes = append(f.sizes, o)
	if len(f.sizes) < 3 {
		return errdefs.ErrConflict // not started yet
	}
	return nil
}

func (f *fake) ContainerExecCreate(ctx context.Context, _ string, _ container.ExecOptions) (container.ExecCreateResponse, error) {
	var err error
	if f.create != nil {
		err = f.create(ctx)
	}
	return container.ExecCreateResponse{ID: "x"}, err
}

func (f *fake) ContainerExecInspect(ctx context.Context, _ string) (container.ExecInspect, error) {
	if err := ctx.Err(); err != nil {
		return container.ExecInspect{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inspects++
	if f.inspect != nil {
		return f.inspect(f.inspects)
	}
	return container.ExecInspect{ContainerID: "c"}, nil
}

func (f *fake) ClientVersion() string { return "1.41" }

func (f *fake) Dialer() func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", f.web.Listener.Addr().String())
	}
}

// says makes a stream that prints and ends.
func says(stdout, stderr string) func(*http.Request, net.Conn) {
	return func(_ *http.Request, c net.Conn) {
		_, _ = io.WriteString(stdcopy.NewStdWriter(c, stdcopy.Stdout), stdout)
		_, _ = io.WriteString(stdcopy.NewStdWriter(c, stdcopy.Stderr), stderr)
	}
}

// newServer returns a server on a fake, not running.
func newServer(t *testing.T, f Engine) *Server {
	t.Helper()
	s, err := New(Options{Engine: f, SandboxPID: func(context.Context, string) (int, error) { return 0, errors.New("no such sandbox") }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.listener.Close() })
	return s
}

// running returns a server that runs, and how to end it.
func runServer(t *testing.T, f Engine) (*Server, func()) {
	t.Helper()
	s := newServer(t, f)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Error("the server does not end")
			}
		})
	}
	t.Cleanup(stop)
	return s, stop
}

// get sends a plain request and returns the status.
func get(t *testing.T, method, url string) int {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// socket is a raw WebSocket client: frames of the v4.channel.k8s.io protocol.
type socket struct {
	net.Conn
	r *bufio.Reader
}

// dialSocket opens a WebSocket session.
func dialSocket(t *testing.T, url string) *socket {
	t.Helper()
	address, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s := &socket{conn, bufio.NewReader(conn)}
	_, err = io.WriteString(conn, "GET /"+path+" HTTP/1.1\r\nHost: "+address+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Origin: http://localhost\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	return s
}

// send sends to a channel; the mask is zero.
func (s *socket) send(t *testing.T, channel byte, text string) {
	t.Helper()
	if len(text) > 100 {
		t.Fatal("short frames only")
	}
	frame := append([]byte{0x82, 0x80 | byte(len(text)+1), 0, 0, 0, 0, channel}, text...)
	if _, err := s.Write(frame); err != nil {
		t.Fatal(err)
	}
}

// all reads all channels to the end.
func (s *socket) all(t *testing.T) map[byte]string {
	t.Helper()
	out := map[byte]string{}
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(s.r, head); err != nil || head[0]&0xf == 8 {
			return out
		}
		size := int(head[1])
		if size == 126 {
			if _, err := io.ReadFull(s.r, head); err != nil {
				t.Fatal(err)
			}
			size = int(head[0])<<8 | int(head[1])
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(s.r, body); err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			out[body[0]] += string(body[1:])
		}
	}
}
