package store

import (
	"crypto/sha256"
	"slices"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

// sweepRecords is how many records one transaction of a sweep goes over.
const sweepRecords = 512

// sweeper goes over the records up to the cut and puts stubs in place of those
// that are not kept.
type sweeper struct {
	plan plan
	to   uint64

	// The chain up to where it is.
	last uint64
	head [sha256.Size]byte
	gap  *gap // that reaches up to there, or nil
}

// edit is what one transaction does.
type edit struct {
	drop []uint64
	put  []Record
}

// gap is a run of records that one stub will stand for.
type gap struct {
	stub eventpb.Compacted
	prev [sha256.Size]byte
	keys []uint64 // of the records that are there in its place
	old  bool     // the stub is there already
}

// sweep takes what the plan does not keep out of the records up to to.
func (l *Log) sweep(p plan, to uint64) error {
	s := &sweeper{plan: p, to: to}
	for {
		if l.keeper.stopped() {
			return errStopped
		}
		var e edit
		var more bool
		err := l.file.view(func(tx *bbolt.Tx) (err error) {
			e, more, err = s.look(tx)
			return err
		})
		if err != nil {
			return err
		}
		if len(e.drop) > 0 || len(e.put) > 0 {
			if err := l.transact(e.apply); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

func (e edit) apply(tx *bbolt.Tx) error {
	b := tx.Bucket(bucketEvents)
	for _, seq := range e.drop {
		if err := b.Delete(seqKey(seq)); err != nil {
			return err
		}
	}
	for _, r := range e.put {
		if err := b.Put(seqKey(r.Seq), r.Value); err != nil {
			return err
		}
	}
	return nil
}

// look finds out what to do with the next records, and whether there are more.
// The gap that is open at the end gets its stub, and stays open: what follows
// may make it larger.
func (s *sweeper) look(tx *bbolt.Tx) (e edit, more bool, err error) {
	c := tx.Bucket(bucketEvents).Cursor()
	n := 0
	for k, v := c.Seek(seqKey(s.last + 1)); k != nil; k, v = c.Next() {
		seq, err := keySeq(k)
		if err != nil {
			return e, false, err
		}
		if seq > s.to {
			break
		}
		if n++; n > sweepRecords {
			more = true
			break
		}
		r := Record{Seq: seq, Value: v}
		event, link, bad := r.link()
		if link.first > s.last+1 {
			s.lose(link.first-1, link.prev)
		}
		if bad == nil && link.kind == recordVersion && (s.plan.all || s.plan.keep[seq]) {
			if err := s.gap.close(&e); err != nil {
				return e, false, err
			}
			s.gap, s.last, s.head = nil, link.last, link.hash
			continue
		}
		if bad != nil {
			_, next := c.Next()
			event, link.hash = nil, prevOf(next)
			c.Seek(k)
		}
		s.take(r, event, link)
	}
	if err := s.gap.close(&e); err != nil {
		return e, false, err
	}
	if s.gap != nil {
		s.gap.keys, s.gap.old = []uint64{s.last}, true
	}
	return e, more, nil
}

// prevOf is the hash that a record carries of the one before.
func prevOf(value []byte) (prev [sha256.Size]byte) {
	if len(value) >= atPayload {
		copy(prev[:], value[atPrev:atPayload])
	}
	return prev
}

// open makes sure that a gap is open.
func (s *sweeper) open() *gap {
	if s.gap == nil {
		s.gap = &gap{prev: s.head}
		s.gap.stub.First = s.last + 1
	}
	return s.gap
}

// lose adds to the gap records that should be there and are not.
func (s *sweeper) lose(last uint64, hash [sha256.Size]byte) {
	g := s.open()
	g.old = false
	g.stub.Lost += last - s.last
	s.reach(last, hash)
}

// reach moves the end of the gap.
func (s *sweeper) reach(last uint64, hash [sha256.Size]byte) {
	s.last, s.head = last, hash
	s.gap.stub.Last, s.gap.stub.LastHash = last, slices.Clone(hash[:])
}

// take adds a record to the gap: one that is not kept, a stub, or where event
// is nil, one that is damaged.
func (s *sweeper) take(r Record, event *eventpb.Event, l link) {
	fresh := s.gap == nil
	g := s.open()
	g.keys = append(g.keys, r.Seq)
	g.old = false
	switch {
	case event == nil:
		g.stub.Lost++
	case l.kind == stubVersion:
		g.old = fresh
		c := event.GetCompacted()
		g.stub.Lost += c.GetLost()
		g.stub.LastTime = c.GetLastTime()
		for _, rep := range c.GetRepeated() {
			g.repeat(rep)
		}
	default:
		g.stub.LastTime = event.GetTime()
		if rep, ok := s.plan.repeats[r.Seq]; ok {
			g.repeat(&eventpb.Repeated{Op: rep.op, Count: 1, LastTime: rep.time})
		}
	}
	s.reach(r.Seq, l.hash)
}

func (g *gap) repeat(r *eventpb.Repeated) {
	for _, have := range g.stub.GetRepeated() {
		if have.GetOp() == r.GetOp() {
			have.Count += r.GetCount()
			have.LastTime = max(have.GetLastTime(), r.GetLastTime())
			return
		}
	}
	g.stub.Repeated = append(g.stub.Repeated, &eventpb.Repeated{Op: r.GetOp(), Count: r.GetCount(), LastTime: r.GetLastTime()})
}

// close adds to e what puts the stub in place of the gap's records.
func (g *gap) close(e *edit) error {
	if g == nil || g.old {
		return nil
	}
	r, err := newStub(&g.stub, g.prev)
	if err != nil {
		return err
	}
	for _, seq := range g.keys {
		if seq != r.Seq {
			e.drop = append(e.drop, seq)
		}
	}
	e.put = append(e.put, r)
	return nil
}

// newStub builds the record that stands for those that c tells of.
func newStub(c *eventpb.Compacted, prev [sha256.Size]byte) (Record, error) {
	c.Count = c.GetLast() - c.GetFirst() + 1
	e := &eventpb.Event{Seq: c.GetLast(), Time: c.GetLastTime(), Kind: &eventpb.Event_Compacted{Compacted: c}}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return Record{}, err
	}
	return recordOf(stubVersion, c.GetLast(), prev, b), nil
}
