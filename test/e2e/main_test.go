// Package e2e tests the daemon as a process, over real engines.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// shared is the lab that most tests use, and binary the daemon, with the race
// detector: both cost seconds to make.
var (
	shared *lab.Lab
	binary string
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		dir, err := os.MkdirTemp("", "crimux-e2e-")
		if err != nil {
			return failed(err)
		}
		defer os.RemoveAll(dir)
		if binary, err = node.Build(ctx, dir, true); err != nil {
			return failed(err)
		}
		if shared, err = lab.Start(ctx, lab.Options{Log: os.Stderr}); err != nil {
			return failed(err)
		}
		code := m.Run()
		if err := shared.Stop(); err != nil {
			return failed(err)
		}
		return code
	}())
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// start runs a daemon over the shared lab until the test's end, where it
// checks that the test's pods left nothing behind.
func start(t *testing.T, o node.Options) *node.Node {
	t.Helper()
	return startOn(t, shared, o)
}

func startOn(t *testing.T, l *lab.Lab, o node.Options) *node.Node {
	t.Helper()
	before, err := l.Footprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := prepare(t, l, o)
	t.Cleanup(func() { leavesNothing(t, l, n, before) })
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitBackends(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// prepare makes a node that is not started.
func prepare(t *testing.T, l *lab.Lab, o node.Options) *node.Node {
	t.Helper()
	dir, err := os.MkdirTemp("", "cx")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.New(l, dir, binary, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the daemon printed:\n%s", n.Output())
		}
		os.RemoveAll(dir)
	})
	return n
}

// leavesNothing removes what pods the test left, which is an error of the
// test's only where it cannot be done, and looks at the machine.
func leavesNothing(t *testing.T, l *lab.Lab, n *node.Node, before lab.Footprint) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if n.PID() == 0 {
		if err := n.Start(ctx); err != nil {
			t.Error(err)
			return
		}
	}
	if err := n.RemovePods(ctx); err != nil {
		t.Error(err)
	}
	holdsNothing(ctx, t, n)
	diff, err := l.Settled(ctx, before)
	if err != nil {
		t.Error(err)
	}
	for _, d := range diff {
		t.Errorf("left behind: %s", d)
	}
}

// Bounds of what a daemon without pods holds: its own parts, and connections
// to the engines that are kept for the next call. A leak goes past them with
// the number of a test's calls.
const (
	idleGoroutines = 65
	idleFDs        = 28
)

// holdsNothing checks that the daemon has let go of what the pods needed.
func holdsNothing(ctx context.Context, t *testing.T, n *node.Node) {
	t.Helper()
	var u node.Usage
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if u, err = n.Usage(ctx); err == nil && u.Goroutines <= idleGoroutines && u.FDs <= idleFDs {
			return
		}
	}
	t.Errorf("without pods the daemon holds %+v, %v", u, err)
}

// logs is a log folder of the test's own.
func logs(t *testing.T) string { return filepath.Join(t.TempDir(), "pods") }
