package dockerparts

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/crimux/crimux/test/stream"
)

// dial connects to a streaming URL as the kubelet does, with SPDY.
func dial(t *testing.T, url, protocol string) httpstream.Connection {
	t.Helper()
	c, err := stream.Dial(url, protocol)
	check(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// session is the client's side of an exec or attach.
type session struct {
	conn                                  httpstream.Connection
	stdin, stdout, stderr, failed, resize httpstream.Stream
}

// open opens the streams of a session.
func open(t *testing.T, url string, o remotecommand.Options) *session {
	t.Helper()
	s := &session{conn: dial(t, url, remotecommand.StreamProtocolV4Name)}
	open := func(kind string) httpstream.Stream {
		h := http.Header{}
		h.Set(remotecommand.StreamType, kind)
		st, err := s.conn.CreateStream(h)
		check(t, err)
		return st
	}
	s.failed = open(remotecommand.StreamTypeError)
	if o.Stdin {
		s.stdin = open(remotecommand.StreamTypeStdin)
	}
	if o.Stdout {
		s.stdout = open(remotecommand.StreamTypeStdout)
	}
	if o.Stderr {
		s.stderr = open(remotecommand.StreamTypeStderr)
	}
	if o.TTY {
		s.resize = open(remotecommand.StreamTypeResize)
	}
	return s
}

// outcome is what a session ended with.
type outcome struct {
	stdout, stderr string
	Status         string
	Message        string
	Details        struct {
		Causes []struct {
			Type    string `json:"reason"`
			Message string
		}
	}
}

// code returns the exit code that the session reported.
func (o outcome) code() int {
	if o.Status == "Success" {
		return 0
	}
	for _, c := range o.Details.Causes {
		if n, err := strconv.Atoi(c.Message); err == nil && c.Type == string(remotecommand.ExitCodeCauseType) {
			return n
		}
	}
	return -1
}

// end reads the session to its end.
func (s *session) end(t *testing.T) outcome {
	t.Helper()
	var o outcome
	var wg sync.WaitGroup
	read := func(from httpstream.Stream, to *string) {
		if from == nil {
			return
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			b, _ := io.ReadAll(from) // a reset stream ends as well as a closed one
			*to = string(b)
		}()
	}
	var failed string
	read(s.stdout, &o.stdout)
	read(s.stderr, &o.stderr)
	read(s.failed, &failed)
	wg.Wait()
	if err := json.Unmarshal([]byte(failed), &o); err != nil {
		t.Fatalf("status %q: %v", failed, err)
	}
	return o
}

// forward opens a connection to a port through a port-forward session.
func forward(t *testing.T, conn httpstream.Connection, port, request int) (data, failed httpstream.Stream) {
	t.Helper()
	h := http.Header{}
	h.Set(portforward.PortHeader, strconv.Itoa(port))
	h.Set(portforward.PortForwardRequestIDHeader, strconv.Itoa(request))
	h.Set(portforward.StreamType, portforward.StreamTypeError)
	failed, err := conn.CreateStream(h)
	check(t, err)
	h.Set(portforward.StreamType, portforward.StreamTypeData)
	data, err = conn.CreateStream(h)
	check(t, err)
	return data, failed
}

// readUntil reads from r until it has seen want.
func readUntil(t *testing.T, r io.Reader, want string) string {
	t.Helper()
	var seen bytes.Buffer
	buf := make([]byte, 1024)
	for !bytes.Contains(seen.Bytes(), []byte(want)) {
		n, err := r.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v before %q came, after %q", err, want, seen.String())
		}
	}
	return seen.String()
}
