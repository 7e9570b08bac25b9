package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/crimux/crimux/store/eventpb"
)

// ErrOutOfRange says that the state at some point cannot be told: the log does
// not reach as far, or not as far back.
var ErrOutOfRange = errors.New("out of the range of the log")

// StateAt verifies and folds the records of src up to event seq, and returns
// the state after it. It is ErrOutOfRange where there is no such event yet, or
// where events up to it were taken out.
func StateAt(src Source, seq uint64) (*State, error) {
	gap := false
	s, err := stateUpTo(src, func(e *eventpb.Event) bool {
		past := e.GetSeq() > seq
		gap = past && e.GetCompacted() != nil && e.GetCompacted().GetFirst() <= seq
		return past
	})
	if err != nil {
		return nil, err
	}
	s.partial = s.partial || gap
	if s.Seq() < seq && !gap {
		return nil, fmt.Errorf("event %d: %w: the last is %d", seq, ErrOutOfRange, s.Seq())
	}
	return within(s, fmt.Sprintf("event %d", seq))
}

// StateAtTime is StateAt for the last event before the first one of after t.
func StateAtTime(src Source, t time.Time) (*State, error) {
	gap := false
	s, err := stateUpTo(src, func(e *eventpb.Event) bool {
		past := e.GetTime() > t.UnixNano() // of a stub it is the time of the last event that it stands for
		gap = past && e.GetCompacted() != nil
		return past
	})
	if err != nil {
		return nil, err
	}
	s.partial = s.partial || gap
	return within(s, t.UTC().Format(time.RFC3339))
}

func within(s *State, at string) (*State, error) {
	if s.Partial() {
		return nil, fmt.Errorf("%s: %w: events up to then were taken out (log.retention, log.maxSize)", at, ErrOutOfRange)
	}
	return s, nil
}

// stateUpTo folds until an event is past.
func stateUpTo(src Source, past func(*eventpb.Event) bool) (*State, error) {
	s := NewState()
	var chain Chain
	err := src.Records(0, func(r Record) error {
		e, err := chain.Next(r)
		if err != nil {
			return err
		}
		if e.GetSnapshot() == nil && past(e) {
			return errPassed
		}
		return refold(s, e)
	})
	if errors.Is(err, errPassed) {
		err = nil
	}
	return s, err
}
