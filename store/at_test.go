package store

import (
	"errors"
	"path/filepath"
	"testing"
	"time"
)

// The state at a point is told exactly, or not at all.
func TestStateAt(t *testing.T) {
	now := time.Unix(0, 0).Add(24 * time.Hour)
	o := quiet()
	o.Retention, o.Now = 6*time.Hour, func() time.Time { return now }
	l := open(t, filepath.Join(t.TempDir(), FileName), o)
	for _, e := range aDay(24) {
		l.Append(e)
	}
	last := mustAppend(t, l)
	full := read(t, l).full
	compactNow(t, l)
	rep, err := Verify(l)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= last+1; seq++ {
		s, err := StateAt(l, seq)
		switch {
		case seq < rep.Base && seq > 4 || seq > last: // the first four are of the pod that lives
			if !errors.Is(err, ErrOutOfRange) {
				t.Errorf("event %d: %v", seq, err)
			}
		case err != nil || string(stateBytes(t, s)) != full[seq]:
			t.Errorf("event %d: %v", seq, err)
		}
	}
	if _, err := StateAtTime(l, time.Unix(0, 0).Add(10*time.Hour)); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("ten hours in: %v", err)
	}
	s, err := StateAtTime(l, time.Unix(0, 0).Add(20*time.Hour))
	if err != nil || s.Seq() != 4+20*12 {
		t.Errorf("twenty hours in: %v", err)
	}
}

// Who reads in parts gets the base snapshot wherever the parts are cut.
func TestReadInParts(t *testing.T) {
	o := quiet()
	o.Retention, o.Now = 6*time.Hour, func() time.Time { return time.Unix(0, 0).Add(24 * time.Hour) }
	l := open(t, filepath.Join(t.TempDir(), FileName), o)
	for _, e := range aDay(24) {
		l.Append(e)
	}
	mustAppend(t, l)
	compactNow(t, l)
	want := read(t, l).state
	enough := errors.New("enough")
	for size := 1; size < 20; size++ {
		var chain Chain
		s, from := NewState(), uint64(0)
		for more := true; more; {
			n := 0
			err := l.Records(from, func(r Record) error {
				e, err := chain.Next(r)
				if err != nil {
					return err
				}
				if err := s.Apply(e); err != nil {
					return err
				}
				if from = r.Seq + 1; e.GetSnapshot() == nil {
					n++
				}
				if n == size {
					return enough
				}
				return nil
			})
			if err != nil && !errors.Is(err, enough) {
				t.Fatalf("parts of %d: %v", size, err)
			}
			more = err != nil
		}
		sameState(t, "in parts", want, s)
		if s.Partial() {
			t.Errorf("parts of %d: the base was missed", size)
		}
	}
}
