package crilog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newCopier returns a copier of small steps that counts its gaps.
func newCopier(e *engine, k *kubelet, gaps *[]Gap) *copier {
	return &copier{
		file: File{ContainerID: "abc", Source: e.source, Target: k.target, Running: true},
		size: 100, onGap: func(g Gap) { *gaps = append(*gaps, g) },
	}
}

// finishCopy copies all that is there.
func finishCopy(t *testing.T, c *copier) {
	t.Helper()
	for {
		more, err := c.batch()
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

// die is kill -9: files are closed and nothing else is done.
func die(c *copier) {
	_ = c.close()
}

// TestNoLineLostNoneDoubled kills the copier again and again, at any step,
// within a write, with the Engine and the kubelet rotating meanwhile.
func TestNoLineLostNoneDoubled(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			e, k := newEngine(t, seed), newKubelet(t)
			e.maxSize, e.maxFiles = int64(200+e.rng.IntN(3000)), 3+e.rng.IntN(3)
			var gaps []Gap
			for range 100 {
				c := newCopier(e, k, &gaps)
				c.size = 1 + e.rng.IntN(400)
				// The Engine turns at most once while nobody follows: more
				// would be a gap.
				for before := e.rotations; e.rng.IntN(4) > 0 && e.rotations == before; {
					e.random(3)
				}
				for range e.rng.IntN(12) {
					if _, err := c.batch(); err != nil {
						t.Fatal(err)
					}
					if e.rng.IntN(8) == 0 {
						k.rotate()
						if e.rng.IntN(3) == 0 {
							break // killed before the reopen
						}
						if err := c.reopen(); err != nil {
							t.Fatal(err)
						}
					}
					if e.rng.IntN(3) == 0 && c.cur != nil {
						if n, err := c.where(); err == nil && n == 0 {
							e.random(3)
						}
					}
				}
				if e.rng.IntN(3) > 0 {
					finishCopy(t, c)
				}
				die(c)
				if e.rng.IntN(3) == 0 {
					k.tear(e.rng)
				}
				// So that nothing is behind when the Engine may turn again.
				c = newCopier(e, k, &gaps)
				finishCopy(t, c)
				die(c)
				if got, want := k.read(), e.want.String(); got != want {
					t.Fatal(diff(got, want))
				}
			}
			if len(gaps) != 0 {
				t.Errorf("gaps %v", gaps)
			}
		})
	}
}

func TestSourceAppearsLater(t *testing.T) {
	e, k := newEngine(t, 1), newKubelet(t)
	var gaps []Gap
	if err := os.Remove(e.source); err != nil {
		t.Fatal(err)
	}
	c := newCopier(e, k, &gaps)
	defer die(c)
	finishCopy(t, c)
	if b, err := os.ReadFile(k.target); err != nil || len(b) != 0 {
		t.Errorf("the target before the source: %q, %v", b, err)
	}
	if st, err := os.Stat(k.target); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	e.put("stdout", "hello\n")
	finishCopy(t, c)
	if got := k.read(); got != e.want.String() {
		t.Error(diff(got, e.want.String()))
	}
}

// TestPartOfARunIsRotatedAway: records of one time in two files, of which the
// first is gone when the copier comes back.
func TestPartOfARunIsRotatedAway(t *testing.T) {
	for written := range 3 {
		e, k := newEngine(t, 1), newKubelet(t)
		e.maxFiles = 1
		var gaps []Gap
		c := newCopier(e, k, &gaps)
		c.size = 1
		e.put("stdout", "one\n")
		e.put("stdout", "two\n")
		finishCopy(t, c)
		// maxFiles 1: the first file goes, unless it is still open.
		e.must(os.Remove(e.source))
		e.must(os.WriteFile(e.source, nil, 0o600))
		for i := range 3 {
			e.put("stdout", fmt.Sprintln("three", i))
			if i < written {
				finishCopy(t, c)
			}
		}
		die(c)
		gaps = nil
		c = newCopier(e, k, &gaps)
		finishCopy(t, c)
		die(c)
		if got := k.read(); got != e.want.String() {
			t.Error(written, diff(got, e.want.String()))
		}
		// Where one line of the new file had been written, it is a bridge.
		if want := min(1, max(0, 1-written)); len(gaps) != want {
			t.Errorf("%d: gaps %v", written, gaps)
		}
	}
}

func TestTornRecordWaitsForItsEnd(t *testing.T) {
	e, k := newEngine(t, 1), newKubelet(t)
	var gaps []Gap
	c := newCopier(e, k, &gaps)
	defer die(c)
	line := `{"log":"hello\n","stream":"stdout","time":"` + stamp + `"}` + "\n"
	for i := range len(line) {
		f, err := os.OpenFile(e.source, os.O_WRONLY|os.O_APPEND, 0)
		e.must(err)
		_, err = f.WriteString(line[i : i+1])
		e.must(err)
		e.must(f.Close())
		finishCopy(t, c)
		want := ""
		if i == len(line)-1 {
			want = stamp + " stdout F hello\n"
		}
		if got := k.read(); got != want {
			t.Fatalf("after %d bytes: %q", i+1, got)
		}
	}
}

// gapCases are ways in which records may and may not be lost.
var gapCases = map[string]struct {
	while string
	turns int
	gap   bool
}{
	"one turn, running":      {"running", 1, false},
	"two turns, running":     {"running", 2, false},
	"all turned, running":    {"running", 4, true},
	"one turn, restarted":    {"restarted", 1, false},
	"two turns, restarted":   {"restarted", 2, false},
	"all turned, restarted":  {"restarted", 4, true},
	"damaged record":         {"damaged", 0, true},
	"emptied":                {"emptied", 0, true},
	"torn and turned":        {"torn", 1, true},
	"target is of elsewhere": {"elsewhere", 0, true},
}

// TestGaps: what the Engine rotates away unread, and only that, is a gap.
func TestGaps(t *testing.T) {
	for name, c := range gapCases {
		t.Run(name, func(t *testing.T) {
			e, k := newEngine(t, 1), newKubelet(t)
			e.maxFiles = 3
			var gaps []Gap
			co := newCopier(e, k, &gaps)
			defer func() { die(co) }()
			put := func(text string) {
				e.now = e.now.Add(time.Second)
				e.put("stdout", text)
			}
			put("first\n")
			finishCopy(t, co)
			last := e.now
			switch c.while {
			case "restarted":
				die(co)
				co = newCopier(e, k, &gaps)
			case "damaged":
				appendTo(t, e.source, "rubbish\n")
			case "torn":
				appendTo(t, e.source, `{"log":"hel`)
			case "emptied":
				e.must(os.Truncate(e.source, 0))
			case "elsewhere":
				die(co)
				other := strings.Replace(e.want.String(), "first", "other", 1)
				e.must(os.WriteFile(k.target, []byte(other), 0o640))
				co = newCopier(e, k, &gaps)
			}
			for range c.turns {
				e.rotate()
				put("in between\n")
			}
			put("x\n")
			finishCopy(t, co)
			if c.gap != (len(gaps) == 1) || len(gaps) > 1 {
				t.Fatalf("gaps %v", gaps)
			}
			if c.gap && (!gaps[0].After.Equal(last) || gaps[0].Before.Before(last)) {
				t.Errorf("gap %v, the last record was of %v", gaps[0], last)
			}
			got := k.read()
			if !strings.HasSuffix(got, " x\n") || strings.Count(got, "first") > 1 || strings.Count(got, "first")+strings.Count(got, "other") == 0 {
				t.Errorf("log %q", got)
			}
			if !c.gap && got != e.want.String() {
				t.Error(diff(got, e.want.String()))
			}
		})
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestBehindWhenTheEngineTurns: a successor that was seen is held, though it
// is rotated away before the copier comes to it.
func TestBehindWhenTheEngineTurns(t *testing.T) {
	e, k := newEngine(t, 1), newKubelet(t)
	e.maxFiles = 2
	var gaps []Gap
	c := newCopier(e, k, &gaps)
	defer die(c)
	write := func(n int) {
		for i := range n {
			e.now = e.now.Add(time.Second)
			e.put("stdout", fmt.Sprintf("line %d\n", i))
		}
	}
	write(100)
	step := func() {
		if _, err := c.batch(); err != nil {
			t.Fatal(err)
		}
	}
	step()
	e.rotate()
	write(50)
	step()
	e.rotate() // the file that is read has no name any more, the next is .1
	write(50)
	finishCopy(t, c)
	if got := k.read(); got != e.want.String() || len(gaps) != 0 {
		t.Error(diff(got, e.want.String()), gaps)
	}
}

func TestTargetIsRefused(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"symbolic link": func(p string) error { return os.Symlink("/dev/null", p) },
		"folder":        func(p string) error { return os.Mkdir(p, 0o755) },
		"json":          func(p string) error { return os.WriteFile(p, []byte(`{"log":"x"}`+"\n"), 0o640) },
		"no newlines":   func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), 2*maxLine), 0o640) },
		"large json":    func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte(`{"log":"x"}`+"\n"), 200000), 0o640) },
		"device":        func(p string) error { return os.Symlink("/dev/zero", p) },
	} {
		t.Run(name, func(t *testing.T) {
			e, k := newEngine(t, 1), newKubelet(t)
			e.must(os.MkdirAll(filepath.Dir(k.target), 0o755))
			e.must(prepare(k.target))
			var gaps []Gap
			c := newCopier(e, k, &gaps)
			defer die(c)
			if _, err := c.batch(); err == nil || !strings.Contains(err.Error(), k.target) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestZerosAtTheEnd: what a power failure may leave of a write.
func TestZerosAtTheEnd(t *testing.T) {
	e, k := newEngine(t, 1), newKubelet(t)
	var gaps []Gap
	c := newCopier(e, k, &gaps)
	for i := range 10 {
		e.now = e.now.Add(time.Second)
		e.put("stdout", fmt.Sprintf("line %d\n", i))
	}
	finishCopy(t, c)
	die(c)
	b, err := os.ReadFile(k.target)
	e.must(err)
	clear(b[len(b)/2:])
	e.must(os.WriteFile(k.target, b, 0o640))
	c = newCopier(e, k, &gaps)
	defer die(c)
	finishCopy(t, c)
	if got := k.read(); got != e.want.String() || len(gaps) != 0 {
		t.Error(diff(got, e.want.String()), gaps)
	}
}

func TestEndlessLine(t *testing.T) {
	e, k := newEngine(t, 1), newKubelet(t)
	var gaps []Gap
	c := newCopier(e, k, &gaps)
	e.put("stdout", "first\n")
	appendTo(t, e.source, strings.Repeat("x", 5*maxLine)+"\n")
	e.now = e.now.Add(time.Second)
	e.put("stdout", "second\n")
	finishCopy(t, c)
	die(c)
	if got := k.read(); got != e.want.String() || len(gaps) != 1 {
		t.Error(diff(got, e.want.String()), gaps)
	}
	e.now = e.now.Add(time.Second)
	e.put("stdout", "third\n")
	c = newCopier(e, k, &gaps)
	defer die(c)
	finishCopy(t, c)
	if got := k.read(); got != e.want.String() {
		t.Error(diff(got, e.want.String()))
	}
}

// TestSiblings: only what the kubelet rotates, and can be read, is looked at.
func TestSiblings(t *testing.T) {
	e, k := newEngine(t, 1), newKubelet(t)
	var gaps []Gap
	c := newCopier(e, k, &gaps)
	e.put("stdout", "first\n")
	finishCopy(t, c)
	die(c)
	k.rotate()
	e.must(os.WriteFile(k.target+".20270101-000000.gz", []byte("x"), 0o600))
	e.must(os.WriteFile(k.target+".tmp", []byte("x\n"), 0o600))
	e.must(os.WriteFile(k.target+".20270101", []byte("x\n"), 0o600))
	e.must(os.Symlink(e.source, k.target+".20280101-000000"))
	e.must(os.WriteFile(k.target+".20290101-000000", nil, 0o600))
	c = newCopier(e, k, &gaps)
	defer die(c)
	e.put("stdout", "second\n") // with the same time
	finishCopy(t, c)
	if b, err := os.ReadFile(k.target); err != nil || !strings.HasSuffix(string(b), "F second\n") || strings.Contains(string(b), "first") {
		t.Errorf("log %q, %v", b, err)
	}
}

// FuzzResume gives the copier any source and any end of a target: it must not
// fail, and what it writes is records.
func FuzzResume(f *testing.F) {
	rec := func(text, s string) string {
		return `{"log":"` + text + `","stream":"stdout","time":"` + s + `"}` + "\n"
	}
	f.Add([]byte(rec(`a\n`, stamp)+rec(`a\nb`, stamp)), []byte(stamp+" stdout F a\n"+stamp+" stdo"))
	f.Add([]byte("x\n"), []byte(stamp+" stdout P a\n"))
	f.Add([]byte(rec(`a\n`, stamp)), []byte("2020-01-02T15:04:05Z stdout P a\n"))
	f.Fuzz(func(t *testing.T, source, target []byte) {
		dir := t.TempDir()
		s, o := filepath.Join(dir, "s"), filepath.Join(dir, "o")
		if err := errors.Join(os.WriteFile(s, source, 0o600), os.WriteFile(o, target, 0o600)); err != nil {
			t.Fatal(err)
		}
		c := &copier{file: File{Source: s, Target: o}, size: 64, onGap: func(Gap) {}}
		defer die(c)
		for {
			more, err := c.batch()
			if err != nil {
				if c.target != nil {
					t.Fatal(err)
				}
				return // a target that is no CRI log
			}
			if !more {
				break
			}
		}
		first, err := os.ReadFile(o)
		if err != nil {
			t.Fatal(err)
		}
		die(c)
		// What is complete stays as it is.
		if _, err := c.batch(); err != nil && c.target != nil {
			t.Fatal(err)
		}
		if again, err := os.ReadFile(o); err != nil || !bytes.Equal(first, again) {
			t.Fatalf("copied again: %q\nthen %q, %v\nsource %q", first, again, err, source)
		}
	})
}

func BenchmarkCopy(b *testing.B) {
	dir := b.TempDir()
	source := filepath.Join(dir, "s")
	var text bytes.Buffer
	for i := range 100000 {
		fmt.Fprintf(&text, `{"log":"10.0.0.1 - - \"GET /index.html HTTP/1.1\" 200 612 %d\n","stream":"stdout","time":"2026-01-02T15:04:05.%09dZ"}`+"\n", i, i)
	}
	if err := os.WriteFile(source, text.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	b.Run("from the start", func(b *testing.B) {
		b.SetBytes(int64(text.Len()))
		for i := 0; b.Loop(); i++ {
			copyAll(b, source, filepath.Join(dir, fmt.Sprint("o", i)))
		}
	})
	target := filepath.Join(dir, "whole")
	copyAll(b, source, target)
	b.Run("resume at the end", func(b *testing.B) {
		for b.Loop() {
			copyAll(b, source, target)
		}
	})
}

func copyAll(b *testing.B, source, target string) {
	c := &copier{file: File{Source: source, Target: target}, size: chunk, onGap: func(Gap) {}}
	defer die(c)
	for more := true; more; {
		var err error
		if more, err = c.batch(); err != nil {
			b.Fatal(err)
		}
	}
}
