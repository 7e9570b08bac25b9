package store

import (
	"fmt"
	"math"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"github.com/crimux/crimux/store/eventpb"
)

// Reader reads a log that no daemon has open. While a Reader is open no daemon
// can start on the file: it is for commands that end. It may be used from
// several goroutines.
type Reader struct {
	file   *file
	closed atomic.Bool
}

// OpenReadOnly opens the log at path for reading. It creates nothing and
// changes nothing, and does not wait for a lock longer than a moment: a
// *LockedError says that a daemon runs. It checks the structure of the file,
// not its records: for that there are [Verify] and [Reader.State], so that the
// records before a damaged one can be read.
func OpenReadOnly(path string) (*Reader, error) {
	f, err := openFile(path, true, false)
	if err != nil {
		return nil, missing(path, err)
	}
	return &Reader{file: f}, nil
}

// Records calls fn for each record from sequence number from on, in order. It
// ends with the first error of fn or of reading. The record is fn's to keep.
// Where the log does not reach as far as its mark says it did, ErrDamaged comes
// after the last record.
func (r *Reader) Records(from uint64, fn func(Record) error) error {
	if r.closed.Load() {
		return ErrClosed
	}
	if err := r.file.records(from, math.MaxUint64-1, fn); err != nil {
		return err
	}
	chain, err := r.file.end()
	if err != nil {
		return err
	}
	return r.file.compareMark(chain)
}

// State returns the fold of the log: that of the newest snapshot that is whole,
// and of all records after it, which it verifies.
func (r *Reader) State() (*State, error) {
	if r.closed.Load() {
		return nil, ErrClosed
	}
	s, err := load(r.file)
	if err != nil {
		return nil, err
	}
	return s.state, r.file.compareMark(s.chain)
}

// Close lets go of the file.
func (r *Reader) Close() error {
	if r.closed.Swap(true) {
		return ErrClosed
	}
	return r.file.close()
}

// load folds the file: the newest snapshot, and all records after it, which it
// verifies.
func load(f *file) (start, error) {
	var s start
	err := f.view(func(tx *bbolt.Tx) (err error) {
		if s, err = newestStart(tx); err != nil {
			return err
		}
		return scanEvents(tx, s.chain.Last()+1, math.MaxUint64, func(r Record) error {
			e, err := s.chain.Next(r)
			if err != nil {
				return err
			}
			return refold(s.state, e)
		})
	})
	return s, err
}

// refold applies an event that was in the log. What the fold refuses should
// never have been written.
func refold(s *State, e *eventpb.Event) error {
	if err := s.Apply(e); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}
