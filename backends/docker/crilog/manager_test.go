package crilog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// heard is what a manager told.
type heard struct {
	mu     sync.Mutex
	errors []string
	gaps   int
}

func (h *heard) options() Options {
	return Options{
		Poll: time.Hour, // so that only events and requests make it look
		OnError: func(id string, err error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.errors = append(h.errors, fmt.Sprint(id, ": ", err))
		},
		OnGap: func(string, Gap) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.gaps++
		},
	}
}

func (h *heard) said() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.errors...)
}

// manage returns a manager that is closed with the test.
func manage(t *testing.T, o Options) *Manager {
	t.Helper()
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain for: %s", what)
		}
	}
}

func TestManagerFollows(t *testing.T) {
	ctx := t.Context()
	var h heard
	m := manage(t, h.options())
	e, k := newEngine(t, 1), newKubelet(t)
	f := File{ContainerID: "abc", Source: e.source, Target: k.target, Running: true}
	for range 2 { // idempotent
		e.must(m.Follow(f))
	}
	complete := func() bool { return k.read() == e.want.String() }
	for i := range 20 {
		e.now = e.now.Add(time.Millisecond)
		e.put("stdout", fmt.Sprintf("line %d\n", i))
		if i == 10 {
			e.rotate()
		}
		if i%3 == 0 {
			eventually(t, "the line to come by itself", complete)
		} else {
			e.must(m.Drain(ctx, "abc"))
			if !complete() {
				t.Fatal(diff(k.read(), e.want.String()))
			}
		}
	}
	k.rotate()
	e.must(m.Reopen(ctx, "abc"))
	if b, err := os.ReadFile(k.target); err != nil || len(b) != 0 {
		t.Errorf("after the reopen: %q, %v", b, err)
	}
	e.put("stderr", "after\n")
	e.must(m.Finish(ctx, "abc"))
	if !complete() {
		t.Error(diff(k.read(), e.want.String()))
	}
	for what, err := range map[string]error{"Drain": m.Drain(ctx, "abc"), "Reopen": m.Reopen(ctx, "abc")} {
		if !errors.Is(err, ErrNotFollowed) {
			t.Errorf("%s after Finish: %v", what, err)
		}
	}
	e.must(m.Finish(ctx, "abc"))
	if said := h.said(); len(said) != 0 || h.gaps != 0 {
		t.Errorf("heard %v, %d gaps", said, h.gaps)
	}
}

// TestManagerTakesUp: a second manager goes on where the first stood, and
// drains containers that ended meanwhile.
func TestManagerTakesUp(t *testing.T) {
	e, k := newEngine(t, 1), newKubelet(t)
	e.put("stdout", "one\n")
	first := manage(t, Options{})
	e.must(first.Follow(File{"abc", e.source, k.target, true}))
	e.must(first.Drain(t.Context(), "abc"))
	e.must(first.Close())
	e.put("stdout", "two\n")
	second := manage(t, Options{})
	e.must(second.Follow(File{"abc", e.source, k.target, false}))
	eventually(t, "the log to be complete and let go", func() bool {
		return errors.Is(second.Drain(t.Context(), "abc"), ErrNotFollowed)
	})
	if k.read() != e.want.String() {
		t.Error(diff(k.read(), e.want.String()))
	}
	if err := first.Follow(File{"abc", e.source, k.target, true}); err == nil {
		t.Error("a closed manager follows")
	}
}

// TestManagerForgets: and can follow the same container anew at once.
func TestManagerForgets(t *testing.T) {
	m := manage(t, Options{})
	e, k := newEngine(t, 1), newKubelet(t)
	for i := range 30 {
		e.now = e.now.Add(time.Millisecond)
		e.put("stdout", fmt.Sprintf("line %d\n", i))
		e.must(m.Follow(File{"abc", e.source, k.target, true}))
		if i%2 == 0 {
			m.Forget("abc")
			if err := m.Drain(t.Context(), "abc"); !errors.Is(err, ErrNotFollowed) {
				t.Errorf("Drain after Forget: %v", err)
			}
		}
	}
	m.Forget("nobody")
	e.must(m.Drain(t.Context(), "abc"))
	if k.read() != e.want.String() {
		t.Error(diff(k.read(), e.want.String()))
	}
}

// TestManagerRetries: an error is told once, and so is its end; another
// container does not notice.
func TestManagerRetries(t *testing.T) {
	var h heard
	m := manage(t, h.options())
	bad, k := newEngine(t, 1), newKubelet(t)
	dir := filepath.Dir(filepath.Dir(filepath.Dir(k.target)))
	bad.must(os.MkdirAll(filepath.Dir(dir), 0o755))
	bad.must(os.WriteFile(dir, nil, 0o600)) // a file where a folder should be
	bad.put("stdout", "hello\n")
	bad.must(m.Follow(File{"bad", bad.source, k.target, true}))
	eventually(t, "the error to be told", func() bool { return len(h.said()) == 1 })

	good, k2 := newEngine(t, 2), newKubelet(t)
	good.put("stdout", "hello\n")
	good.must(m.Follow(File{"good", good.source, k2.target, true}))
	good.must(m.Drain(t.Context(), "good"))

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := m.Drain(ctx, "bad"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain: %v", err)
	}
	if err := m.Reopen(t.Context(), "bad"); err == nil {
		t.Error("Reopen of what cannot be opened")
	}
	time.Sleep(3 * retryFirst)
	bad.must(os.Remove(dir))
	bad.must(m.Drain(t.Context(), "bad"))
	if k.read() != bad.want.String() {
		t.Error(diff(k.read(), bad.want.String()))
	}
	if said := h.said(); len(said) != 2 || !strings.HasPrefix(said[0], "bad: make the folder") || said[1] != "bad: <nil>" {
		t.Errorf("heard %q", said)
	}
}

// TestManagerFullDisk: a target on a disk of a few pages. Nothing is lost or
// doubled when there is room again, and a half-written line is completed.
func TestManagerFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a small disk takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	var h heard
	m := manage(t, h.options())
	e, k := newEngine(t, 1), newKubelet(t)
	k.target = filepath.Join(dir, "0.log")
	ballast := filepath.Join(dir, "ballast")
	e.must(os.WriteFile(ballast, make([]byte, 40<<10), 0o600))
	for i := range 300 {
		e.now = e.now.Add(time.Millisecond)
		e.put("stdout", fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", i%90)))
	}
	e.must(m.Follow(File{"abc", e.source, k.target, true}))
	eventually(t, "the disk to be full", func() bool { return len(h.said()) == 1 })
	if err := m.Reopen(t.Context(), "abc"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Reopen on a full disk: %v", err)
	}
	e.must(os.Remove(ballast))
	e.must(m.Drain(t.Context(), "abc"))
	if k.read() != e.want.String() {
		t.Error(diff(k.read(), e.want.String()))
	}
}

func TestManagerRefuses(t *testing.T) {
	m := manage(t, Options{})
	for _, f := range []File{{}, {ContainerID: "a", Source: "rel", Target: "/abs"}, {ContainerID: "a", Source: "/abs", Target: "rel"}, {Source: "/a", Target: "/b"}} {
		if err := m.Follow(f); err == nil {
			t.Errorf("%+v was taken", f)
		}
	}
	e, k := newEngine(t, 1), newKubelet(t)
	e.must(m.Follow(File{"abc", e.source, k.target, true}))
	if err := m.Follow(File{"abc", e.source, k.target + "2", true}); err == nil {
		t.Error("a second target")
	}
	if _, err := New(Options{Poll: -1}); err == nil {
		t.Error("a poll below zero")
	}
}

// TestManagerPolls: without file events a slow look finds what came.
func TestManagerPolls(t *testing.T) {
	m := manage(t, Options{Poll: 20 * time.Millisecond})
	e, k := newEngine(t, 1), newKubelet(t)
	e.must(m.Follow(File{"abc", e.source, k.target, true}))
	e.must(m.Drain(t.Context(), "abc"))
	e.must(m.watcher.Remove(filepath.Dir(e.source)))
	e.put("stdout", "hello\n")
	eventually(t, "the poll to find it", func() bool { return k.read() == e.want.String() })
}

// TestManagerBusySource: one that is written to all the time is no longer
// watched, until it is calm. What comes at any time is copied, and soon.
func TestManagerBusySource(t *testing.T) {
	var h heard
	m := manage(t, h.options())
	e, k := newEngine(t, 1), newKubelet(t)
	e.must(m.Follow(File{"abc", e.source, k.target, true}))
	e.must(m.Drain(t.Context(), "abc"))
	watched := func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.folders) > 0
	}
	for range 2 {
		eventually(t, "the source to be watched", watched)
		eventually(t, "the source to be busy", func() bool {
			for range 5 {
				e.now = e.now.Add(time.Millisecond)
				e.put("stdout", "more\n")
			}
			return !watched()
		})
		for i := range 4 {
			e.now = e.now.Add(time.Second)
			e.put("stdout", fmt.Sprintln("line", i))
			eventually(t, "the line to come", func() bool { return k.read() == e.want.String() })
			// The longest pause is longer than it takes to be calm.
			time.Sleep(time.Duration(i%4) * 17 * rest)
		}
		time.Sleep(2 * calmAfter * rest)
	}
}

// TestManagerManyContainers: all at once, and no goroutine or file is left.
func TestManagerManyContainers(t *testing.T) {
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	m, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 40 {
		e, k := newEngine(t, uint64(i)), newKubelet(t)
		e.maxSize = 2000
		wg.Add(1)
		go func() {
			defer wg.Done()
			id := fmt.Sprint("c", i)
			if err := m.Follow(File{id, e.source, k.target, true}); err != nil {
				t.Error(err)
			}
			for range 20 {
				e.random(5)
				if err := m.Drain(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
			if i%2 == 0 {
				if err := m.Finish(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
			if k.read() != e.want.String() {
				t.Error(diff(k.read(), e.want.String()))
			}
		}()
	}
	wg.Wait()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "goroutines and files to be as before", func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
	})
	if len(m.followers) != 0 || len(m.folders) != 0 {
		t.Errorf("%d followers and %d folders left", len(m.followers), len(m.folders))
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
