package store

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// snapshotBytes of events are followed by a snapshot, however few.
	snapshotBytes = 16 << 20
	// markEvery is how often the mark follows the log.
	markEvery = time.Minute
)

// keeper takes care of the file beside the writer: snapshots, the mark, the
// ballast, compaction, and a file that is small again after it.
type keeper struct {
	// upkeep is held while the file is taken care of. The writer takes it
	// only where it has to write the file anew.
	upkeep sync.Mutex
	kick   chan struct{}
	stop   chan struct{}
	ended  chan struct{}
	// snapped tells that the log was opened from a snapshot.
	snapped bool
	check   chan struct{} // closed when the old records have been checked

	events atomic.Int64 // since the last snapshot
	bytes  atomic.Int64

	// Under upkeep: where the last snapshot and the mark are, and when to look
	// again.
	snapshotAt uint64
	mark       mark
	markAt     time.Time
	compactAt  time.Time
	agedAt     time.Time
	shrinkAt   time.Time
}

// init learns where the file stands.
func (k *keeper) init(l *Log, snapped bool) error {
	k.snapped = snapped
	k.kick, k.stop = make(chan struct{}, 1), make(chan struct{})
	k.ended, k.check = make(chan struct{}), make(chan struct{})
	m, ok, err := readMark(l.file.path)
	if err != nil {
		return err
	}
	if ok {
		k.mark = m
	}
	return l.file.view(func(tx *bbolt.Tx) error {
		l.used.Store(used(tx))
		b := tx.Bucket(bucketSnapshots)
		if b == nil {
			return nil
		}
		if last, _ := b.Cursor().Last(); last != nil {
			k.snapshotAt, err = keySeq(last)
		}
		return err
	})
}

// wrote is told of each commit.
func (k *keeper) wrote(l *Log, a admitted) {
	if len(a.records) == 0 {
		return
	}
	size := 0
	for _, r := range a.records {
		size += len(r.Value)
	}
	n, b := k.events.Add(int64(len(a.records))), k.bytes.Add(int64(size))
	if uint64(n) >= l.opts.SnapshotEvery || b >= snapshotBytes || l.tooLarge() {
		k.wake()
	}
}

func (k *keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// stopped tells whether the log is being closed.
func (k *keeper) stopped() bool {
	select {
	case <-k.stop:
		return true
	default:
		return false
	}
}

// keep runs until the log is closed.
func (l *Log) keep() {
	k := &l.keeper
	defer close(k.ended)
	go l.checkOld()
	defer func() { <-k.check }()
	tick := time.NewTicker(l.opts.Tick)
	defer tick.Stop()
	for first := true; ; first = false {
		if !first {
			select {
			case <-k.stop:
				l.lastUpkeep()
				return
			case <-k.kick:
			case <-tick.C:
			}
		}
		if err := l.upkeep(); err != nil && !errors.Is(err, errStopped) {
			l.opts.OnFailure(writeError(err))
		}
	}
}

// errStopped ends upkeep when the log is closed. Nothing is lost: the next one
// goes on where this one stood.
var errStopped = errors.New("the log is being closed")

// end has keep do what is last, and waits for it.
func (k *keeper) end() {
	close(k.stop)
	<-k.ended
}

// upkeep does what is due.
func (l *Log) upkeep() error {
	k := &l.keeper
	k.upkeep.Lock()
	defer k.upkeep.Unlock()
	l.lookAtDisk()
	if l.trouble.Load() != nil {
		return l.probe()
	}
	var errs []error
	if uint64(k.events.Load()) >= l.opts.SnapshotEvery || k.bytes.Load() >= snapshotBytes {
		errs = append(errs, l.takeSnapshot())
	}
	if time.Since(k.markAt) >= markEvery {
		errs = append(errs, l.putMark())
	}
	errs = append(errs, l.compactIfDue(), l.shrinkIfDue())
	return errors.Join(errs...)
}

// probe finds out whether what kept a commit from succeeding has passed: while
// creates are refused there may be no other commit to tell.
func (l *Log) probe() error {
	was := l.trouble.Load()
	if err := l.renewLocked(); err != nil {
		return nil // the writer has told of it, and pressure says so
	}
	if l.takeSnapshot() == nil {
		l.trouble.CompareAndSwap(was, nil)
	}
	return nil
}

// lastUpkeep makes the next start a short one.
func (l *Log) lastUpkeep() {
	k := &l.keeper
	k.upkeep.Lock()
	defer k.upkeep.Unlock()
	if l.suspect.Load() || l.file.broken.Load() != nil {
		return // what is in the file is in doubt
	}
	if k.snapshotAt != l.Last() {
		if err := l.takeSnapshot(); err != nil {
			l.opts.OnFailure(writeError(err))
			return
		}
	}
	if err := l.putMark(); err != nil {
		l.opts.OnFailure(writeError(err))
	}
}

// takeSnapshot stores the state as it is now, in a transaction of its own.
// upkeep is held.
func (l *Log) takeSnapshot() error {
	k := &l.keeper
	events, bytes := k.events.Load(), k.bytes.Load()
	l.mu.RLock()
	m, head := l.state.Proto(), l.head
	l.mu.RUnlock()
	if m.GetSeq() == 0 {
		return nil
	}
	r, err := newSnapshot(m, head)
	if err != nil {
		return err
	}
	err = l.transact(func(tx *bbolt.Tx) error { return putSnapshot(tx, r) })
	if err != nil {
		return err
	}
	k.events.Add(-events)
	k.bytes.Add(-bytes)
	k.snapshotAt = r.Seq
	return nil
}

// transact is one transaction of the keeper's.
func (l *Log) transact(fn func(*bbolt.Tx) error) error {
	return l.file.use(func() error { return l.update(fn) })
}

// putMark brings the mark to where the log is. upkeep is held.
func (l *Log) putMark() error {
	k := &l.keeper
	l.mu.RLock()
	m := l.newMark(l.state, l.head)
	l.mu.RUnlock()
	if m.id == k.mark.id && m.seq == k.mark.seq {
		k.markAt = time.Now()
		return nil
	}
	if err := m.write(l.file.path, l.opts.NoSync); err != nil {
		return err
	}
	k.mark, k.markAt = m, time.Now()
	return nil
}

// restBetweenPages is how long the check of old records rests after each page,
// as a multiple of what the page took: it has no hurry.
const restBetweenPages = 4

// checkOld verifies what was not verified when the log was opened.
func (l *Log) checkOld() {
	k := &l.keeper
	defer close(k.check)
	if !k.snapped {
		return // all was verified
	}
	rep, err := Verify(restful{l})
	switch {
	case rep.Damage != nil:
		l.opts.OnDamage(rep.Damage)
		if l.opts.heal {
			if err := l.heal(rep); err != nil && !errors.Is(err, errStopped) {
				l.opts.OnFailure(err)
			}
		}
	case err != nil && !errors.Is(err, errStopped) && !errors.Is(err, ErrClosed):
		l.opts.OnFailure(err)
	}
}

// restful reads the records that were there at the beginning, without haste.
type restful struct{ log *Log }

func (s restful) Records(from uint64, fn func(Record) error) error {
	began, n := time.Now(), 0
	return s.log.file.records(from, s.log.Last(), func(r Record) error {
		if n++; n%pageRecords == 0 {
			select {
			case <-s.log.keeper.stop:
				return errStopped
			case <-time.After(restBetweenPages * time.Since(began)):
			}
			began = time.Now()
		}
		return fn(r)
	})
}
