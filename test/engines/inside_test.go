package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crimux/crimux/test/lab"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == insideArg {
		os.Exit(inside(os.Args[2]))
	}
	os.Exit(m.Run())
}

// smallRoot is a root with nothing but busybox.
func smallRoot(t *testing.T) job {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces are made as root")
	}
	cache, err := lab.Prefetch(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	userland, err := filepath.Glob(filepath.Join(cache, "busybox-*", "root"))
	if err != nil || len(userland) != 1 {
		t.Fatal(userland, err)
	}
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(userland[0])); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"proc", "sys", "dev", "run", "mnt", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/resolv.conf"), []byte("the machine's\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return job{Root: root, Module: t.TempDir(), Bin: t.TempDir(), LabCache: cache, Folder: "."}
}

// shell starts a script in the root.
func (j job) shell(t *testing.T, ctx context.Context, script string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	j.Command = []string{"/bin/busybox", "sh", "-c", script}
	cmd, err := j.command(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &out
}

func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestARootOfItsOwn(t *testing.T) {
	j := smallRoot(t)
	before := mounts(t)
	if err := os.WriteFile(filepath.Join(j.Module, "here"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// An orphan is reaped, and its end is not the job's.
	cmd, out := j.shell(t, t.Context(), `busybox ls; busybox ls /; busybox cat /etc/resolv.conf; busybox ip -4 addr
(busybox sleep 0.1 &); busybox sleep 0.3; echo zombies $(busybox ps -o stat | busybox grep -c ^Z); busybox touch /tmp/left; exit 7`)
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Fatalf("the exit code is lost: %v\n%s", err, out)
	}
	for _, want := range []string{"here\n", "nameserver 127.0.0.1", "127.0.0.1/8", "198.51.100.1/24", "zombies 0\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("in the root %q is not to be seen:\n%s", want, out)
		}
	}
	if strings.Contains(out.String(), "boot\n") || strings.Contains(out.String(), "the machine's") {
		t.Errorf("the machine shows through:\n%s", out)
	}
	if now := mounts(t); now != before {
		t.Errorf("the machine's mounts changed:\n%s", now)
	}
	if left, err := os.ReadDir(filepath.Join(j.Root, "tmp")); err != nil || len(left) != 0 {
		t.Errorf("left in /tmp: %v, %v", left, err)
	}
}

// TestNothingOutlives: neither an interrupt nor a kill leaves a process, not even one that fled into a session of
// its own and ignores every signal that can be.
func TestNothingOutlives(t *testing.T) {
	for name, end := range map[string]func(cmd *exec.Cmd, interrupt func()) error{
		"interrupt": func(_ *exec.Cmd, interrupt func()) error { interrupt(); return nil },
		"kill":      func(cmd *exec.Cmd, _ func()) error { return cmd.Process.Signal(unix.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			j := smallRoot(t)
			before := mounts(t)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			mark := fmt.Sprintf("86%d", time.Now().UnixNano()%1e7)
			script := `trap '' HUP TERM; busybox setsid busybox sleep MARK & echo; trap - TERM; busybox sleep MARK`
			cmd, out := j.shell(t, ctx, strings.ReplaceAll(script, "MARK", mark))
			waitFor(t, "its processes", func() bool { return sleepers(t, mark) == 2 })
			if err := end(cmd, interrupt); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Errorf("it ended well: %s", out)
			}
			waitFor(t, "the end of its processes", func() bool { return sleepers(t, mark) == 0 })
			if now := mounts(t); now != before {
				t.Errorf("the machine's mounts changed:\n%s", now)
			}
		})
	}
}

// sleepers counts processes that sleep for so long.
func sleepers(t *testing.T, mark string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		// Processes come and go while this looks.
		if b, err := os.ReadFile(f); err == nil && strings.HasSuffix(string(b), "sleep\x00"+mark+"\x00") {
			n++
		}
	}
	return n
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
