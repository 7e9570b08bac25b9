package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

// newSnapshot builds the record of the state that the events up to one whose
// hash is head amount to.
func newSnapshot(m *eventpb.State, head [sha256.Size]byte) (Record, error) {
	e := &eventpb.Event{Seq: m.GetSeq(), Kind: &eventpb.Event_Snapshot{Snapshot: &eventpb.Snapshot{State: m, Fold: foldVersion}}}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return Record{}, err
	}
	return recordOf(snapshotVersion, m.GetSeq(), head, b), nil
}

// snapshot decodes the record as a snapshot.
func (r Record) snapshot() (*eventpb.Snapshot, error) {
	e, err := r.Event()
	if err != nil {
		return nil, err
	}
	if r.Value[0] != snapshotVersion {
		return nil, r.damaged("is no snapshot")
	}
	return e.GetSnapshot(), nil
}

// putSnapshot stores a snapshot and takes out those that are no longer needed:
// the base stays, and the newest before this one, should this one be damaged.
func putSnapshot(tx *bbolt.Tx, r Record) error {
	b, err := tx.CreateBucketIfNotExists(bucketSnapshots)
	if err != nil {
		return err
	}
	if err := b.Put(seqKey(r.Seq), r.Value); err != nil {
		return err
	}
	base := tx.Bucket(bucketMeta).Get(keyBase)
	var keys [][]byte
	for k, _ := b.Cursor().First(); k != nil; k, _ = nextKey(b, k) {
		if !bytes.Equal(k, base) {
			keys = append(keys, slices.Clone(k))
		}
	}
	for len(keys) > keptSnapshots {
		if err := b.Delete(keys[0]); err != nil {
			return err
		}
		keys = keys[1:]
	}
	return nil
}

// keptSnapshots is how many there are beside the base.
const keptSnapshots = 2

func nextKey(b *bbolt.Bucket, k []byte) ([]byte, []byte) {
	c := b.Cursor()
	if at, v := c.Seek(k); !bytes.Equal(at, k) {
		return at, v
	}
	return c.Next()
}

// baseSeq is the number of the snapshot below which events may be missing, 0
// where there are all.
func baseSeq(tx *bbolt.Tx) (uint64, error) {
	k := tx.Bucket(bucketMeta).Get(keyBase)
	if k == nil {
		return 0, nil
	}
	return keySeq(k)
}

// snapshotsFrom returns the numbers of the snapshots from seq on.
func snapshotsFrom(tx *bbolt.Tx, seq uint64) []uint64 {
	b := tx.Bucket(bucketSnapshots)
	if b == nil {
		return nil
	}
	var all []uint64
	c := b.Cursor()
	for k, _ := c.Seek(seqKey(seq)); k != nil; k, _ = c.Next() {
		if n, err := keySeq(k); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// snapshotToShow returns the snapshot after event seq where there is one that
// a reader should get: the base, since without it nothing after it can be
// folded, and others if they are whole. One that is not is no loss: the events
// are there.
func snapshotToShow(tx *bbolt.Tx, seq uint64) (Record, bool) {
	b := tx.Bucket(bucketSnapshots)
	if b == nil {
		return Record{}, false
	}
	v := b.Get(seqKey(seq))
	if v == nil {
		return Record{}, false
	}
	r := Record{Seq: seq, Value: slices.Clone(v)}
	isBase := bytes.Equal(tx.Bucket(bucketMeta).Get(keyBase), seqKey(seq))
	return r, isBase || r.check() == nil
}

// start is where the fold of a file begins: a state, and the chain up to it.
type start struct {
	state *State
	chain Chain
	// snapped tells that it is a snapshot, and nothing before it was read.
	snapped bool
}

// newestStart finds the newest snapshot that can stand in for the events up to
// it, or the beginning of the log. A snapshot that is damaged, that does not
// fit the event it is of, or that another fold made is passed over; one that is
// sound and of an event that is not there tells of a loss.
func newestStart(tx *bbolt.Tx) (start, error) {
	base, err := baseSeq(tx)
	if err != nil {
		return start{}, err
	}
	b := tx.Bucket(bucketSnapshots)
	if b != nil {
		c := b.Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			seq, err := keySeq(k)
			if err != nil || seq < base {
				break
			}
			s, err := startAt(tx, Record{Seq: seq, Value: v}, seq == base)
			if err == nil {
				return s, nil
			}
			if errors.Is(err, errLostTail) {
				return start{}, err
			}
		}
	}
	if base != 0 {
		return start{}, fmt.Errorf("%w: no snapshot of the state from record %d on is whole, and events before that were taken out", ErrDamaged, base)
	}
	return start{state: NewState()}, nil
}

var (
	errUnfit    = errors.New("the snapshot does not fit")
	errLostTail = errors.New("a snapshot knows of events that are not there")
)

// startAt makes a snapshot the beginning of a fold, if it is fit for that.
func startAt(tx *bbolt.Tx, r Record, isBase bool) (start, error) {
	snap, err := r.snapshot()
	if err != nil {
		return start{}, err
	}
	if snap.GetFold() != foldVersion && !isBase {
		return start{}, errUnfit
	}
	events := tx.Bucket(bucketEvents)
	if last, _ := events.Cursor().Last(); last == nil || bytes.Compare(last, seqKey(r.Seq)) < 0 {
		return start{}, fmt.Errorf("%w: %w: record %d is missing", ErrDamaged, errLostTail, r.Seq)
	}
	chain := chainAfter(Record{Seq: r.Seq, Value: events.Get(seqKey(r.Seq))})
	if chain.head != r.prev() {
		return start{}, errUnfit
	}
	state, err := FromProto(snap.GetState())
	return start{state: state, chain: chain, snapped: true}, err
}
