package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// packages is what a root has beyond the least that Debian runs with: what the lab and the tests need.
var packages = []string{"docker.io", "docker-cli", "tini", "containerd", "runc", "containernetworking-plugins", "iptables", "iproute2", "procps", "e2fsprogs"}

// rootsDir is where roots are kept from one run to the next.
func rootsDir() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = "/var/cache" // without HOME, as under a service manager
	}
	return filepath.Join(base, "crimux-engines")
}

// lockRoots keeps a second run out: it would sweep away the engines of the first.
func lockRoots(ctx context.Context, out io.Writer) (unlock func(), err error) {
	if err := os.MkdirAll(rootsDir(), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of roots: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(rootsDir(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the folder of roots: %w", err)
	}
	for said := false; ; said = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock the folder of roots: %w", err), f.Close())
		}
		if !said {
			fmt.Fprintln(out, "waiting for another run to end")
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(time.Second):
		}
	}
}

// ensureDebootstrap installs it where it is missing.
func ensureDebootstrap(ctx context.Context, out io.Writer) error {
	if _, err := os.Stat("/usr/sbin/debootstrap"); err == nil {
		return nil
	}
	fmt.Fprintln(out, "installing debootstrap")
	for _, args := range [][]string{{"update", "-qq"}, {"install", "-y", "-qq", "--no-install-recommends", "debootstrap"}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("install debootstrap: %w: %s; install it by hand", err, said)
		}
	}
	return nil
}

// makeRoots fills in where the roots of the releases are, and makes those that are not there.
func (b *bench) makeRoots(ctx context.Context, fresh bool, out io.Writer) error {
	from, err := findMirror(ctx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for release := range b.roots {
		root := filepath.Join(rootsDir(), rootName(release))
		b.roots[release] = root
		g.Go(func() error { return makeRoot(ctx, root, release, from, fresh, out) })
	}
	return g.Wait()
}

// rootName changes with what a root is made of.
func rootName(release string) string {
	sum := sha256.Sum256([]byte(strings.Join(packages, " ")))
	return fmt.Sprintf("%s-%s-%x", release, runtime.GOARCH, sum[:4])
}

// makeRoot makes a root unless it is there: a folder gets the name only when it is whole.
func makeRoot(ctx context.Context, root, release string, from mirror, fresh bool, out io.Writer) error {
	if _, err := os.Stat(root); err == nil && !fresh {
		return nil
	}
	// Older ones of the release, and what a killed run left of one. Nothing is mounted in them but in the
	// namespaces of those who used them, and the lock says that nobody does.
	old, err := filepath.Glob(filepath.Join(rootsDir(), release+"-*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove an old root: %w", err)
		}
	}
	start, unfinished := time.Now(), root+".new"
	fmt.Fprintf(out, "making a root of Debian %s (once; takes a minute or two)\n", release)
	if err := bootstrap(ctx, unfinished, release, from); err != nil {
		return errors.Join(fmt.Errorf("make a root of Debian %s: %w", release, err), os.RemoveAll(unfinished))
	}
	if err := os.Rename(unfinished, root); err != nil {
		return fmt.Errorf("make a root of Debian %s: %w", release, err)
	}
	fmt.Fprintf(out, "the root of Debian %s is made (%v)\n", release, time.Since(start).Round(time.Second))
	return nil
}

// bootstrap runs debootstrap in namespaces of its own: what it mounts and starts goes when it ends or is killed.
func bootstrap(ctx context.Context, dir, release string, from mirror) error {
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child",
		"/usr/sbin/debootstrap", "--variant=minbase", "--include="+strings.Join(packages, ","), release, dir, from.url)
	cmd.Env = append(os.Environ(), "PATH="+rootPath, "DEBIAN_FRONTEND=noninteractive")
	if from.proxy != "" {
		cmd.Env = append(cmd.Env, "http_proxy="+from.proxy)
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("debootstrap: %w; it ended with\n%s\n%s", err, lastLines(said.String()), lastLines(readLog(dir)))
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/hosts"), []byte("127.0.0.1 localhost\n::1 localhost\n"), 0o644); err != nil {
		return err
	}
	return emptyFolder(filepath.Join(dir, "var/cache/apt/archives"))
}

// readLog is what debootstrap wrote down of the programs that it ran; without it there is nothing to add.
func readLog(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "debootstrap/debootstrap.log"))
	if err != nil {
		return ""
	}
	return string(b)
}

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}
