package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"go.etcd.io/bbolt"
)

// Records are copied out in pages of this size, so that no consumer, however
// slow, holds a read transaction open: it would keep bbolt from reusing pages
// and from growing its map.
const (
	pageRecords = 512
	pageBytes   = 1 << 20
)

// errPageFull ends the reading of a page.
var errPageFull = errors.New("page full")

// records calls fn for each record from from to the last that is not above to.
func (o *file) records(from, to uint64, fn func(Record) error) error {
	if from > 1 {
		// Who stopped between the base and its snapshot needs the snapshot, and
		// who has it can bear it twice.
		base, ok, err := o.baseAt(from - 1)
		if err != nil {
			return err
		}
		if ok {
			if err := fn(base); err != nil {
				return err
			}
		}
	}
	for from <= to {
		page, err := o.page(from, to)
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := fn(r); err != nil {
				return err
			}
		}
		if len(page) == 0 {
			return nil
		}
		from = page[len(page)-1].Seq + 1
	}
	return nil
}

// baseAt returns the base snapshot where it is that of event seq.
func (o *file) baseAt(seq uint64) (r Record, ok bool, err error) {
	err = o.view(func(tx *bbolt.Tx) error {
		base, err := baseSeq(tx)
		if err == nil && base == seq {
			r, ok = snapshotToShow(tx, seq)
		}
		return err
	})
	return r, ok, err
}

// page copies out the records from from on, at most to to, in one transaction:
// or the one stub for events on both sides of to, which were taken out since to
// was the last. Each snapshot comes after the last event in it, within the same page, so that
// who goes on after that event misses none.
func (o *file) page(from, to uint64) ([]Record, error) {
	var page []Record
	size := 0
	err := o.view(func(tx *bbolt.Tx) error {
		shots := snapshotsFrom(tx, from)
		return scanEvents(tx, from, math.MaxUint64, func(r Record) error {
			if r.Seq > to && len(page) > 0 {
				return errPageFull
			}
			page = append(page, Record{Seq: r.Seq, Value: append([]byte(nil), r.Value...)})
			for len(shots) > 0 && shots[0] < r.Seq {
				shots = shots[1:]
			}
			if len(shots) > 0 && shots[0] == r.Seq {
				if s, ok := snapshotToShow(tx, r.Seq); ok {
					page = append(page, s)
				}
			}
			if size += len(r.Value); size >= pageBytes || len(page) >= pageRecords {
				return errPageFull
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, errPageFull) {
		return nil, err
	}
	return page, nil
}

// scan calls fn for each record from from to to within one read transaction.
// The value is only valid within fn.
func (o *file) scan(from, to uint64, fn func(Record) error) error {
	return o.view(func(tx *bbolt.Tx) error { return scanEvents(tx, from, to, fn) })
}

func scanEvents(tx *bbolt.Tx, from, to uint64, fn func(Record) error) error {
	c := tx.Bucket(bucketEvents).Cursor()
	for k, v := c.Seek(seqKey(from)); k != nil; k, v = c.Next() {
		seq, err := keySeq(k)
		if err != nil {
			return err
		}
		if seq > to {
			return nil
		}
		if err := fn(Record{Seq: seq, Value: v}); err != nil {
			return err
		}
	}
	return nil
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func keySeq(k []byte) (uint64, error) {
	if len(k) != 8 {
		return 0, fmt.Errorf("%w: a record's key is %d bytes long, not 8", ErrDamaged, len(k))
	}
	return binary.BigEndian.Uint64(k), nil
}
