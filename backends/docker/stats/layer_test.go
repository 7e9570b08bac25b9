package stats

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// still is a pacer that never rests.
func still() *pacer {
	p := newPacer()
	p.now = func() time.Time { return p.began }
	return p
}

func writeFile(t *testing.T, name string, size int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
}

// blocks is what the kernel says that a file takes up.
func blocks(t *testing.T, names ...string) (n uint64) {
	t.Helper()
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			t.Fatal(err)
		}
		n += uint64(st.Blocks) * 512
	}
	return n
}

func TestMeasure(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(outside, "secret"), 1<<20)
	writeFile(t, filepath.Join(dir, "a/b/file"), 100_000)
	all := []string{dir, filepath.Join(dir, "a"), filepath.Join(dir, "a/b"), filepath.Join(dir, "a/b/file")}
	// A name more is not a file more.
	if err := os.Link(filepath.Join(dir, "a/b/file"), filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	// A hole takes up nothing.
	sparse := filepath.Join(dir, "sparse")
	writeFile(t, sparse, 0)
	if err := os.Truncate(sparse, 1<<30); err != nil {
		t.Fatal(err)
	}
	// A link is itself and not what it points at.
	link := filepath.Join(dir, "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	all = append(all, sparse, link)
	for i := range namesAtOnce + 10 {
		name := filepath.Join(dir, "many", fmt.Sprint(i))
		writeFile(t, name, 0)
		all = append(all, name)
	}
	all = append(all, filepath.Join(dir, "many"))

	got, err := measure(t.Context(), dir, still())
	if err != nil {
		t.Fatal(err)
	}
	if got.Inodes != uint64(len(all)) || got.Bytes != blocks(t, all...) {
		t.Errorf("%d bytes, %d inodes; want %d, %d", got.Bytes, got.Inodes, blocks(t, all...), len(all))
	}
	if got.Measured.IsZero() || strings.Count(got.Device, ":") != 1 {
		t.Errorf("measured %v on %q", got.Measured, got.Device)
	}
}

// TestMeasureStaysOnItsFileSystem: what is mounted in a layer is no part of it.
func TestMeasureStaysOnItsFileSystem(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a/file"), 4096)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := &walk{ctx: t.Context(), pace: still(), dev: ^uint64(0), seen: map[uint64]struct{}{}}
	if err := w.folder(f, 0); err != nil || w.layer.Inodes != 0 {
		t.Errorf("%d inodes of another file system, %v", w.layer.Inodes, err)
	}
}

func TestMeasureEnds(t *testing.T) {
	dir := t.TempDir()
	deep := dir
	for range 20 {
		deep = filepath.Join(deep, "d")
	}
	writeFile(t, filepath.Join(deep, "file"), 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measure(ctx, dir, still()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := measure(t.Context(), filepath.Join(dir, "nothing"), still()); !gone(err) {
		t.Errorf("gone: %v", err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := measure(t.Context(), filepath.Join(dir, "link"), still()); err == nil {
		t.Error("a link was followed")
	}
}

// TestMeasureWhileItChanges removes and makes folders all the time.
func TestMeasureWhileItChanges(t *testing.T) {
	dir := t.TempDir()
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			name := filepath.Join(dir, fmt.Sprint(i%50), "x", "y")
			if err := os.MkdirAll(name, 0o755); err != nil {
				t.Error(err)
			}
			if err := os.RemoveAll(filepath.Join(dir, fmt.Sprint((i+25)%50))); err != nil {
				t.Error(err)
			}
		}
	}()
	for range 200 {
		if _, err := measure(t.Context(), dir, still()); err != nil {
			t.Error(err)
		}
	}
	close(done)
	<-stopped
}

// TestPacer counts how long it rests for what it works.
func TestPacer(t *testing.T) {
	var now time.Time
	var rested time.Duration
	p := &pacer{now: func() time.Time { return now }, sleep: func(_ context.Context, d time.Duration) error {
		rested += d
		now = now.Add(d)
		return nil
	}}
	const worked = 2 * time.Second
	for range worked / time.Millisecond {
		now = now.Add(time.Millisecond)
		if err := p.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if rested != duty*worked {
		t.Errorf("rested %v for %v of work", rested, worked)
	}
	if p.worked() != worked {
		t.Errorf("worked %v, it says %v", worked, p.worked())
	}
}

// subject is a container of a measurer's tests.
type subject struct {
	dir   string
	ended bool
	busy  uint64
}

func subjects(all map[string]*subject) []Subject {
	var out []Subject
	for id, s := range all {
		out = append(out, Subject{ID: id, Dir: s.dir, Ended: s.ended, Activity: func() (uint64, bool) { return s.busy, true }})
	}
	return out
}

// TestTurns is about which container is measured when.
func TestTurns(t *testing.T) {
	m := NewMeasurer(time.Minute, nil, func(id string, err error) { t.Errorf("%s: %v", id, err) })
	all := map[string]*subject{"a": {dir: t.TempDir()}, "unknown": {}}
	now := time.Now()
	turn := func(after time.Duration, want string) {
		t.Helper()
		var got []string
		for _, s := range m.due(subjects(all), now.Add(after)) {
			m.measure(t.Context(), s, still())
			m.seen[s.ID].tried = now.Add(after)
			got = append(got, s.ID)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("after %v: measured %q, want %q", after, got, want)
		}
	}
	turn(0, "a")
	turn(time.Second, "") // a moment ago
	all["a"].busy++
	turn(30*time.Second, "")
	turn(time.Minute, "a")  // has done something
	turn(2*time.Minute, "") // has done nothing
	all["a"].busy++
	turn(2*time.Minute+time.Second, "") // that was looked at a moment ago
	turn(3*time.Minute, "a")
	turn(13*time.Minute, "a") // has done nothing for long
	all["b"], all["a"].ended = &subject{dir: t.TempDir()}, true
	turn(13*time.Minute+time.Second, "b a") // new before ended
	turn(14*time.Minute+time.Second, "")
	turn(2*time.Hour, "b") // an ended one changes no more
	all["a"].ended = false
	turn(2*time.Hour+time.Second, "a") // started again
	// One that takes long is measured more rarely.
	m.seen["a"].cost = 3 * time.Second
	all["a"].busy++
	turn(2*time.Hour+9*time.Minute, "")
	turn(2*time.Hour+11*time.Minute, "a b")
	delete(all, "a")
	m.keep(subjects(all))
	if _, ok := m.Layer("a"); ok {
		t.Error("a removed container still has a size")
	}
	if _, ok := m.Layer("b"); !ok {
		t.Error("a container that was measured has no size")
	}
	if _, ok := m.Layer("unknown"); ok {
		t.Error("a container whose layer is nowhere has a size")
	}
}

// TestUnmeasurable: a layer that is gone has no size; one that cannot be read
// is told of, once.
func TestUnmeasurable(t *testing.T) {
	var told int
	m := NewMeasurer(time.Minute, nil, func(string, error) { told++ })
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	writeFile(t, file, 1)
	m.measure(t.Context(), Subject{ID: "gone", Dir: filepath.Join(dir, "none")}, still())
	if _, ok := m.Layer("gone"); ok || told != 0 {
		t.Errorf("gone: told %d", told)
	}
	for range 3 {
		m.measure(t.Context(), Subject{ID: "file", Dir: file}, still())
	}
	if _, ok := m.Layer("file"); ok || told != 1 {
		t.Errorf("no folder: told %d", told)
	}
}

// TestRun measures what there is, and what comes later, until it is stopped.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	failed := errors.New("not now")
	var asked int
	m := NewMeasurer(time.Hour, func(context.Context) ([]Subject, error) {
		if asked++; asked == 1 {
			return nil, failed
		}
		return []Subject{{ID: "a", Dir: dir}}, nil
	}, func(string, error) {})
	m.Wake()
	m.Wake() // and does not wait
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	for {
		if l, ok := m.Layer("a"); ok {
			if l.Inodes != 1 {
				t.Errorf("%+v", l)
			}
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
