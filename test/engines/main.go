// Command engines runs the suites that need a Docker Engine on the Engines of newer Debian releases than the
// machine's own:
//
//	engines [-run REGEXP] [-count N] [-fresh] [ENGINE...]
//
// Each release is a root folder, made once by debootstrap and kept in the user's cache, with the release's own
// dockerd, containerd, runc and CNI plugins. A suite is compiled here and run in there, in namespaces of its own
// (mounts, processes, network): nothing of it outlives its first process, whatever ends that one.
//
// It takes root and Debian (or a relative of it), and installs debootstrap where that is missing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// engine is an Engine that the suites run on.
type engine struct {
	// name is what the command line calls it.
	name string
	// release is the Debian release that it is of.
	release string
	// suites are the folders below test/ whose tests run on it.
	suites []string
	// env is added to the environment of its tests.
	env []string
	// skip is a regular expression of tests that cannot pass beside it.
	skip string
	// only has, by suite, a regular expression of the tests that run on it where it is not all of them.
	only map[string]string
}

var engines = []engine{
	{name: "trixie", release: "trixie", suites: []string{"dockerparts", "docker", "e2e"}},
	// Its containerd, 2.1, now and then keeps a task whose StartContainer lost its caller, and then refuses for ever to
	// remove the pod ("cannot delete running task"). That is nothing of Docker's, and the machine's own has the test.
	{name: "sid", release: "sid", suites: []string{"dockerparts", "docker", "e2e"}, skip: "^TestKilledAtAnyMomentOfPassThrough$"},
	// Images in containerd have other ids, and nothing else changes: the suite that looks at images is enough, and what
	// brings them from one runtime to the other.
	{
		name: "sid-store", release: "sid", suites: []string{"docker", "e2e"}, env: []string{"CRIMUX_LAB_CONTAINERD_STORE=1"},
		only: map[string]string{"e2e": "^TestImageOnlyIn(Docker|Containerd)$"},
	},
}

// tests says which tests of a suite run, and how often.
type tests struct {
	pattern string
	count   int
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == insideArg {
		os.Exit(inside(os.Args[2]))
	}
	// A suite's first process is killed when the thread that started it ends.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "engines: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("engines", flag.ContinueOnError)
	var t tests
	flags.StringVar(&t.pattern, "run", "", "run the tests that match this regular expression, instead of those that are meant for an engine")
	flags.IntVar(&t.count, "count", 1, "run each test this many times")
	fresh := flags.Bool("fresh", false, "make the roots anew, with the releases' packages of today")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(flags.Args())
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("engines are started as root; run it with sudo")
	}
	b, err := prepare(ctx, chosen, *fresh, out)
	if err != nil {
		return err
	}
	defer b.close()
	return b.runAll(ctx, chosen, t, out)
}

// choose finds engines by name; no names are all of them.
func choose(names []string) ([]engine, error) {
	if len(names) == 0 {
		return engines, nil
	}
	var out []engine
	for _, n := range names {
		i := slices.IndexFunc(engines, func(e engine) bool { return e.name == n })
		if i < 0 {
			return nil, fmt.Errorf("no engine is called %q; there are trixie, sid and sid-store", n)
		}
		out = append(out, engines[i])
	}
	return out, nil
}

// result is how a suite ended on an engine.
type result struct {
	engine, version, suite string
	took                   time.Duration
	err                    error
}

// runAll runs every suite even where one fails, and ends with a table of all.
func (b *bench) runAll(ctx context.Context, chosen []engine, t tests, out io.Writer) error {
	var results []result
	failed := false
	for _, e := range chosen {
		version, err := b.versions(ctx, e.release)
		if err != nil {
			return err
		}
		for _, s := range e.suites {
			fmt.Fprintf(out, "== %s: %s on %s\n", e.name, s, version)
			start := time.Now()
			err := b.runSuite(ctx, e, s, t)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			failed = failed || err != nil
			results = append(results, result{e.name, version, s, time.Since(start), err})
		}
	}
	if err := report(out, results); err != nil {
		return err
	}
	if failed {
		return errors.New("not all suites passed")
	}
	return nil
}

func report(out io.Writer, results []result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, r := range results {
		how := "ok"
		if r.err != nil {
			how = "FAILED: " + strings.TrimSpace(r.err.Error())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%v\t%s\n", r.engine, r.suite, how, r.took.Round(time.Second), r.version)
	}
	return w.Flush()
}
