package store

import (
	"fmt"
	"math"
	"sync/atomic"

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
		return nil, err
	}
	return &Reader{file: f}, nil
}

// Records calls fn for each record from sequence number from on, in order. It
// ends with the first error of fn or of reading. The record is fn's to keep.
func (r *Reader) Records(from uint64, fn func(Record) error) error {
	if r.closed.Load() {
		return ErrClosed
	}
	return r.file.records(from, math.MaxUint64-1, fn)
}

// State verifies all records and folds them.
func (r *Reader) State() (*State, error) {
	if r.closed.Load() {
		return nil, ErrClosed
	}
	s, _, err := load(r.file)
	return s, err
}

// Close lets go of the file.
func (r *Reader) Close() error {
	if r.closed.Swap(true) {
		return ErrClosed
	}
	return r.file.close()
}

// load verifies and folds all records of the file.
func load(f *file) (*State, *Chain, error) {
	s, chain := NewState(), &Chain{}
	err := f.scan(0, math.MaxUint64, func(r Record) error {
		e, err := chain.Next(r)
		if err != nil {
			return err
		}
		return refold(s, e)
	})
	if err != nil {
		return nil, nil, err
	}
	return s, chain, nil
}

// refold applies an event that was in the log. What the fold refuses should
// never have been written.
func refold(s *State, e *eventpb.Event) error {
	if err := s.Apply(e); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}
