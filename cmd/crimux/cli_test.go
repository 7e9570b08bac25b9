package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/crimux/crimux/proxy/admin"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// asProgram makes the test binary be crimux, for what only a process shows.
const asProgram = "CRIMUX_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// node is a node's state directory and configuration.
type node struct {
	t                    *testing.T
	config, events, sock string
}

// newNode makes a node whose log has the events of view/testdata/node.jsonl.
func newNode(t *testing.T) *node {
	t.Helper()
	n := newBareNode(t)
	l, err := store.Open(n.events, store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(fixture(t)...).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// newBareNode makes a node on which the daemon has never run.
func newBareNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{
		t: t, config: filepath.Join(dir, "config.yaml"),
		events: filepath.Join(dir, store.FileName), sock: filepath.Join(dir, "admin.sock"),
	}
	n.configure("unix://" + n.sock)
	return n
}

func (n *node) configure(adminListen string) {
	n.t.Helper()
	config := `apiVersion: crimux.dev/v1
kind: Config
adminListen: ` + adminListen + `
stateDir: ` + filepath.Dir(n.events) + `
backends:
  docker: {type: docker}
  containerd: {type: cri, endpoint: unix:///run/containerd/containerd.sock}
routes:
  - {handler: docker, backend: docker}
  - {handler: containerd, backend: containerd}
default: docker
`
	if err := os.WriteFile(n.config, []byte(config), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// fixture returns the events of view/testdata/node.jsonl.
func fixture(t *testing.T) []*eventpb.Event {
	t.Helper()
	f, err := os.Open("view/testdata/node.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var events []*eventpb.Event
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		e := &eventpb.Event{}
		if err := protojson.Unmarshal(lines.Bytes(), e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// daemon opens the node's log as the daemon does and answers on its admin
// socket until stop or the test's end.
func (n *node) daemon() (l *store.Log, stop func()) {
	n.t.Helper()
	return n.daemonWith(func(*admin.Server) {})
}

// daemonWith is daemon with a server that prepare has seen first.
func (n *node) daemonWith(prepare func(*admin.Server)) (l *store.Log, stop func()) {
	n.t.Helper()
	l, err := store.Open(n.events, store.Options{NoSync: true})
	if err != nil {
		n.t.Fatal(err)
	}
	listener, err := net.Listen("unix", n.sock)
	if err != nil {
		n.t.Fatal(err)
	}
	server := admin.NewServer(l, fakeForgetter{l})
	prepare(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		if err := server.Close(); err != nil {
			n.t.Error(err)
		}
		if err := <-served; err != nil {
			n.t.Error(err)
		}
		if err := l.Close(); err != nil {
			n.t.Error(err)
		}
	}
	n.t.Cleanup(stop)
	return l, stop
}

// leaveSocket leaves a socket on which nobody listens.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// result is what came of a command line.
type result struct {
	code        int
	out, errOut string
}

// crimux runs a command line on the node.
func (n *node) crimux(args ...string) result {
	n.t.Helper()
	return crimux(n.t, append(args, "--config", n.config)...)
}

func crimux(t *testing.T, args ...string) result {
	t.Helper()
	read := func(f *os.File) string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	stdout, stderr := swapped(t, &os.Stdout), swapped(t, &os.Stderr)
	code := run(t.Context(), args)
	stdout.back()
	stderr.back()
	return result{code, read(stdout.file), read(stderr.file)}
}

// swap is a file in the place of one of the process's.
type swap struct {
	file *os.File
	back func()
}

func swapped(t *testing.T, std **os.File) swap {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	before := *std
	*std = f
	back := func() {
		*std = before
		f.Close()
	}
	t.Cleanup(func() { *std = before })
	return swap{f, back}
}

// following runs a command line until stop, which returns its exit code, and
// gives out its lines as they come.
func (n *node) following(args ...string) (lines *bufio.Scanner, stop func() int) {
	n.t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(n.t.Context())
	n.t.Cleanup(cancel)
	root := newRoot()
	root.SetArgs(append(args, "--config", n.config))
	root.SetOut(w)
	done := make(chan error, 1)
	go func() {
		err := root.ExecuteContext(ctx)
		w.CloseWithError(io.EOF)
		done <- err
	}()
	return bufio.NewScanner(r), func() int {
		cancel()
		if err := <-done; err != nil {
			n.t.Log(err)
			return exitFailed
		}
		return 0
	}
}

// flip changes one bit of the first place where the node's log has text.
func (n *node) flip(text string) {
	n.t.Helper()
	b, err := os.ReadFile(n.events)
	if err != nil {
		n.t.Fatal(err)
	}
	at := bytes.Index(b, []byte(text))
	if at < 0 {
		n.t.Fatalf("%q is not in the log", text)
	}
	b[at] ^= 1
	if err := os.WriteFile(n.events, b, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// contains fails the test unless every one of want is in got.
func contains(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%q is not in\n%s", w, got)
		}
	}
}
