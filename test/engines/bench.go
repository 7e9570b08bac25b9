package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crimux/crimux/test/lab"
)

// suiteTimeout bounds a suite; the tests have closer bounds of their own.
const suiteTimeout = "20m"

// bench holds what suites need to run: roots, compiled tests and the lab's downloads.
type bench struct {
	module string            // the folder of this module
	bin    string            // compiled tests and the daemon
	cache  string            // the lab's cache
	roots  map[string]string // by release
	unlock func()
}

// prepare makes roots and compiles, at the same time.
func prepare(ctx context.Context, chosen []engine, fresh bool, out io.Writer) (*bench, error) {
	if err := ensureDebootstrap(ctx, out); err != nil {
		return nil, err
	}
	unlock, err := lockRoots(ctx, out)
	if err != nil {
		return nil, err
	}
	b := &bench{roots: map[string]string{}, unlock: unlock}
	err = b.fill(ctx, chosen, fresh, out)
	if ctx.Err() != nil {
		// What was cut off has its own errors, which say nothing.
		err = context.Cause(ctx)
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) fill(ctx context.Context, chosen []engine, fresh bool, out io.Writer) (err error) {
	if b.bin, err = os.MkdirTemp("", "crimux-engines-"); err != nil {
		return fmt.Errorf("make a folder for compiled tests: %w", err)
	}
	suites := map[string]bool{}
	for _, e := range chosen {
		b.roots[e.release] = ""
		for _, s := range e.suites {
			suites[s] = true
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.makeRoots(ctx, fresh, out) })
	g.Go(func() error { return b.compile(ctx, suites) })
	g.Go(func() (err error) {
		b.cache, err = lab.Prefetch(ctx, out)
		return err
	})
	return g.Wait()
}

func (b *bench) close() {
	// Only compiled files, in the machine's own folder for what may go.
	_ = os.RemoveAll(b.bin)
	b.unlock()
}

// compile builds the tests and the daemon as they run on this machine's own Engine: with the race detector. Its
// C library is older than those of the roots, and so fits them.
func (b *bench) compile(ctx context.Context, suites map[string]bool) error {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("find this module: %w", err)
	}
	b.module = filepath.Dir(strings.TrimSpace(string(mod)))
	tests := []string{"test", "-c", "-race", "-o", b.bin + "/"}
	for s := range suites {
		tests = append(tests, "./test/"+s)
	}
	for _, args := range [][]string{{"build", "-race", "-o", filepath.Join(b.bin, "crimux"), "./cmd/crimux"}, tests} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = b.module
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("compile the suites: %w\n%s", err, said)
		}
	}
	return nil
}

// versions says what runs in a root.
func (b *bench) versions(ctx context.Context, release string) (string, error) {
	var all []string
	for _, tool := range []string{"/usr/sbin/dockerd", "/usr/bin/containerd", "/usr/sbin/runc"} {
		cmd := exec.CommandContext(ctx, tool, "--version")
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: b.roots[release]}
		cmd.Dir, cmd.Env = "/", []string{"PATH=" + rootPath}
		said, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("ask %s of %s for its version: %w", tool, release, err)
		}
		all = append(all, filepath.Base(tool)+" "+version(string(said)))
	}
	return strings.Join(all, ", "), nil
}

// version is the first word of what a tool says of itself that begins with a digit, or all that it says.
func version(said string) string {
	line, _, _ := strings.Cut(said, "\n")
	for _, w := range strings.Fields(line) {
		if w[0] >= '0' && w[0] <= '9' {
			return strings.TrimRight(w, ",")
		}
	}
	return line
}

// runSuite runs one suite on one engine, with its output on this process's.
func (b *bench) runSuite(ctx context.Context, e engine, suite string, t tests) error {
	j := job{
		Root: b.roots[e.release], Module: b.module, Bin: b.bin, LabCache: b.cache,
		Folder: "test/" + suite, Env: e.env,
		Command: []string{
			binAt + "/" + suite + ".test", "-test.timeout", suiteTimeout,
			"-test.run", cmp.Or(t.pattern, e.only[suite]), "-test.skip", e.skip, "-test.count", strconv.Itoa(t.count),
		},
	}
	cmd, err := j.command(ctx)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == failedInside {
		return errors.New("could not be run; see above")
	}
	return err
}

// grace is how long an interrupted suite has for taking its engines down.
const grace = 90 * time.Second
