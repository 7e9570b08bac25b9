// Command demo shows crimux on real engines: it brings up a Docker Engine, a
// containerd, a registry and a pod network in a folder of their own, runs a
// pod on each engine through one socket, kills the daemon at bad moments,
// shows that nothing is lost or leaked, and removes everything again. It
// exits non-zero if any of it did not happen.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// limit bounds the whole demo, installing included.
const limit = 10 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo failed: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("\nAll of it happened, in %s.\n", time.Since(began).Round(100*time.Millisecond))
}

func run(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("the engines need root: run it as root")
	}
	step("Bringing up dockerd, containerd, a registry and a pod network of their own")
	l, err := lab.Start(ctx, lab.Options{Log: os.Stdout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, takeDown(l)) }()
	dir := filepath.Join(l.Dir, "crimux")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	step("Building crimux and starting it in front of both engines")
	binary, err := node.Build(ctx, dir, false)
	if err != nil {
		return err
	}
	n, err := node.New(l, dir, binary, node.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := n.Start(ctx); err != nil {
		return err
	}
	if err := n.WaitBackends(ctx); err != nil {
		return err
	}
	say("one socket for the kubelet: %s", n.Socket)
	return (&show{lab: l, node: n, logs: filepath.Join(dir, "pods")}).play(ctx)
}

func takeDown(l *lab.Lab) error {
	step("Taking the lab down, looking for anything left behind")
	if err := l.Stop(); err != nil {
		return err
	}
	say("nothing left: no process, mount, network namespace, link or address")
	return nil
}

// step announces what happens next, say tells what came of it.
func step(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }
func say(format string, args ...any)  { fmt.Printf("   "+format+"\n", args...) }
