package store

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"slices"
	"sort"
)

// found is a record that lies somewhere in a damaged file.
type found struct {
	link
	at   int64 // of its value
	size int

	// reach is the last record that can be got to from here, next the index of
	// the one that comes first on the way, or -1.
	reach uint64
	next  int
}

// wreck is what can be found in a damaged file by looking at all its pages,
// whatever the pages are used for: bbolt never writes over a page in use, so
// that also what a damaged tree no longer leads to is there.
type wreck struct {
	f         *os.File
	format    *format
	newer     error
	records   []found // by first
	snapshots []found // by last
}

// scanWreck reads the whole of f. What cannot be read or makes no sense is
// passed over.
func scanWreck(f *os.File) (*wreck, error) {
	w := &wreck{f: f}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return w, err
	}
	p := &pages{f: f, size: info.Size()}
	if p.chooseMeta() != nil || p.meta.pageSize < 1<<10 || p.meta.pageSize > 1<<24 {
		p.meta.pageSize = int64(os.Getpagesize())
	}
	for id := uint64(0); id < uint64(p.size/p.meta.pageSize); id++ {
		pg, err := p.leftover(id)
		if err != nil || pg.flags != flagLeaf || native.Uint64(pg.data) != id {
			continue
		}
		w.leaf(pg, int64(id)*p.meta.pageSize, cap(pg.data))
	}
	w.link()
	return w, w.newer
}

// leaf takes up the records of a leaf page, the backing array of which has
// that capacity and begins at that place in the file.
func (w *wreck) leaf(pg page, at int64, whole int) {
	for i := range min(pg.count, len(pg.data)/elementSize) {
		e, err := pg.element(i)
		switch {
		case err != nil:
		case e.bucket:
			if _, inline, err := pg.bucket(e); err == nil && inline.data != nil {
				w.leaf(inline, at, whole)
			}
		case bytes.Equal(e.key, keyFormat):
			w.found(decodeFormat(e.value))
		default:
			if seq, err := keySeq(e.key); err == nil {
				w.record(Record{Seq: seq, Value: e.value}, at+int64(whole-cap(e.value)))
			}
		}
	}
}

func (w *wreck) found(f format, err error) {
	if errors.Is(err, ErrNewer) {
		w.newer = err
	}
	if err == nil {
		w.format = &f
	}
}

func (w *wreck) record(r Record, at int64) {
	if r.check() != nil {
		return
	}
	_, l, err := r.link()
	if err != nil {
		return
	}
	n := found{link: l, at: at, size: len(r.Value), next: -1, reach: l.last}
	if l.kind == snapshotVersion {
		w.snapshots = append(w.snapshots, n)
		return
	}
	w.records = append(w.records, n)
}

// link finds out how far each record leads. A page may be there in several
// versions: of equal ways the stub's is taken, since it is the newer one.
func (w *wreck) link() {
	slices.SortStableFunc(w.records, func(a, b found) int { return cmp.Compare(a.first, b.first) })
	slices.SortStableFunc(w.snapshots, func(a, b found) int { return cmp.Compare(a.last, b.last) })
	for i := len(w.records) - 1; i >= 0; i-- {
		r := &w.records[i]
		if r.next = w.after(Chain{last: r.last, head: r.hash}); r.next >= 0 {
			r.reach = w.records[r.next].reach
		}
	}
}

// after returns the best record to follow the chain, or -1.
func (w *wreck) after(c Chain) int {
	best := -1
	i := sort.Search(len(w.records), func(i int) bool { return w.records[i].first > c.last })
	for ; i < len(w.records) && w.records[i].first == c.last+1; i++ {
		r := w.records[i]
		if r.prev != c.head {
			continue
		}
		if best < 0 || r.reach > w.records[best].reach || r.reach == w.records[best].reach && r.kind > w.records[best].kind {
			best = i
		}
	}
	return best
}

// highest returns the last record of all that were found, or nil.
func (w *wreck) highest() *found {
	var h *found
	for i := range w.records {
		if h == nil || w.records[i].last > h.last {
			h = &w.records[i]
		}
	}
	return h
}

// bridge finds where the log can be gone on with after a gap that begins after
// last: the first of a run of records that meets a snapshot, from which the
// state is known again, or the snapshot itself. ok is false where there is
// none. The chain is the one before the first record of that run.
func (w *wreck) bridge(last uint64) (c Chain, ok bool) {
	byLast := make([]int, len(w.records))
	for i := range byLast {
		byLast[i] = i
	}
	slices.SortFunc(byLast, func(a, b int) int { return cmp.Compare(w.records[a].last, w.records[b].last) })
	before := func(c Chain) (Chain, bool) {
		i := sort.Search(len(byLast), func(i int) bool { return w.records[byLast[i]].last >= c.last })
		for ; i < len(byLast) && w.records[byLast[i]].last == c.last; i++ {
			if r := w.records[byLast[i]]; r.hash == c.head && r.first > last+1 {
				return Chain{last: r.first - 1, head: r.prev}, true
			}
		}
		return c, false
	}
	for i := len(w.snapshots) - 1; i >= 0 && w.snapshots[i].last > last; i-- {
		c := Chain{last: w.snapshots[i].last, head: w.snapshots[i].prev}
		if w.damagedSnapshot(w.snapshots[i]) {
			continue
		}
		for more := true; more; {
			c, more = before(c)
		}
		return c, true
	}
	return Chain{}, false
}

func (w *wreck) damagedSnapshot(s found) bool {
	r, err := w.read(s)
	if err != nil {
		return true
	}
	snap, err := r.snapshot()
	if err != nil {
		return true
	}
	_, err = FromProto(snap.GetState())
	return err != nil
}

// snapshotAt returns the snapshot that fits the end of the chain.
func (w *wreck) snapshotAt(c Chain) (Record, bool) {
	i := sort.Search(len(w.snapshots), func(i int) bool { return w.snapshots[i].last >= c.last })
	for ; i < len(w.snapshots) && w.snapshots[i].last == c.last; i++ {
		if s := w.snapshots[i]; s.prev == c.head && !w.damagedSnapshot(s) {
			r, err := w.read(s)
			return r, err == nil
		}
	}
	return Record{}, false
}

// read reads a record that was found.
func (w *wreck) read(n found) (Record, error) {
	r := Record{Seq: n.last, Value: make([]byte, n.size)}
	_, err := w.f.ReadAt(r.Value, n.at)
	return r, err
}
