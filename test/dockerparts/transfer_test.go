package dockerparts

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/docker/docker/api/types/container"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// transferSize is how much is sent each way.
const transferSize = 64 << 20

// payload is what is sent: not to be guessed, nor the same twice in a row.
func payload() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), transferSize) }

// sink counts and sums up what comes back.
type sink struct {
	hash.Hash
	n int
}

func newSink() *sink { return &sink{Hash: sha256.New()} }

// Write implements [io.Writer].
func (s *sink) Write(p []byte) (int, error) {
	s.n += len(p)
	return s.Hash.Write(p)
}

// check checks that it was what was sent.
func (s *sink) check(t *testing.T) {
	t.Helper()
	want := newSink()
	_, err := io.Copy(want, payload())
	check(t, err)
	if s.n != want.n || string(s.Sum(nil)) != string(want.Sum(nil)) {
		t.Errorf("%d bytes came back, of %d, or they were not those that were sent", s.n, want.n)
	}
}

// sends sends the payload, and says how that went. Who sends must read at the
// same time.
func sends(to io.WriteCloser) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(to, payload())
		done <- errors.Join(err, to.Close())
	}()
	return done
}

// TestLargeTransfers: much data, both ways at once, arrives as it was sent.
func TestLargeTransfers(t *testing.T) {
	s, id := serve(t), sleeper(t)
	cat := &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"cat"}, Stdin: true, Stdout: true}
	both := remotecommand.Options{Stdin: true, Stdout: true}
	through := func(t *testing.T, session *session) {
		got, sent := newSink(), sends(session.stdin)
		_, err := io.Copy(got, session.stdout)
		check(t, err)
		check(t, <-sent)
		got.check(t)
		if o := session.end(t); o.Status != "Success" {
			t.Errorf("ended with %+v", o)
		}
	}
	t.Run("exec", func(t *testing.T) { through(t, open(t, execURL(t, s, cat), both)) })
	t.Run("attach", func(t *testing.T) {
		id := run(t, container.Config{Cmd: []string{"cat"}, OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true},
			container.HostConfig{LogConfig: container.LogConfig{Type: "none"}})
		a, err := s.Attach(&runtimeapi.AttachRequest{ContainerId: id, Stdin: true, Stdout: true})
		check(t, err)
		through(t, open(t, a.Url, both))
	})
	t.Run("exec over WebSocket", func(t *testing.T) {
		w := openSocket(t, execURL(t, s, cat))
		got, sent := newSink(), sends(channel{w})
		w.receive(func(channel byte, b []byte) bool {
			if channel == channelStdout {
				_, _ = got.Write(b)
			}
			return got.n >= transferSize
		})
		check(t, <-sent)
		got.check(t)
	})
	t.Run("port-forward", func(t *testing.T) {
		listenIn(t, pidOf(t, id), "127.0.0.1:8001", func(c *net.TCPConn) {
			echo(c)
			_ = c.CloseWrite()
		})
		r, err := s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: id})
		check(t, err)
		data, failed := forward(t, dial(t, r.Url, portforward.ProtocolV1Name), 8001, 1)
		got, sent := newSink(), sends(data)
		_, err = io.Copy(got, data)
		check(t, err)
		check(t, <-sent)
		got.check(t)
		if b, err := io.ReadAll(failed); err != nil || len(b) != 0 {
			t.Errorf("error stream %q, %v", b, err)
		}
	})
}

// channel writes to the standard input of a session over WebSocket, which
// cannot be closed without the rest.
type channel struct{ *socket }

// Write implements [io.Writer].
func (c channel) Write(p []byte) (int, error) { return len(p), c.send(channelStdin, p) }

// Close implements [io.Closer].
func (channel) Close() error { return nil }
