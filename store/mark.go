package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"

	"go.etcd.io/bbolt"
)

// markSuffix names the file beside the log that remembers how far the log had
// come. It is what tells a log that is gone from one that never was, and an
// older copy that was put back from the log itself.
const markSuffix = ".mark"

const (
	markMagic = "crimuxmk"
	markSize  = len(markMagic) + 16 + 8 + 32 + 4 + 8 + crc32.Size
)

// mark is what the file holds: a point that was on disk when it was written.
type mark struct {
	id   [16]byte // of the log
	seq  uint64
	hash [32]byte // of the chain up to seq
	pods uint32   // sandboxes that were ready
	time int64    // Unix nanoseconds
}

func (m mark) encode() []byte {
	b := append([]byte(nil), markMagic...)
	b = append(b, m.id[:]...)
	b = binary.BigEndian.AppendUint64(b, m.seq)
	b = append(b, m.hash[:]...)
	b = binary.BigEndian.AppendUint32(b, m.pods)
	b = binary.BigEndian.AppendUint64(b, uint64(m.time))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeMark returns false where b is no mark. That the mark is damaged says
// nothing of the log: it is then as if there were none.
func decodeMark(b []byte) (mark, bool) {
	if len(b) != markSize || string(b[:len(markMagic)]) != markMagic {
		return mark{}, false
	}
	end := len(b) - crc32.Size
	if binary.BigEndian.Uint32(b[end:]) != crc32.Checksum(b[:end], castagnoli) {
		return mark{}, false
	}
	b = b[len(markMagic):]
	return mark{
		id:   [16]byte(b),
		seq:  binary.BigEndian.Uint64(b[16:]),
		hash: [32]byte(b[24:]),
		pods: binary.BigEndian.Uint32(b[56:]),
		time: int64(binary.BigEndian.Uint64(b[60:])),
	}, true
}

// readMark reads the mark of the log at path.
func readMark(path string) (mark, bool, error) {
	b, err := os.ReadFile(path + markSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, false, nil
	}
	if err != nil {
		return mark{}, false, err
	}
	m, ok := decodeMark(b)
	return m, ok, nil
}

// write replaces the mark of the log at path.
func (m mark) write(path string, noSync bool) error {
	name := path + markSuffix
	f, err := os.OpenFile(name+birthSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(m.encode())
	if err == nil && !noSync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(name+birthSuffix, name)
	}
	if err == nil && !noSync {
		err = syncDir(name)
	}
	return err
}

// end returns the chain up to the last record of the file, which is taken as
// it is.
func (o *file) end() (Chain, error) {
	var c Chain
	err := o.view(func(tx *bbolt.Tx) error {
		k, v := tx.Bucket(bucketEvents).Cursor().Last()
		if k == nil {
			return nil
		}
		seq, err := keySeq(k)
		c = chainAfter(Record{Seq: seq, Value: v})
		return err
	})
	return c, err
}

// compareMark holds the log, whose records go as far as the chain, to its mark.
func (o *file) compareMark(chain Chain) error {
	m, ok, err := readMark(o.path)
	if err != nil || !ok {
		return err
	}
	switch {
	case m.id != o.format.id:
		return o.name(fmt.Errorf("%w: it is not the log that was here before, of which %s tells", ErrDamaged, FileName+markSuffix))
	case m.seq > chain.Last():
		return o.name(fmt.Errorf("%w: it ends with record %d, and %d were there (was an older copy put back?)", ErrDamaged, chain.Last(), m.seq))
	case m.seq == 0:
		return nil
	}
	return o.view(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketEvents).Get(seqKey(m.seq))
		if v == nil || chainAfter(Record{Seq: m.seq, Value: v}).head == m.hash {
			return nil // within a stub there is nothing to compare
		}
		return fmt.Errorf("%w: its record %d is not the one that was here before (was an older copy put back and written to?)", ErrDamaged, m.seq)
	})
}

// missing returns err, or where that says that there is no file although its
// mark tells of one with records, ErrDamaged.
func missing(path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m, ok, merr := readMark(path)
	if merr != nil || !ok || m.seq == 0 {
		return errors.Join(err, merr)
	}
	return fmt.Errorf("%s: %w: it is gone; it had %d records, and %d pods were running", path, ErrDamaged, m.seq, m.pods)
}

// newMark is the mark of a state whose chain has that head.
func (l *Log) newMark(s *State, head [32]byte) mark {
	m := mark{id: l.file.format.id, seq: s.Seq(), hash: head, time: l.opts.Now().UnixNano()}
	for r := range s.Sandboxes() {
		if r.GetState() == ready && m.pods < math.MaxUint32 {
			m.pods++
		}
	}
	return m
}
