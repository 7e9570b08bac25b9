package streaming

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

func TestNewRefuses(t *testing.T) {
	f := newFake(t)
	pid := newServer(t, f).pid
	for name, o := range map[string]Options{
		"nothing":      {},
		"no sandboxes": {Engine: f},
		"all":          {Engine: f, SandboxPID: pid, Listen: ":0"},
		"any":          {Engine: f, SandboxPID: pid, Listen: "0.0.0.0:0"},
		"other":        {Engine: f, SandboxPID: pid, Listen: "192.0.2.1:0"},
		"no port":      {Engine: f, SandboxPID: pid, Listen: "127.0.0.1"},
		"in use":       {Engine: f, SandboxPID: pid, Listen: f.web.Listener.Addr().String()},
	} {
		if s, err := New(o); err == nil {
			t.Errorf("%s: listens on %v", name, s.listener.Addr())
		}
	}
	s, err := New(Options{Engine: f, SandboxPID: pid, Listen: "[::1]:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	r, err := s.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"x"}, Stdout: true})
	if err != nil || !strings.HasPrefix(r.Url, "http://[::1]:") {
		t.Errorf("URL %q, %v", r.GetUrl(), err)
	}
}

func TestRequestsAreChecked(t *testing.T) {
	s := newServer(t, newFake(t))
	cmd := []string{"x"}
	for name, f := range map[string]func() error{
		"exec without id":      func() error { _, err := s.Exec(&runtimeapi.ExecRequest{Cmd: cmd, Stdout: true}); return err },
		"exec without command": func() error { _, err := s.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Stdout: true}); return err },
		"exec without streams": func() error { _, err := s.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: cmd}); return err },
		"exec tty with stderr": func() error {
			_, err := s.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: cmd, Tty: true, Stderr: true})
			return err
		},
		"exec nil":               func() error { _, err := s.Exec(nil); return err },
		"attach without id":      func() error { _, err := s.Attach(&runtimeapi.AttachRequest{Stdout: true}); return err },
		"attach without streams": func() error { _, err := s.Attach(&runtimeapi.AttachRequest{ContainerId: "c"}); return err },
		"attach nil":             func() error { _, err := s.Attach(nil); return err },
		"forward without id":     func() error { _, err := s.PortForward(&runtimeapi.PortForwardRequest{}); return err },
		"forward nil":            func() error { _, err := s.PortForward(nil); return err },
		"execsync without id":    func() error { _, err := s.ExecSync(t.Context(), "", cmd, 0); return err },
		"execsync without cmd":   func() error { _, err := s.ExecSync(t.Context(), "c", nil, 0); return err },
		"execsync below zero":    func() error { _, err := s.ExecSync(t.Context(), "c", cmd, -1); return err },
	} {
		if err := f(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTokens: unguessable, good once, for a minute, and not without end.
func TestTokens(t *testing.T) {
	f := newFake(t)
	f.stream = says("", "")
	s, _ := runServer(t, f)
	now := time.Now()
	s.tokens.now = func() time.Time { return now }
	ask := func() string {
		r, err := s.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"x"}, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		return r.Url
	}
	seen := map[string]bool{}
	for range 100 {
		u, err := url.Parse(ask())
		if err != nil {
			t.Fatal(err)
		}
		token := strings.TrimPrefix(u.Path, "/exec/")
		if u.Scheme != "http" || len(token) < 128/4 || seen[token] {
			t.Fatalf("URL %v", u)
		}
		if ip := net.ParseIP(u.Hostname()); !ip.IsLoopback() {
			t.Fatalf("URL %v", u)
		}
		seen[token] = true
	}
	used := ask()
	// The first use is answered, if only that it is no upgrade.
	if got := get(t, http.MethodGet, used); got == http.StatusNotFound {
		t.Errorf("first use: %d", got)
	}
	late := ask()
	timely := ask()
	now = now.Add(59 * time.Second)
	if got := get(t, http.MethodPost, timely); got == http.StatusNotFound {
		t.Errorf("after 59 s: %d", got)
	}
	now = now.Add(2 * time.Second)
	base := used[:strings.LastIndex(used, "/exec/")]
	for what, u := range map[string]string{
		"second use": used, "61 s": late, "no token": base + "/exec/", "other token": base + "/exec/00000000", "root": base + "/", "deeper": ask() + "/x", "library's own path": base + "/exec/abcdefgh",
	} {
		if got := get(t, http.MethodGet, u); got != http.StatusNotFound {
			t.Errorf("%s: %d", what, got)
		}
	}
	if got := get(t, http.MethodDelete, ask()); got != http.StatusNotFound {
		t.Errorf("other method: %d", got)
	}
}

func TestTokensHaveABound(t *testing.T) {
	s := newServer(t, newFake(t))
	now := time.Now()
	s.tokens.now = func() time.Time { return now }
	ask := func() error {
		_, err := s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "p"})
		return err
	}
	for range maxInFlight {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	now = now.Add(tokenTTL + time.Second)
	if err := ask(); err != nil || len(s.tokens.all) != 1 {
		t.Errorf("a minute later: %v, %d tokens", err, len(s.tokens.all))
	}
}

// TestWebSocket: the protocol that needs no SPDY, with all its channels.
func TestWebSocket(t *testing.T) {
	f := newFake(t)
	f.stream = func(r *http.Request, c net.Conn) {
		buf := make([]byte, 5)
		if _, err := c.Read(buf); err != nil {
			return
		}
		says("got "+string(buf), "and err")(r, c)
	}
	f.inspect = func(int) (container.ExecInspect, error) { return container.ExecInspect{ExitCode: 7, Pid: 1}, nil }
	s, _ := runServer(t, f)
	r, err := s.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"x"}, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	w := dialSocket(t, r.Url)
	w.send(t, 0, "hello")
	got := w.all(t)
	if got[1] != "got hello" || got[2] != "and err" || !strings.Contains(got[3], `"message":"7"`) {
		t.Errorf("channels %q", got)
	}
}

// TestWebSocketStreamsNotAskedFor: the library hands over streams that were
// not asked for; the Engine must not be asked for them.
func TestWebSocketStreamsNotAskedFor(t *testing.T) {
	f := newFake(t)
	f.stream = says("out", "err")
	s, _ := runServer(t, f)
	a, err := s.Attach(&runtimeapi.AttachRequest{ContainerId: "c", Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := dialSocket(t, a.Url).all(t); got[1] != "out" || got[2] != "" || !strings.Contains(got[3], "Success") {
		t.Errorf("channels %q", got)
	}
}

// TestRunEndsSessions: sessions in every state end with the server.
func TestRunEndsSessions(t *testing.T) {
	f := newFake(t)
	began, ended := make(chan struct{}, 3), make(chan struct{}, 3)
	f.stream = func(_ *http.Request, c net.Conn) {
		began <- struct{}{}
		_, _ = c.Read(make([]byte, 1))
		ended <- struct{}{}
	}
	f.inspect = func(int) (container.ExecInspect, error) { return container.ExecInspect{ExitCode: 1}, nil }
	s, stop := runServer(t, f)
	exec, err1 := s.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"x"}, Tty: true, Stdout: true})
	attach, err2 := s.Attach(&runtimeapi.AttachRequest{ContainerId: "c", Stdout: true})
	idle, err3 := s.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"x"}, Stdout: true})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	dialSocket(t, exec.Url)
	dialSocket(t, attach.Url)
	await := func(what string, of <-chan struct{}) {
		t.Helper()
		for range 2 {
			select {
			case <-of:
			case <-time.After(time.Minute):
				t.Fatal(what)
			}
		}
	}
	await("a session does not begin", began)
	stop()
	await("a session outlives the server", ended)
	if _, err := http.Get(idle.Url); err == nil {
		t.Error("the server still serves")
	}
	if _, err := s.sessions.enter(); !errors.Is(err, errClosed) {
		t.Errorf("a session begins after the end: %v", err)
	}
}

// TestFailedSessionsAreNotPrinted: the libraries would print them to stderr,
// with what the Engine said of the command.
func TestFailedSessionsAreNotPrinted(t *testing.T) {
	printed, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	f.refuse = http.StatusBadRequest
	s, stop := runServer(t, f)
	func() {
		defer func(before *os.File) { os.Stderr = before }(os.Stderr)
		os.Stderr = printed
		exec, err := s.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"secret"}, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(dialSocket(t, exec.Url).all(t)); !strings.Contains(got, "said the Engine") {
			t.Errorf("exec: channels %q", got)
		}
		forward, err := s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "p", Port: []int32{80}})
		if err != nil {
			t.Fatal(err)
		}
		dialSocket(t, forward.Url).all(t)
		if got := get(t, http.MethodGet, exec.Url); got != http.StatusNotFound {
			t.Errorf("second use: %d", got)
		}
		stop()
		klog.Flush()
	}()
	if b, err := os.ReadFile(printed.Name()); err != nil || len(b) > 0 {
		t.Errorf("printed %q, %v", b, err)
	}
}

func TestForwardWithoutSandbox(t *testing.T) {
	s, _ := runServer(t, newFake(t))
	r, err := s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "p", Port: []int32{80}})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(dialSocket(t, r.Url).all(t)); !strings.Contains(got, "no such sandbox") {
		t.Errorf("channels %q", got)
	}
}
