package export

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// maxLine bounds a line: an event has at most 16 MiB, and what JSON makes of
// it several times that.
const maxLine = 128 << 20

// ErrInvalid says that what is read is no export, or not all of one.
var ErrInvalid = errors.New("not a sound export")

// ErrNewer says that a newer crimux wrote the export.
var ErrNewer = errors.New("the export was written by a newer crimux")

// Read reads an export, and calls fn for each event with the state that those
// before it amount to, which fn must not keep. It returns the state after the
// last event that fn took. Errors name the line; those of fn come as they are.
func Read(r io.Reader, fn func(before *store.State, e *eventpb.Event) error) (*store.State, error) {
	in := reader{state: store.NewState(), fn: fn}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		in.line++
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := in.next(lines.Bytes()); err != nil {
			return in.state, err
		}
	}
	if err := lines.Err(); err != nil {
		return in.state, fmt.Errorf("line %d: %w", in.line+1, err)
	}
	if in.line == 0 {
		return in.state, fmt.Errorf("%w: it is empty", ErrInvalid)
	}
	return in.state, nil
}

type reader struct {
	state *store.State
	fn    func(*store.State, *eventpb.Event) error
	line  int
}

// either is a line of which it is not known yet what it is.
type either struct {
	Header
	record
}

// record is the part of a view.Record that is not derived from the rest.
type record struct {
	Seq       uint64          `json:"seq"`
	Time      string          `json:"time"`
	Kind      string          `json:"kind"`
	Op        string          `json:"op"`
	Backend   string          `json:"backend"`
	MinReader uint32          `json:"minReader"`
	Detail    json.RawMessage `json:"detail"`
}

func (in *reader) next(line []byte) error {
	var l either
	if err := json.Unmarshal(line, &l); err != nil {
		return in.invalid("%v (is it cut short?)", err)
	}
	if l.Schema != "" {
		return in.header(l.Header)
	}
	if l.Seq == 0 {
		return in.invalid("it has neither schema nor seq")
	}
	return in.event(l.record)
}

// header begins an export, or goes on with one.
func (in *reader) header(h Header) error {
	switch {
	case h.Schema != Schema:
		return fmt.Errorf("line %d: %w: its schema is %q, known is %q", in.line, ErrNewer, h.Schema, Schema)
	case in.line > 1:
		// The events tell whether it fits.
		return nil
	case h.After == 0:
		return nil
	case len(h.State) == 0:
		return in.gap(h.After)
	}
	m := &eventpb.State{}
	if err := tolerant.Unmarshal(h.State, m); err != nil {
		return in.invalid("state: %v", err)
	}
	state, err := store.FromProto(m)
	if err != nil {
		return in.invalid("%v", err)
	}
	if state.Seq() != h.After {
		return in.invalid("its state is that after event %d, not %d", state.Seq(), h.After)
	}
	in.state = state
	return nil
}

// gap begins an export of whose first events nothing is known.
func (in *reader) gap(last uint64) error {
	return in.apply(&eventpb.Event{Seq: last, Kind: &eventpb.Event_Compacted{Compacted: &eventpb.Compacted{
		First: 1, Last: last, Count: last,
	}}})
}

func (in *reader) event(r record) error {
	last := in.state.Seq()
	if r.Seq < last || r.Seq == last && r.Kind != view.KindSnapshot {
		return nil // exports that overlap
	}
	e, err := r.event()
	if err != nil {
		return in.invalid("event %d: %v", r.Seq, err)
	}
	first := r.Seq
	switch {
	case e.GetSnapshot() != nil:
		first = last + 1 // The fold tells whether it fits.
	case e.GetCompacted() != nil:
		if e.GetCompacted().GetFirst() <= last {
			e = store.RestOfStub(e, last) // They were taken out since the first part was exported.
		}
		first = e.GetCompacted().GetFirst()
	}
	if first != last+1 {
		return in.invalid("event %d follows event %d: lines are missing before it", first, last)
	}
	if err := in.fn(in.state, e); err != nil {
		return err
	}
	return in.apply(e)
}

func (in *reader) apply(e *eventpb.Event) error {
	switch err := in.state.Apply(e); {
	case errors.Is(err, store.ErrNewer):
		return fmt.Errorf("line %d: %w: %w", in.line, ErrNewer, err)
	case err != nil:
		return in.invalid("%v", err)
	}
	return nil
}

// tolerant passes over fields that a newer crimux knows.
var tolerant = protojson.UnmarshalOptions{DiscardUnknown: true}

func (r record) event() (*eventpb.Event, error) {
	at, err := time.Parse(time.RFC3339Nano, r.Time)
	if err != nil {
		return nil, fmt.Errorf("time: %w", err)
	}
	e := &eventpb.Event{}
	// An event of another kind is from a newer crimux, and has no effect on the
	// state.
	if slices.Contains(view.Kinds, r.Kind) {
		b, err := json.Marshal(map[string]json.RawMessage{r.Kind: r.Detail})
		if err != nil {
			return nil, err
		}
		if err := tolerant.Unmarshal(b, e); err != nil {
			return nil, err
		}
		if e.GetKind() == nil {
			return nil, fmt.Errorf("it has no detail")
		}
	}
	e.Seq, e.Time, e.Op, e.Backend, e.MinReader = r.Seq, at.UnixNano(), r.Op, r.Backend, r.MinReader
	return e, nil
}

func (in *reader) invalid(format string, args ...any) error {
	return fmt.Errorf("line %d: %w: %s", in.line, ErrInvalid, fmt.Sprintf(format, args...))
}
