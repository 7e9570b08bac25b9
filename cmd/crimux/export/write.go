package export

import (
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// Header is the first line of an export.
type Header struct {
	// Schema is the constant of that name.
	Schema string `json:"schema"`
	// Version is that of the crimux that wrote it.
	Version string `json:"version"`
	// After is the event that the export follows, 0 where it is whole.
	After uint64 `json:"after"`
	// State is the message State of store/eventpb/event.proto in protobuf's
	// JSON form, after that event; left out where nothing was, and where the
	// log has no events from which it could be told: the snapshot among the
	// lines that follow then has it.
	State json.RawMessage `json:"state,omitempty"`
}

// Writer writes an export.
type Writer struct {
	// Out gets one Write per line.
	Out io.Writer
	// Version is that of the program.
	Version string
	// StepData has the data of steps written, too.
	StepData bool

	begun bool
}

// Event writes an event that came after the state before, and before the first
// one the header. A snapshot is written as an event is: who reads an export of
// a log from which events were taken out needs the one after them.
func (w *Writer) Event(before *store.State, e *eventpb.Event) error {
	if err := w.Begin(before); err != nil {
		return err
	}
	r, err := view.NewRecord(before, e)
	if err != nil {
		return err
	}
	switch {
	case e.GetSnapshot() != nil:
		r.Detail, err = w.snapshot(e.GetSnapshot())
	case w.StepData && e.GetStep() != nil:
		r.Detail, err = protojson.Marshal(e.GetStep())
	}
	if err != nil {
		return fmt.Errorf("event %d: %w", e.GetSeq(), err)
	}
	return w.line(r)
}

// snapshot is the detail of a snapshot.
func (w *Writer) snapshot(snap *eventpb.Snapshot) ([]byte, error) {
	state, err := w.state(snap.GetState())
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		State json.RawMessage `json:"state"`
		Fold  uint32          `json:"fold"`
	}{state, snap.GetFold()})
}

// Begin writes the header of an export that goes on after the state before,
// unless it is written already.
func (w *Writer) Begin(before *store.State) error {
	if w.begun {
		return nil
	}
	w.begun = true
	h := Header{Schema: Schema, Version: w.Version, After: before.Seq()}
	// A state of which events were taken out is made whole by the snapshot that
	// follows.
	if before.Seq() > 0 && !before.Partial() {
		state, err := w.state(before.Proto())
		if err != nil {
			return fmt.Errorf("the state after event %d: %w", before.Seq(), err)
		}
		h.State = state
	}
	return w.line(h)
}

func (w *Writer) state(m *eventpb.State) ([]byte, error) {
	if w.StepData {
		return protojson.Marshal(m)
	}
	return view.StateJSON(m)
}

func (w *Writer) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Out.Write(append(b, '\n'))
	return err
}

// WithoutStepData returns an event as an export has it.
func WithoutStepData(e *eventpb.Event) *eventpb.Event {
	if len(e.GetStep().GetData()) == 0 {
		return e
	}
	e = proto.CloneOf(e)
	e.GetStep().Data = nil
	return e
}
