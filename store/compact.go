package store

import (
	"errors"
	"math"
	"os"
	"time"

	"go.etcd.io/bbolt"

	"github.com/crimux/crimux/store/eventpb"
)

// Compaction takes events out of the log in order to bound it. There is a cut:
// the events after it are all there, and with the snapshot at it, the base,
// they fold to every state since. Of the events up to it only the stories of
// the pods that there were at the cut are kept; stubs stand in place of the
// others. The cut moves on with the retention, and where the size demands it,
// faster.
//
// Each step leaves a log that is whole: first the new base, in a transaction of
// its own; then the sweep, in small transactions each of which takes events out
// and puts their stub in. The one that a kill interrupts is done again.

const (
	// compactAbove is the share of MaxSize in use, in percent, that starts a
	// compaction; tailShare and keptShare are what it aims at for the events
	// after the cut and for the stories before it.
	compactAbove = 60
	tailShare    = 35
	keptShare    = 15

	// compactRest is how long it rests, as a multiple of what it took, and
	// at least.
	compactRest    = 10
	compactRestMin = 100 * time.Millisecond
	// ageEvery is how often the age of the oldest event is looked at.
	ageEvery = time.Minute

	// shrinkAbove is how much of a file may be free before it is written
	// anew, if that is more than what is in use.
	shrinkAbove = 20 << 20
)

func (l *Log) tooLarge() bool {
	return l.opts.MaxSize > 0 && l.used.Load() > l.opts.MaxSize/100*compactAbove
}

// compactIfDue compacts where there is too much or it is too old. upkeep is
// held.
func (l *Log) compactIfDue() error {
	k := &l.keeper
	began := time.Now()
	if began.Before(k.compactAt) {
		return nil
	}
	due := l.tooLarge()
	if !due && l.opts.Retention > 0 && began.Sub(k.agedAt) >= ageEvery {
		old, err := l.tooOld()
		if err != nil {
			return err
		}
		due, k.agedAt = old, began
	}
	if !due {
		return nil
	}
	err := l.compact()
	k.compactAt = time.Now().Add(max(compactRestMin, compactRest*time.Since(began)))
	return err
}

// tooOld tells whether the oldest event after the base is older than the
// retention by an eighth: not every event is worth a compaction.
func (l *Log) tooOld() (bool, error) {
	old := false
	err := l.file.view(func(tx *bbolt.Tx) error {
		base, err := baseSeq(tx)
		if err != nil {
			return err
		}
		err = scanEvents(tx, base+1, math.MaxUint64, func(r Record) error {
			e, err := r.Event()
			if err != nil {
				return err
			}
			old = e.GetTime() < l.opts.Now().Add(-l.opts.Retention-l.opts.Retention/8).UnixNano()
			return errPageFull
		})
		if errors.Is(err, errPageFull) {
			return nil
		}
		return err
	})
	return old, err
}

// compact moves the cut and sweeps. upkeep is held.
func (l *Log) compact() error {
	cut, err := l.findCut()
	if err != nil || cut.chain.Last() == 0 {
		return err
	}
	if err := l.putBase(cut); err != nil {
		return err
	}
	p, err := l.plan(cut)
	if err != nil {
		return err
	}
	err = l.sweep(p, cut.chain.Last())
	if verr := l.file.view(func(tx *bbolt.Tx) error { l.used.Store(used(tx)); return nil }); err == nil {
		err = verr
	}
	return err
}

// findCut folds from the base on up to the first event that is to stay.
func (l *Log) findCut() (start, error) {
	var s, newest start
	err := l.file.view(func(tx *bbolt.Tx) (err error) {
		if newest, err = newestStart(tx); err != nil {
			return err
		}
		s, err = baseStart(tx)
		return err
	})
	if err == nil {
		err = l.foldToCut(&s)
	}
	if errors.Is(err, ErrDamaged) && newest.chain.Last() > 0 {
		// What is damaged is older than the newest snapshot: nobody can fold
		// it any more, and the sweep puts stubs in its place.
		return newest, nil
	}
	return s, err
}

// baseStart is the oldest start there is.
func baseStart(tx *bbolt.Tx) (start, error) {
	base, err := baseSeq(tx)
	if err != nil || base == 0 {
		return start{state: NewState()}, err
	}
	b := tx.Bucket(bucketSnapshots)
	if b == nil {
		return start{}, ErrDamaged
	}
	s, err := startAt(tx, Record{Seq: base, Value: b.Get(seqKey(base))}, true)
	if err != nil {
		return start{}, errors.Join(ErrDamaged, err)
	}
	return s, nil
}

// foldToCut moves s on.
func (l *Log) foldToCut(s *start) error {
	tail, err := l.sizeAfter(s.chain.Last())
	if err != nil {
		return err
	}
	most := int64(math.MaxInt64)
	if l.opts.MaxSize > 0 {
		most = l.opts.MaxSize / 100 * tailShare
	}
	oldest := int64(math.MinInt64)
	if l.opts.Retention > 0 {
		oldest = l.opts.Now().Add(-l.opts.Retention).UnixNano()
	}
	last := l.Last()
	err = l.file.records(s.chain.Last()+1, last, func(r Record) error {
		if l.keeper.stopped() {
			return errStopped
		}
		chain := s.chain
		e, err := chain.Next(r)
		if err != nil {
			return err
		}
		if e.GetSnapshot() != nil {
			return nil
		}
		if r.Seq == last || tail <= most && e.GetTime() >= oldest {
			return errPassed
		}
		tail -= recordSize(r)
		s.chain = chain
		return refold(s.state, e)
	})
	if errors.Is(err, errPassed) {
		return nil
	}
	return err
}

var errPassed = errors.New("far enough")

// recordSize is what a record takes up in a page, about.
func recordSize(r Record) int64 { return int64(len(r.Value)) + 8 + elementSize }

// sizeAfter is what the records above seq take up.
func (l *Log) sizeAfter(seq uint64) (int64, error) {
	size := int64(0)
	for {
		n, last := 0, seq
		err := l.file.scan(seq+1, math.MaxUint64, func(r Record) error {
			size += recordSize(r)
			last = r.Seq
			if n++; n == sweepRecords*16 {
				return errPageFull
			}
			return nil
		})
		if err != nil && !errors.Is(err, errPageFull) {
			return 0, err
		}
		if n == 0 {
			return size, nil
		}
		seq = last
	}
}

// putBase stores the snapshot at the cut as the oldest.
func (l *Log) putBase(cut start) error {
	r, err := newSnapshot(cut.state.Proto(), cut.chain.Head())
	if err != nil {
		return err
	}
	return l.transact(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if old := meta.Get(keyBase); string(old) == string(seqKey(r.Seq)) {
			return nil
		}
		b, err := tx.CreateBucketIfNotExists(bucketSnapshots)
		if err != nil {
			return err
		}
		if err := b.Put(seqKey(r.Seq), r.Value); err != nil {
			return err
		}
		for k, _ := b.Cursor().First(); k != nil && string(k) < string(seqKey(r.Seq)); k, _ = b.Cursor().First() {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		return meta.Put(keyBase, seqKey(r.Seq))
	})
}

// shrinkIfDue writes the file anew when most of it is free. upkeep is held.
func (l *Log) shrinkIfDue() error {
	k := &l.keeper
	if time.Now().Before(k.shrinkAt) {
		return nil
	}
	k.shrinkAt = time.Now().Add(min(time.Minute, 10*l.opts.Tick))
	info, err := os.Stat(l.file.path)
	if err != nil {
		return err
	}
	inUse := l.used.Load()
	most := int64(shrinkAbove)
	if l.opts.MaxSize > 0 {
		most = min(most, max(256<<10, l.opts.MaxSize/4))
	}
	if free := info.Size() - inUse; free <= inUse || free <= most {
		return nil
	}
	if err := l.rewriteLocked(); err != nil {
		return err
	}
	return l.file.view(func(tx *bbolt.Tx) error { l.used.Store(used(tx)); return nil })
}

// podOf returns the UID of the pod that an event of none of the operations is
// about, "" where it is about none, or not one of ids, which are sandboxes and
// containers.
func podOf(e *eventpb.Event, ids map[string]string) string {
	first := func(all ...string) string {
		for _, id := range all {
			if uid := ids[id]; uid != "" {
				return uid
			}
		}
		return ""
	}
	switch k := e.GetKind().(type) {
	case *eventpb.Event_Observed:
		var all []string
		for _, r := range k.Observed.GetSandboxes() {
			all = append(all, r.GetId())
		}
		for _, r := range k.Observed.GetContainers() {
			all = append(all, r.GetId(), r.GetSandboxId())
		}
		return first(append(append(all, k.Observed.GetGoneSandboxes()...), k.Observed.GetGoneContainers()...)...)
	case *eventpb.Event_Called:
		return first(k.Called.GetSandboxId(), k.Called.GetContainerId())
	case *eventpb.Event_Probed:
		return first(k.Probed.GetContainerId())
	case *eventpb.Event_Noticed:
		return first(k.Noticed.GetSandboxId(), k.Noticed.GetContainerId())
	case *eventpb.Event_Forgotten:
		return first(k.Forgotten.GetSandboxIds()...)
	}
	return ""
}
