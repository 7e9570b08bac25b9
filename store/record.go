package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

// Schema is the newest schema of file and events that this package knows.
const Schema = 1

// maxEvent is the size above which an event is refused.
const maxEvent = 16 << 20

// Versions of records, by what they are.
const (
	recordVersion   = 1 // an event
	stubVersion     = 2 // a Compacted, in place of events; its key is the last of them
	snapshotVersion = 3 // a Snapshot, under the number of the last event in it

	atCRC     = 1
	atPrev    = atCRC + crc32.Size
	atPayload = atPrev + sha256.Size
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is one event as it is stored.
type Record struct {
	Seq   uint64
	Value []byte
}

// newRecord builds the record that follows one whose hash is prev.
func newRecord(seq uint64, prev [sha256.Size]byte, payload []byte) Record {
	return recordOf(recordVersion, seq, prev, payload)
}

func recordOf(version byte, seq uint64, prev [sha256.Size]byte, payload []byte) Record {
	v := make([]byte, atPayload+len(payload))
	v[0] = version
	copy(v[atPrev:], prev[:])
	copy(v[atPayload:], payload)
	r := Record{Seq: seq, Value: v}
	binary.BigEndian.PutUint32(v[atCRC:], r.crc())
	return r
}

// crc is the checksum that the record should carry.
func (r Record) crc() uint32 {
	var head [9]byte
	binary.BigEndian.PutUint64(head[:], r.Seq)
	head[8] = r.Value[0]
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, r.Value[atPrev:])
}

// hash is what the next record carries as previous.
func (r Record) hash() [sha256.Size]byte { return sha256.Sum256(r.Value) }

// check tells whether the record is whole and of a version that is known.
func (r Record) check() error {
	if len(r.Value) < atPayload {
		return r.damaged("is %d bytes long, less than its header", len(r.Value))
	}
	if binary.BigEndian.Uint32(r.Value[atCRC:]) != r.crc() {
		return r.damaged("checksum does not match (the file was changed or the disk lost a write)")
	}
	// The checksum was right: this is no flipped bit.
	if v := r.Value[0]; v < recordVersion || v > snapshotVersion {
		return fmt.Errorf("record %d: %w: version %d, known is %d", r.Seq, ErrNewer, v, snapshotVersion)
	}
	return nil
}

// prev is the hash of the record before, as r carries it.
func (r Record) prev() [sha256.Size]byte { return [sha256.Size]byte(r.Value[atPrev:atPayload]) }

// Event checks the record's checksum and decodes it. It keeps nothing of
// r.Value. Errors are ErrDamaged and, where the event needs a newer reader,
// ErrNewer.
func (r Record) Event() (*eventpb.Event, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	e := &eventpb.Event{}
	if err := proto.Unmarshal(r.Value[atPayload:], e); err != nil {
		return nil, r.damaged("cannot be decoded: %v", err)
	}
	if e.GetSeq() != r.Seq {
		return nil, r.damaged("says that it is record %d", e.GetSeq())
	}
	if e.GetMinReader() > Schema {
		return nil, fmt.Errorf("record %d: %w: it needs schema %d, known is %d", r.Seq, ErrNewer, e.GetMinReader(), Schema)
	}
	return e, r.fits(e)
}

// fits tells whether a record of its version can hold the event.
func (r Record) fits(e *eventpb.Event) error {
	switch r.Value[0] {
	case stubVersion:
		c := e.GetCompacted()
		if c == nil || c.GetLast() != r.Seq || c.GetFirst() == 0 || c.GetFirst() > c.GetLast() || len(c.GetLastHash()) != sha256.Size {
			return r.damaged("is a stub that does not say what it stands for")
		}
	case snapshotVersion:
		if s := e.GetSnapshot(); s == nil || s.GetState().GetSeq() != r.Seq {
			return r.damaged("is a snapshot of no state, or of another event's")
		}
	default:
		if e.GetCompacted() != nil || e.GetSnapshot() != nil {
			return r.damaged("holds what no event can be")
		}
	}
	return nil
}

func (r Record) damaged(format string, args ...any) error {
	return fmt.Errorf("record %d: %w: %s", r.Seq, ErrDamaged, fmt.Sprintf(format, args...))
}

// Chain verifies the records of a log one after the other. The zero value
// expects the first record.
type Chain struct {
	last uint64
	head [sha256.Size]byte
}

// Next verifies that r follows the record before: that its sequence number is
// the next, or where it is a stub, that of the first event it stands for is;
// that its checksum is right and that it carries the hash of the one before. A
// snapshot must carry the number and hash of the record it is found after. Next
// returns r's event and keeps nothing of r.Value. After an error the chain
// stands where it stood.
//
// Events may be taken out while somebody reads. A stub for some that were read
// already and some that were not is returned as one for those that were not.
func (c *Chain) Next(r Record) (*eventpb.Event, error) {
	e, link, err := r.link()
	if err == nil && link.first <= c.last && c.last < link.last {
		e = RestOfStub(e, c.last)
		link.first, link.prev = c.last+1, c.head
	}
	if link.first != c.last+1 && (err == nil || link.kind == recordVersion) {
		if link.kind == snapshotVersion {
			return nil, r.damaged("is a snapshot that is found after record %d", c.last)
		}
		return nil, fmt.Errorf("record %d: %w: it follows record %d (records are missing)", link.first, ErrDamaged, c.last)
	}
	if err != nil {
		return nil, err
	}
	if link.prev != c.head {
		return nil, r.damaged("does not carry the hash of the record before (one of the two was replaced)")
	}
	c.last, c.head = link.last, link.hash
	return e, nil
}

// RestOfStub is a Compacted less the events up to last, which whoever reads has
// read before they were taken out.
func RestOfStub(e *eventpb.Event, last uint64) *eventpb.Event {
	e = proto.CloneOf(e)
	c := e.GetCompacted()
	c.First, c.Count = last+1, c.GetLast()-last
	c.Lost = min(c.GetLost(), c.GetCount())
	return e
}

// link is a record's place in the chain.
type link struct {
	kind        byte
	first, last uint64
	prev, hash  [sha256.Size]byte
}

// link decodes the record and finds its place. Of a record that is damaged the
// place is what its key says.
func (r Record) link() (*eventpb.Event, link, error) {
	l := link{kind: recordVersion, first: r.Seq, last: r.Seq}
	if len(r.Value) > 0 {
		l.kind = r.Value[0]
	}
	e, err := r.Event()
	if err != nil {
		return nil, l, err
	}
	l.prev = r.prev()
	switch l.kind {
	case stubVersion:
		l.first, l.hash = e.GetCompacted().GetFirst(), [sha256.Size]byte(e.GetCompacted().GetLastHash())
	case snapshotVersion:
		l.first, l.hash = r.Seq+1, l.prev
	default:
		l.hash = r.hash()
	}
	return e, l, nil
}

// Last returns the sequence number of the last record that was verified.
func (c *Chain) Last() uint64 { return c.last }

// Head returns the hash of the last record that was verified. Two logs with
// the same head at the same sequence number hold the same events.
func (c *Chain) Head() [sha256.Size]byte { return c.head }

// chainAfter is the chain whose last record is r, which may be a stub.
func chainAfter(r Record) Chain {
	_, l, err := r.link()
	if err != nil {
		return Chain{last: r.Seq, head: r.hash()} // whatever it is, nothing continues it
	}
	return Chain{last: l.last, head: l.hash}
}

// push makes r, which was built here and is an event, the last record.
func (c *Chain) push(r Record) { c.last, c.head = r.Seq, r.hash() }

// Fields that the writer adds to an event that was serialized before its
// place in the log was known. Protobuf allows fields in any order.
var (
	tagSeq  = protowire.AppendTag(nil, 1, protowire.VarintType)
	tagTime = protowire.AppendTag(nil, 2, protowire.VarintType)
)

var errNoKind = errors.New("it has no kind")

// encode serializes e without its sequence number, and without its time where
// that is 0.
func encode(e *eventpb.Event) ([]byte, error) {
	if e.GetKind() == nil {
		return nil, errNoKind
	}
	e.Seq = 0
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(b) > maxEvent {
		return nil, fmt.Errorf("it is %d bytes long, the most is %d", len(b), maxEvent)
	}
	return b, nil
}

// seal adds to payload, the serialized e, the fields that the writer sets.
func seal(e *eventpb.Event, payload []byte, seq uint64, now int64) []byte {
	if e.GetTime() == 0 && now != 0 {
		e.Time = now
		payload = binary.AppendUvarint(append(payload, tagTime...), uint64(now))
	}
	e.Seq = seq
	return binary.AppendUvarint(append(payload, tagSeq...), seq)
}
