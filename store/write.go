package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"runtime"

	"go.etcd.io/bbolt"

	"github.com/crimux/crimux/store/eventpb"
)

// write is the one writer: it commits all that is queued at a time, so that
// the more there is to write, the more of it shares the cost of a commit.
func (l *Log) write() {
	defer close(l.done)
	for batch := l.queue.take(); batch != nil; batch = l.queue.take() {
		l.commit(batch)
		// Those who have just been told may have more to write: let them
		// queue it, or every other commit is theirs alone.
		runtime.Gosched()
	}
}

// admitted is the part of a batch that goes into one commit.
type admitted struct {
	pending []*Pending
	events  []*eventpb.Event
	records []Record
	chain   Chain // after the records
}

// commit writes a batch, publishes it and tells who waits.
func (l *Log) commit(batch []*Pending) {
	a := l.admit(batch)
	err := writeError(l.persist(a))
	if err != nil {
		l.opts.OnFailure(err)
		l.trouble.Store(&err)
		for _, p := range a.pending {
			p.finish(0, err)
		}
		return
	}
	if len(a.records) > 0 {
		l.trouble.Store(nil)
	}
	l.chain = a.chain
	l.publish(a.events, a.chain.Head())
	l.keeper.wrote(l, a)
	seq := a.chain.Last()
	for _, p := range a.pending {
		if n := len(p.events); n > 0 {
			p.finish(p.events[n-1].GetSeq(), nil)
			continue
		}
		p.finish(seq, nil)
	}
}

// admit builds the records of the batch. Appends that the log cannot hold are
// refused here, before anything of them is on disk: a log that does not fold
// could not be opened again.
func (l *Log) admit(batch []*Pending) admitted {
	a := admitted{chain: l.chain}
	open := openOps{state: l.state}
	now := l.opts.Now().UnixNano()
	for _, p := range batch {
		if err := open.admit(p.events); err != nil {
			p.finish(0, fmt.Errorf("%w: %w", ErrRefused, err))
			continue
		}
		for i, e := range p.events {
			payload := seal(e, p.payloads[i], a.chain.Last()+1, now)
			r := newRecord(e.GetSeq(), a.chain.Head(), payload)
			a.chain.push(r)
			a.records = append(a.records, r)
		}
		a.events = append(a.events, p.events...)
		a.pending = append(a.pending, p)
	}
	return a
}

// persist commits the records. When it returns an error none of them counts
// as written. A full disk is given the ballast, once.
func (l *Log) persist(a admitted) error {
	if len(a.records) == 0 {
		return nil
	}
	if limit := l.opts.MaxSize; limit > 0 && l.used.Load() >= limit {
		l.keeper.wake()
		return fmt.Errorf("%w: it has %d bytes, all that log.maxSize allows", ErrFull, l.used.Load())
	}
	if l.suspect.Load() {
		if err := l.renew(); err != nil {
			return err
		}
	}
	err := l.try(a.records)
	if noRoom(err) && l.dropBallast() {
		l.lookAtDisk()
		err = l.try(a.records)
	}
	if err != nil && !noRoom(err) && !errors.Is(err, ErrDamaged) {
		l.suspect.Store(true)
	}
	return err
}

// try carries out the transaction of a commit.
func (l *Log) try(records []Record) error {
	return l.file.use(func() error {
		err := l.update(func(tx *bbolt.Tx) error { return l.put(tx, records) })
		l.failed = err != nil
		return err
	})
}

func (l *Log) put(tx *bbolt.Tx, records []Record) error {
	b := tx.Bucket(bucketEvents)
	b.FillPercent = 1 // keys only grow: a page is never inserted into again
	if l.failed {
		if err := dropAfter(b, l.chain.Last()); err != nil {
			return err
		}
	}
	for _, r := range records {
		if err := b.Put(seqKey(r.Seq), r.Value); err != nil {
			return err
		}
	}
	l.used.Store(used(tx))
	return nil
}

// dropAfter takes out the records above last: those of a commit that failed
// only after bbolt's new meta page was in the file. They were refused, and
// their numbers are given out again.
func dropAfter(b *bbolt.Bucket, last uint64) error {
	if last == math.MaxUint64 {
		return nil
	}
	c := b.Cursor()
	for k, _ := c.Seek(seqKey(last + 1)); k != nil; k, _ = c.Seek(seqKey(last + 1)) {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// publish folds the committed events into the state and wakes who follows.
func (l *Log) publish(events []*eventpb.Event, head [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head = head
	for _, e := range events {
		l.state.apply(e)
	}
	for seq, ch := range l.watchers {
		if l.state.Seq() > seq {
			close(ch)
			delete(l.watchers, seq)
		}
	}
}

// openOps knows which operations are open at some place within a batch: those
// of the state, but for what the batch did to them. Only the writer changes
// the state, so that it may read it without the lock.
type openOps struct {
	state *State
	batch map[string]bool
}

// admit tells whether the events may follow, and takes note of them if so.
func (o *openOps) admit(events []*eventpb.Event) error {
	noted := map[string]bool{}
	isOpen := func(op string) bool {
		if v, ok := noted[op]; ok {
			return v
		}
		if v, ok := o.batch[op]; ok {
			return v
		}
		return o.state.operations[op] != nil
	}
	for _, e := range events {
		op := e.GetOp()
		switch e.GetKind().(type) {
		case *eventpb.Event_Intent:
			if op == "" {
				return errors.New("an intent without an operation")
			}
			if isOpen(op) {
				return fmt.Errorf("an intent of operation %s, which is open already", op)
			}
			noted[op] = true
		case *eventpb.Event_Outcome:
			if !isOpen(op) {
				return fmt.Errorf("an outcome of operation %s, which is not open", op)
			}
			noted[op] = false
		}
		if e.GetCompacted() != nil || e.GetSnapshot() != nil {
			return errors.New("only the log itself writes stubs and snapshots")
		}
		if e.GetMinReader() > Schema {
			return fmt.Errorf("it needs schema %d, this is %d", e.GetMinReader(), Schema)
		}
	}
	if o.batch == nil {
		o.batch = noted
		return nil
	}
	for op, v := range noted {
		o.batch[op] = v
	}
	return nil
}
