package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/crimux/crimux/cmd/crimux/export"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// walker verifies a log's records, which it must be given from the first on,
// and folds them.
type walker struct {
	chain store.Chain
	state *store.State
	// fn gets each event, with the state that those before it amount to,
	// which it must not keep.
	fn func(before *store.State, e *eventpb.Event) error
	// snapshot, if set, gets the snapshot that makes a state whole of which
	// events were taken out.
	snapshot func(before *store.State, e *eventpb.Event) error
}

func newWalker(fn func(*store.State, *eventpb.Event) error) *walker {
	return &walker{state: store.NewState(), fn: fn}
}

func (w *walker) next(r store.Record) error {
	e, err := w.chain.Next(r)
	if err != nil {
		return damaged(err)
	}
	fn := w.fn
	if e.GetSnapshot() != nil { // which is found beside the events, and is none
		fn = w.snapshot
	}
	if fn != nil && (e.GetSnapshot() == nil || w.state.Partial()) {
		if err := fn(w.state, e); err != nil {
			return err
		}
	}
	if err := w.state.Apply(e); err != nil {
		return damaged(err)
	}
	return nil
}

// damaged adds to an error about the log what to do.
func damaged(err error) error {
	return fmt.Errorf("%w: 'crimux verify' tells what of the log is sound", err)
}

// walk calls fn for every event that the source has, and returns what walked:
// the state after the last event that fn took.
func (s *source) walk(fn func(before *store.State, e *eventpb.Event) error) (*walker, error) {
	return s.walkWith(newWalker(fn))
}

// walkWith is walk with a walker that was made for it.
func (s *source) walkWith(w *walker) (*walker, error) {
	if s.export == "" {
		return w, s.Records(0, w.next)
	}
	s.progress.begin()
	defer s.progress.end()
	var err error
	w.state, err = walkExport(s.ctx, s.export, func(before *store.State, e *eventpb.Event) error {
		s.progress.one()
		if e.GetSnapshot() == nil {
			return w.fn(before, e)
		}
		if w.snapshot == nil || !before.Partial() {
			return nil
		}
		return w.snapshot(before, e)
	})
	return w, err
}

// walkExport reads an exported file.
func walkExport(ctx context.Context, path string, fn func(*store.State, *eventpb.Event) error) (state *store.State, err error) {
	f, err := os.Open(path)
	if err != nil {
		return store.NewState(), err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var own error
	state, err = export.Read(bufio.NewReaderSize(f, 1<<20), func(before *store.State, e *eventpb.Event) error {
		if own = ctx.Err(); own == nil {
			own = fn(before, e)
		}
		return own
	})
	if err != nil && own == nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return state, err
}
