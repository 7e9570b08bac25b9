package store

import (
	"path/filepath"
	"testing"
	"time"
)

// midway does something once, when a reader of the log has got so far.
type midway struct {
	*Log
	at uint64
	do func()
}

func (m *midway) Records(from uint64, fn func(Record) error) error {
	return m.Log.Records(from, func(r Record) error {
		if m.do != nil && r.Seq >= m.at {
			do := m.do
			m.do = nil
			do()
		}
		return fn(r)
	})
}

// keepFor changes the retention, between two looks of the log's own at that.
func keepFor(l *Log, d time.Duration) {
	l.keeper.upkeep.Lock()
	defer l.keeper.upkeep.Unlock()
	l.opts.Retention = d
}

// Who reads the log while events are taken out of it reads a log that is sound.
func TestReadWhileCompacted(t *testing.T) {
	for _, at := range []uint64{1, 100, 600, 1100} {
		o := quiet()
		o.Now = clockAt(time.Unix(0, 0).Add(150 * time.Hour)).now
		l := open(t, filepath.Join(t.TempDir(), FileName), o)
		for _, e := range aDay(150) {
			l.Append(e)
		}
		mustAppend(t, l)
		keepFor(l, 6*time.Hour)
		src := &midway{Log: l, at: at, do: func() { compactNow(t, l) }}
		rep, err := Verify(src)
		if err != nil || !rep.Sound() || rep.Last != l.Last() {
			t.Errorf("compacted when record %d was read: %v, up to %d of %d, damage: %v", at, err, rep.Last, l.Last(), rep.Damage)
		}
	}
}

// Who reads up to an event that is taken out meanwhile is told so.
func TestReadOvertakenByCompaction(t *testing.T) {
	o := quiet()
	o.Now = clockAt(time.Unix(0, 0).Add(150 * time.Hour)).now
	l := open(t, filepath.Join(t.TempDir(), FileName), o)
	const before = pageRecords + 200
	all := aDay(150)
	for _, e := range all[:before] {
		l.Append(e)
	}
	mustAppend(t, l)
	last := l.Last()
	keepFor(l, 6*time.Hour)
	src := &midway{Log: l, at: 1, do: func() {
		for _, e := range all[before:] {
			l.Append(e)
		}
		mustAppend(t, l)
		compactNow(t, l)
	}}
	rep, err := Verify(src)
	if err != nil || !rep.Sound() || rep.Last < last {
		t.Errorf("%v, up to %d of %d, damage: %v", err, rep.Last, last, rep.Damage)
	}
}

// Who goes on reading where it stopped before events were taken out goes on, too.
func TestGoOnAfterCompaction(t *testing.T) {
	o := quiet()
	o.Now = clockAt(time.Unix(0, 0).Add(24 * time.Hour)).now
	l := open(t, filepath.Join(t.TempDir(), FileName), o)
	for _, e := range aDay(24) {
		l.Append(e)
	}
	mustAppend(t, l)
	var all []Record
	if err := l.Records(0, func(r Record) error { all = append(all, r); return nil }); err != nil {
		t.Fatal(err)
	}
	keepFor(l, 6*time.Hour)
	compactNow(t, l)
	told := 0
	for stopped := range len(all) {
		var chain Chain
		state := NewState()
		out := uint64(0)
		next := func(r Record) error {
			e, err := chain.Next(r)
			if err != nil {
				return err
			}
			if c := e.GetCompacted(); c != nil {
				out += c.GetCount()
				told++
			} else if e.GetSnapshot() == nil {
				out++
			}
			return state.Apply(e)
		}
		for _, r := range all[:stopped] {
			if err := next(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Records(uint64(stopped)+1, next); err != nil {
			t.Fatalf("who stopped after record %d: %v", stopped, err)
		}
		if out != l.Last() {
			t.Errorf("who stopped after record %d is told of %d events, there were %d", stopped, out, l.Last())
		}
		l.View(func(want *State) { sameState(t, "gone on with", want, state) })
	}
	if told == 0 {
		t.Error("nothing was taken out")
	}
}
