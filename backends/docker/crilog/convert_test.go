package crilog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// link makes the log a link to the Engine's, as cri-dockerd does.
func (k *kubelet) link(e *engine) {
	k.t.Helper()
	e.must(os.MkdirAll(filepath.Dir(k.target), 0o755))
	e.must(os.Symlink(e.source, k.target))
}

// newest is what the kubelet renamed the log to last.
func (k *kubelet) newest() string {
	k.t.Helper()
	path, err := newestSibling(k.target)
	if err != nil || path == "" {
		k.t.Fatalf("no rotated log: %q, %v", path, err)
	}
	return path
}

// only checks what is in the folder of the log.
func (k *kubelet) only(n int) {
	k.t.Helper()
	all, err := os.ReadDir(filepath.Dir(k.target))
	if err != nil || len(all) != n {
		k.t.Errorf("%d files in the folder, want %d: %v, %v", len(all), n, all, err)
	}
}

// fill writes records, and lets the Engine rotate.
func (e *engine) fill() {
	for range 3 {
		e.random(20)
		e.now = e.now.Add(time.Millisecond)
	}
}

func TestConvert(t *testing.T) {
	for name, renamed := range map[string]bool{"by the kubelet": true, "in place": false} {
		t.Run(name, func(t *testing.T) {
			var h heard
			m := manage(t, h.options())
			e, k := newEngine(t, 1), newKubelet(t)
			e.maxSize, e.maxFiles = 1000, 100
			k.link(e)
			e.fill()
			f := File{ContainerID: "abc", Source: e.source, Target: k.target, Running: true}
			if path, ok, err := Linked(k.target); !ok || err != nil || path != k.target {
				t.Fatalf("linked: %q %v %v", path, ok, err)
			}
			files := 1
			if renamed {
				k.rotate()
				files = 2
				if path, ok, err := Linked(k.target); !ok || err != nil || path != k.newest() {
					t.Fatalf("linked: %q %v %v", path, ok, err)
				}
			}
			for range 2 { // it may be repeated
				e.must(m.Convert(t.Context(), f))
				if path, ok, err := Linked(k.target); ok || err != nil {
					t.Fatalf("still linked: %q, %v", path, err)
				}
			}
			e.fill()
			e.must(m.Follow(f))
			e.must(m.Finish(t.Context(), "abc"))
			if got := k.read(); got != e.want.String() {
				t.Error(diff(got, e.want.String()))
			}
			k.only(files)
			if said := h.said(); len(said) != 0 || h.gaps != 0 {
				t.Errorf("heard %v, %d gaps", said, h.gaps)
			}
		})
	}
}

// TestConvertKilled kills crimux between any two steps, with the kubelet
// taking its rotation back or trying again, and the container writing.
func TestConvertKilled(t *testing.T) {
	steps := map[string]func(t *testing.T, m *Manager, f File, link string){
		"nothing done": func(*testing.T, *Manager, File, string) {},
		"half copied": func(t *testing.T, m *Manager, f File, _ string) {
			c := copier{file: File{ContainerID: "abc", Source: f.Source, Target: unfinished(f.Target)}, size: 100, onGap: func(Gap) {}}
			for range 5 {
				if _, err := c.batch(); err != nil {
					t.Fatal(err)
				}
			}
			// Within a line.
			if _, err := c.target.WriteString("2026-01-02T15:04"); err != nil {
				t.Fatal(err)
			}
			die(&c)
		},
		"all copied": func(t *testing.T, m *Manager, f File, _ string) {
			half := f
			half.Target = unfinished(f.Target)
			if err := m.copyAll(t.Context(), half); err != nil {
				t.Fatal(err)
			}
		},
		"exchanged": func(t *testing.T, m *Manager, f File, link string) {
			half := f
			half.Target = unfinished(f.Target)
			if err := errors.Join(m.copyAll(t.Context(), half), exchange(half.Target, link)); err != nil {
				t.Fatal(err)
			}
		},
		"converted": func(t *testing.T, m *Manager, f File, _ string) {
			if err := m.Convert(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, step := range steps {
		for after, takesBack := range map[string]bool{"taken back": true, "as it was": false} {
			t.Run(name+", "+after, func(t *testing.T) {
				var h heard
				m := manage(t, h.options())
				e, k := newEngine(t, 7), newKubelet(t)
				e.maxSize, e.maxFiles = 2000, 100
				k.link(e)
				e.fill()
				f := File{ContainerID: "abc", Source: e.source, Target: k.target, Running: true}
				k.rotate()
				step(t, m, f, k.newest())
				e.fill()
				if takesBack {
					// The call failed, so the kubelet renames the log back.
					// If it is the link still, it is read through it.
					e.must(os.Rename(k.newest(), k.target))
					k.rotate()
				}
				// A new daemon; the kubelet calls again.
				m = manage(t, h.options())
				e.must(m.Convert(t.Context(), f))
				e.must(m.Follow(f))
				e.must(m.Reopen(t.Context(), "abc"))
				e.fill()
				e.must(m.Finish(t.Context(), "abc"))
				if got := k.read(); got != e.want.String() {
					t.Error(diff(got, e.want.String()))
				}
				k.only(2)
			})
		}
	}
}

// TestConvertGivesUp: the caller's end leaves the link, and what was done
// counts the next time. A log that is gone is not made anew.
func TestConvertGivesUp(t *testing.T) {
	var h heard
	m := manage(t, h.options())
	e, k := newEngine(t, 1), newKubelet(t)
	k.link(e)
	e.put("stdout", strings.Repeat("x", 100)+"\n")
	f := File{ContainerID: "abc", Source: e.source, Target: k.target, Running: true}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Convert(ended, f); !errors.Is(err, context.Canceled) {
		t.Errorf("convert: %v", err)
	}
	if _, ok, err := Linked(k.target); !ok || err != nil {
		t.Errorf("linked %v, %v", ok, err)
	}
	e.must(os.WriteFile(unfinished(k.target), nil, 0o600))
	if err := exchange(unfinished(k.target), k.target+".gone"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("exchange with nothing: %v", err)
	}
	k.only(2)
	e.must(RemoveLink(k.target))
	e.must(RemoveLink(k.target))
	k.only(0)
	if err := m.Convert(t.Context(), f); err != nil {
		t.Errorf("convert nothing: %v", err)
	}
	k.only(0)
}

// TestLinkedIsNot: a log of our own, an older link behind it, and a folder that
// is not there.
func TestLinkedIsNot(t *testing.T) {
	e, k := newEngine(t, 1), newKubelet(t)
	not := func(what string) {
		t.Helper()
		if path, ok, err := Linked(k.target); ok || err != nil {
			t.Errorf("%s: %q, %v", what, path, err)
		}
		e.must(RemoveLink(k.target))
	}
	not("no folder")
	k.link(e)
	k.rotate()
	e.must(os.WriteFile(k.target, []byte("2026-01-02T15:04:05Z stdout F x\n"), 0o640))
	not("a file before a link")
	k.only(2)
	k.rotate()
	not("a rotated file before a link")
	k.only(2)
}

// TestRotationTakenBack: the answer to a reopen came too late, and the kubelet
// has renamed the rotated log back, over the new one.
func TestRotationTakenBack(t *testing.T) {
	e, k := newEngine(t, 3), newKubelet(t)
	e.maxFiles = 100
	var gaps []Gap
	c := newCopier(e, k, &gaps)
	for range 3 {
		e.fill()
		finishCopy(t, c)
		k.rotate()
		e.must(c.reopen())
		e.fill()
		finishCopy(t, c)
		e.must(os.Rename(k.newest(), k.target))
		e.fill()
		finishCopy(t, c)
		if got := k.read(); got != e.want.String() || len(gaps) != 0 {
			t.Fatalf("%s, gaps %v", diff(got, e.want.String()), gaps)
		}
	}
	e.must(c.close())
}
