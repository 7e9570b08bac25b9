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

const (
	recordVersion = 1

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
	v := make([]byte, atPayload+len(payload))
	v[0] = recordVersion
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
	if v := r.Value[0]; v != recordVersion {
		return fmt.Errorf("record %d: %w: version %d, known is %d", r.Seq, ErrNewer, v, recordVersion)
	}
	return nil
}

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
	return e, nil
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
// the next, its checksum is right and it carries the hash of the one before.
// It returns r's event and keeps nothing of r.Value. After an error the chain
// stands where it stood.
func (c *Chain) Next(r Record) (*eventpb.Event, error) {
	if r.Seq != c.last+1 {
		return nil, fmt.Errorf("record %d: %w: it follows record %d (records are missing)", r.Seq, ErrDamaged, c.last)
	}
	e, err := r.Event()
	if err != nil {
		return nil, err
	}
	if [sha256.Size]byte(r.Value[atPrev:atPayload]) != c.head {
		return nil, r.damaged("does not carry the hash of the record before (one of the two was replaced)")
	}
	c.last, c.head = r.Seq, r.hash()
	return e, nil
}

// Last returns the sequence number of the last record that was verified.
func (c *Chain) Last() uint64 { return c.last }

// Head returns the hash of the last record that was verified. Two logs with
// the same head at the same sequence number hold the same events.
func (c *Chain) Head() [sha256.Size]byte { return c.head }

// push makes r, which was built here, the last record.
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
