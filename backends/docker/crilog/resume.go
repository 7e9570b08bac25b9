package crilog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// place is where in a source to go on.
type place struct {
	at   int   // index of the segment
	off  int64 // of the record in it
	skip int   // how many lines of that record are written already
	// gap is true when records before it may have been lost.
	gap bool
}

// located is a record of a source with its place.
type located struct {
	at    int
	off   int64
	stamp []byte
	lines [][]byte
}

// locate returns where a source, the oldest segment first, goes on behind what
// was written.
//
// What was written last is a run of lines with one timestamp. In the source
// they are the beginning of a run of records with that timestamp, which may go
// on further, and the line before the run is the same in both.
func locate(all []*segment, w written) (place, error) {
	if w.stamp == nil || len(all) == 0 {
		return place{}, nil
	}
	r, err := newRecords(all)
	if err != nil {
		return place{}, err
	}
	var second *place // where all but the line before is right
	for {
		run, before, err := r.run(w.stamp)
		if errors.Is(err, errLongLine) {
			break // as far back as can be read
		}
		if err != nil {
			return place{}, err
		}
		if run == nil {
			break
		}
		p, ok := match(run, w.lines)
		if ok && (w.before == nil || before == nil || bytes.Equal(before, w.before)) {
			return p, nil
		}
		if ok && second == nil {
			second = &p
		}
		if !ok && before == nil {
			// The start of the source: what came before is rotated away.
			return overlap(run, w.lines), nil
		}
	}
	if second != nil {
		return *second, nil
	}
	return firstAfter(all, w.stamp)
}

// match returns the place behind lines, when run begins with them.
func match(run []located, lines [][]byte) (place, bool) {
	for _, rec := range run {
		n := min(len(rec.lines), len(lines))
		for j := range n {
			if !bytes.Equal(rec.lines[j], lines[j]) {
				return place{}, false
			}
		}
		if lines = lines[n:]; len(lines) > 0 {
			continue
		}
		// It may be all lines of the record: then the next one follows.
		return place{at: rec.at, off: rec.off, skip: n}, true
	}
	return place{}, false
}

// overlap returns the place behind those of the last lines that a run begins
// with, when the first of them are no longer in the source. If it begins with
// none of them, something may be missing between them and the run.
func overlap(run []located, lines [][]byte) place {
	for ; len(lines) > 0; lines = lines[1:] {
		if p, ok := match(run, lines); ok {
			return p
		}
	}
	return place{at: run[0].at, off: run[0].off, gap: true}
}

// records reads the records of a source backward.
type records struct{ lines *backward }

// newRecords starts at the end.
func newRecords(all []*segment) (*records, error) {
	b, err := newBackward(all)
	return &records{b}, err
}

// prev returns the record before that has lines, nil at the start. With a
// stamp, only records with that one count, and the others cost little.
func (r *records) prev(stamp []byte) (*located, error) {
	for {
		line, at, off, ok, err := r.lines.prev()
		if err != nil || !ok {
			return nil, err
		}
		if !bytes.Contains(line, stamp) {
			continue
		}
		rec, _, _, ok := parse(line, nil)
		if !ok || stamp != nil && !bytes.Equal(rec.stamp, stamp) {
			continue
		}
		if text, n := rec.appendCRI(nil, 0); n > 0 {
			return &located{at: at, off: off, stamp: bytes.Clone(rec.stamp), lines: bytes.SplitAfter(text, []byte{'\n'})[:n]}, nil
		}
	}
}

// run returns the next run of records with a timestamp, the first first, and
// the line before it. It is nil when there is no more.
func (r *records) run(stamp []byte) (run []located, before []byte, err error) {
	l, err := r.prev(stamp)
	for l != nil && err == nil && bytes.Equal(l.stamp, stamp) {
		run = append(run, *l)
		l, err = r.prev(nil)
	}
	if err != nil {
		return nil, nil, err
	}
	if l != nil {
		before = l.lines[len(l.lines)-1]
	}
	slices.Reverse(run)
	return run, before, nil
}

// firstAfter returns the place of the first record that is later than a
// timestamp which is not in the source: it was rotated away, and what lay
// behind it perhaps too. Without a later one that is the end.
func firstAfter(all []*segment, stamp []byte) (place, error) {
	last := instant(stamp)
	p := place{gap: true}
	for at, s := range all {
		p.at = at
		lines := newForward(s, 0)
		for {
			p.off = lines.off
			line, err := lines.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return place{}, fmt.Errorf("read %s: %w", s.Name(), err)
			}
			if rec, _, _, ok := parse(line, nil); ok && instant(rec.stamp).After(last) {
				return p, nil
			}
		}
	}
	return p, nil
}
