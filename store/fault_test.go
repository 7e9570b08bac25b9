package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/crimux/crimux/store/eventpb"
)

// faults is a log's update with knobs. They are for the writer's next commits
// and are set while it has nothing to do.
type faults struct {
	next func(func(*bbolt.Tx) error) error
	// before fails that many commits before anything of them is in the file,
	// as a full disk does; after fails them when all of it is, as the
	// fdatasync of the meta page can.
	before, after int
	panics        bool
	errs          []error // what OnFailure was told
}

var errFault = syscall.EIO

func (f *faults) update(fn func(*bbolt.Tx) error) error {
	if f.panics {
		panic("impossible")
	}
	if f.before > 0 {
		f.before--
		return errFault
	}
	if err := f.next(fn); err != nil {
		return err
	}
	if f.after > 0 {
		f.after--
		return errFault
	}
	return nil
}

func faulty(t *testing.T, path string) (*Log, *faults) {
	t.Helper()
	f := &faults{}
	l := open(t, path, Options{NoSync: true, Tick: time.Hour, OnFailure: func(err error) { f.errs = append(f.errs, err) }})
	f.next, l.update = l.update, f.update
	return l, f
}

func TestFailedCommit(t *testing.T) {
	tests := []struct {
		name string
		set  func(*faults)
		n    int // commits that fail
	}{
		{"before", func(f *faults) { f.before = 1 }, 1},
		{"after", func(f *faults) { f.after = 1 }, 1},
		{"before and before", func(f *faults) { f.before = 2 }, 2},
		{"before and after", func(f *faults) { f.before, f.after = 1, 1 }, 2},
		{"after and after", func(f *faults) { f.after = 2 }, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, f := faulty(t, filepath.Join(t.TempDir(), FileName))
			for _, e := range aPod() {
				mustAppend(t, l, e)
			}
			tt.set(f)
			for i := range tt.n {
				op := strings.Repeat("x", i+1)
				// Longer than what follows: some of it would be left over.
				p := l.Append(run(op, "docker", "v"), done(op, "sb2"), started("b"), started("b"))
				_, err := p.Wait(t.Context())
				if !errors.Is(err, errFault) || !strings.Contains(err.Error(), FileName) {
					t.Errorf("got %v", err)
				}
			}
			if len(f.errs) != tt.n || !errors.Is(f.errs[0], errFault) {
				t.Errorf("OnFailure was told %v", f.errs)
			}
			l.View(func(s *State) {
				if s.Seq() != 6 || s.Sandbox("sb2") != nil {
					t.Errorf("a failed commit changed the state:\n%s", dump(s))
				}
			})
			seen := uint64(0)
			if err := l.Records(1, func(r Record) error { seen = r.Seq; return nil }); err != nil || seen != 6 {
				t.Errorf("records up to %d: %v", seen, err)
			}
			if got := mustAppend(t, l, run("o9", "docker", "v")); got != 7 {
				t.Errorf("the next event is %d, want 7", got)
			}
		})
	}
}

// A disk that is full lets the log go on when it no longer is.
func TestFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	l := open(t, path, Options{NoSync: true})
	const limit = 1 << 20
	l.file.db.MaxSize = limit
	wrote := uint64(0)
	for {
		seq, err := l.Append(ev("", "", &eventpb.Stopped{Reason: strings.Repeat("x", 10_000)})).Wait(t.Context())
		if err != nil {
			break
		}
		wrote = seq
	}
	if l.Last() != wrote || wrote < 30 {
		t.Errorf("the log is at %d, acknowledged were %d", l.Last(), wrote)
	}
	l.file.db.MaxSize = 0
	if got := mustAppend(t, l, started("b")); got != wrote+1 {
		t.Errorf("the next event is %d, want %d", got, wrote+1)
	}
}

// A panic in the middle of a commit leaves bbolt in an unknown state.
func TestPanicEndsWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	l, f := faulty(t, path)
	mustAppend(t, l, started("b"))
	f.panics = true
	for range 2 {
		if _, err := l.Append(started("b")).Wait(t.Context()); !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v", err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if l := open(t, path, Options{NoSync: true}); l.Last() != 1 {
		t.Errorf("the log is at %d", l.Last())
	}
}

// A file that is cut while it is mapped gives an error, not a SIGBUS.
func TestCutWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	l, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		l.Append(started("b"))
	}
	mustAppend(t, l)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := l.Records(1, func(Record) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("Records: %v", err)
	}
	if _, err := l.Append(started("b")).Wait(t.Context()); err == nil {
		t.Error("an event was written to a file that is not there")
	}
	if got := l.Last(); got != 1000 {
		t.Errorf("the state is at %d", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenReadOnly(path); !errors.Is(err, ErrDamaged) {
		t.Errorf("OpenReadOnly: %v", err)
	}
}
