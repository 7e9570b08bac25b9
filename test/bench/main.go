// Command bench measures, on real engines and in one interleaved run, what
// crimux costs: each call is made directly and through crimux in turn, so
// that a machine whose speed drifts changes both alike. It prints medians,
// p99 and their ratio, and judges nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

func main() {
	if socket := os.Getenv(fakeEnv); socket != "" {
		fmt.Fprintf(os.Stderr, "bench: the fake runtime: %v\n", serveFake(socket))
		os.Exit(1)
	}
	if socket := os.Getenv(hopEnv); socket != "" {
		fmt.Fprintf(os.Stderr, "bench: the bare hop: %v\n", serveHop(socket))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{}
	flag.IntVar(&b.pods, "pods", 60, "pods to make")
	flag.IntVar(&b.per, "containers", 1, "containers in each pod")
	flag.IntVar(&b.rounds, "rounds", 300, "calls of each kind and way")
	flag.StringVar(&b.peer, "peer", "", "shell command that runs another CRI shim for Docker on $PEER_SOCKET, with $DOCKER_HOST, $CNI_CONF_DIR, $CNI_BIN_DIR, $CNI_CACHE_DIR and $POD_INFRA_IMAGE (use exec)")
	only := flag.String("only", "", "scale, containerd, docker, logs, hang or idle; empty is all")
	v2 := flag.Bool("v2", false, "containerd 2.x instead of the distribution's in all parts; the part containerd runs on both")
	flag.Parse()
	options := lab.Options{Log: os.Stderr}
	if *v2 {
		options.Containerd = lab.V2
	}
	if err := b.run(ctx, options, *only); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// run measures the parts that were asked for: those that need no engines, and
// the rest on one lab, and the pass-through on the other containerd too.
func (b *bench) run(ctx context.Context, options lab.Options, only string) error {
	if only == "" || only == "scale" {
		if err := b.runScale(ctx); err != nil || only == "scale" {
			return err
		}
	}
	if err := b.runLab(ctx, options, only); err != nil {
		return err
	}
	if options.Containerd == lab.V2 || only != "" && only != "containerd" {
		return nil
	}
	options.Containerd, options.NoDocker = lab.V2, true
	return b.runLab(ctx, options, "containerd")
}

// runScale needs nothing but the daemon.
func (b *bench) runScale(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "crimux-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if b.binary, err = node.Build(ctx, dir, false); err != nil {
		return err
	}
	return b.scale(ctx)
}

// runLab brings up engines and measures on them.
func (b *bench) runLab(ctx context.Context, options lab.Options, only string) (err error) {
	l, err := lab.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Stop()) }()
	b.lab = l
	if b.binary, err = node.Build(ctx, l.Dir, false); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		run  func(context.Context, *node.Node) error
		opts node.Options
	}{
		{"containerd", b.containerd, node.Options{NoDocker: true}},
		{"docker", b.docker, node.Options{NoContainerd: true}},
		{"logs", b.logs, node.Options{}},
		{"hang", b.hang, node.Options{}},
		{"idle", b.idle, node.Options{}},
	} {
		if only != "" && only != part.name {
			continue
		}
		if err := b.with(ctx, part.name, part.opts, part.run); err != nil {
			return err
		}
	}
	return nil
}

// bench is one run over a lab.
type bench struct {
	lab    *lab.Lab
	binary string
	// peer is a command that runs another CRI shim; "" for none.
	peer              string
	pods, per, rounds int
}

// with starts a daemon with one backend, measures, and removes the pods.
func (b *bench) with(ctx context.Context, name string, o node.Options, measure func(context.Context, *node.Node) error) (err error) {
	dir := filepath.Join(b.lab.Dir, "bench-"+name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	n, err := node.New(b.lab, dir, b.binary, o)
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
	return errors.Join(measure(ctx, n), n.RemovePods(context.WithoutCancel(ctx)))
}
