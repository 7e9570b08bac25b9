package dockerparts

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The channels of an exec or attach over WebSocket.
const (
	channelStdin = iota
	channelStdout
	channelStderr
	channelError
	channelResize
)

// socket is the client's side of a session over WebSocket. The protocol has no
// half-close: an API server that offers one turns it into SPDY.
type socket struct {
	*websocket.Conn
	t *testing.T
}

// openSocket opens a session.
func openSocket(t *testing.T, url string) *socket {
	t.Helper()
	c, err := websocket.NewConfig(strings.Replace(url, "http://", "ws://", 1), "http://localhost")
	check(t, err)
	c.Protocol = []string{"v4.channel.k8s.io"}
	conn, err := c.DialContext(t.Context())
	check(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &socket{conn, t}
}

// send sends to a channel.
func (s *socket) send(channel byte, b []byte) error {
	return websocket.Message.Send(s.Conn, append([]byte{channel}, b...))
}

// receive hands every message to see, until that says it has enough or the
// session ends.
func (s *socket) receive(see func(channel byte, b []byte) (enough bool)) {
	s.t.Helper()
	for {
		var b []byte
		err := websocket.Message.Receive(s.Conn, &b)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.t.Errorf("receive: %v", err)
			return
		}
		if len(b) > 0 && see(b[0], b[1:]) {
			return
		}
	}
}

// end reads the session to its end.
func (s *socket) end() (o outcome) {
	s.t.Helper()
	var text [5]strings.Builder
	s.receive(func(channel byte, b []byte) bool { text[channel].Write(b); return false })
	o.stdout, o.stderr = text[channelStdout].String(), text[channelStderr].String()
	if err := json.Unmarshal([]byte(text[channelError].String()), &o); err != nil {
		s.t.Fatalf("status %q: %v", text[channelError].String(), err)
	}
	return o
}

// until reads until stdout has held want.
func (s *socket) until(want string) {
	s.t.Helper()
	var seen strings.Builder
	s.receive(func(channel byte, b []byte) bool {
		if channel == channelStdout {
			seen.Write(b)
		}
		return strings.Contains(seen.String(), want)
	})
	if !strings.Contains(seen.String(), want) {
		s.t.Fatalf("the session ended before %q came, after %q", want, seen.String())
	}
}

func TestExecOverWebSocket(t *testing.T) {
	s, id := serve(t), sleeper(t)
	o := openSocket(t, execURL(t, s, &runtimeapi.ExecRequest{ContainerId: id, Stdout: true, Stderr: true,
		Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}})).end()
	if o.stdout != "out\n" || o.stderr != "err\n" || o.code() != 7 {
		t.Errorf("%+v", o)
	}
	w := openSocket(t, execURL(t, s, &runtimeapi.ExecRequest{ContainerId: id, Stdin: true, Stdout: true, Stderr: true,
		Cmd: []string{"sh", "-c", "read line; echo got $line"}}))
	check(t, w.send(channelStdin, []byte("hello\n")))
	if o := w.end(); o.stdout != "got hello\n" || o.Status != "Success" {
		t.Errorf("%+v", o)
	}
}

// TestExecTerminalOverWebSocket: it is resized, and hung up when its client
// goes away.
func TestExecTerminalOverWebSocket(t *testing.T) {
	s, id := serve(t), sleeper(t)
	w := openSocket(t, execURL(t, s, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"sh"}, Tty: true, Stdin: true, Stdout: true}))
	check(t, w.send(channelResize, []byte(`{"Width":101,"Height":33}`)))
	check(t, w.send(channelStdin, []byte("until [ \"$(stty size)\" = '33 101' ]; do sleep 0.05; done; echo it-is-`echo so`\n")))
	w.until("it-is-so")
	check(t, w.send(channelStdin, []byte("sleep 27183\n")))
	eventually(t, "the command to run", func() bool { return running("sleep\x0027183") == 1 })
	check(t, w.Close())
	eventually(t, "the command to end with its terminal", func() bool { return running("sleep\x0027183") == 0 })
}

func TestAttachOverWebSocket(t *testing.T) {
	s := serve(t)
	id := run(t, container.Config{
		Cmd: []string{"sh", "-c", "read line; echo got $line; echo err $line >&2"}, OpenStdin: true,
	}, container.HostConfig{})
	a, err := s.Attach(&runtimeapi.AttachRequest{ContainerId: id, Stdin: true, Stdout: true, Stderr: true})
	check(t, err)
	w := openSocket(t, a.Url)
	check(t, w.send(channelStdin, []byte("one\n")))
	if o := w.end(); o.stdout != "got one\n" || o.stderr != "err one\n" || o.Status != "Success" {
		t.Errorf("%+v", o)
	}
}

// TestPortForwardOverWebSocket: two ports and one that nobody listens on, in
// one session.
func TestPortForwardOverWebSocket(t *testing.T) {
	s, id := serve(t), sleeper(t)
	pid := pidOf(t, id)
	withIPv6(t, pid)
	listenIn(t, pid, "127.0.0.1:8001", echo)
	listenIn(t, pid, "[::1]:8002", echo)
	r, err := s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: id, Port: []int32{8001, 8002, 9}})
	check(t, err)
	w := openSocket(t, r.Url)
	for i := range byte(2) {
		check(t, w.send(2*i, fmt.Appendf(nil, "hello %d", i)))
	}
	check(t, w.SetReadDeadline(time.Now().Add(time.Minute)))
	var got [6]strings.Builder
	w.receive(func(channel byte, b []byte) bool {
		got[channel].Write(b)
		return strings.HasSuffix(got[0].String(), "hello 0") && strings.HasSuffix(got[2].String(), "hello 1") && strings.Contains(got[5].String(), "port 9")
	})
	for i, port := range []uint16{8001, 8002, 9} {
		// Both channels of a port begin with its number.
		for _, channel := range []int{2 * i, 2*i + 1} {
			if b := got[channel].String(); len(b) < 2 || binary.LittleEndian.Uint16([]byte(b)) != port {
				t.Errorf("channel %d: %q", channel, b)
			}
		}
	}
	if !strings.Contains(got[5].String(), "connection refused") {
		t.Errorf("the port that nobody listens on: %q", got[5].String())
	}
}
