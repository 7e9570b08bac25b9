package view_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func TestEvents(t *testing.T) {
	var people, programs bytes.Buffer
	var rows view.Rows
	table := view.NewTable(&people, false, view.RowHeader()...)
	each(t, node(t), func(before *store.State, e *eventpb.Event) {
		r := rows.Row(before, e, view.Selector{})
		if err := table.Row(r.Failed, r.Cells(view.When(r.Time, now))...); err != nil {
			t.Fatal(err)
		}
		rec, err := view.NewRecord(before, e)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		programs.Write(append(b, '\n'))
	})
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	golden(t, "events.txt", people.Bytes())
	golden(t, "events.jsonl", programs.Bytes())
}

// stories tells the stories of the pods that text names.
func stories(t *testing.T, events []*eventpb.Event, text string) []*view.Story {
	t.Helper()
	finder := view.NewFinder(view.NewSelector(text))
	each(t, events, finder.Add)
	pods, err := finder.Pods()
	if err != nil {
		t.Fatal(err)
	}
	teller := view.NewTeller(pods)
	return teller.Stories(each(t, events, teller.Add))
}

func TestTimeline(t *testing.T) {
	var people, absolute, programs bytes.Buffer
	for _, s := range stories(t, node(t), "default/web") {
		if err := view.WriteStory(&people, s, now, false); err != nil {
			t.Fatal(err)
		}
		if err := view.WriteStory(&absolute, s, time.Time{}, true); err != nil {
			t.Fatal(err)
		}
		b, err := json.MarshalIndent(s, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		programs.Write(append(b, '\n'))
	}
	golden(t, "timeline.txt", people.Bytes())
	golden(t, "timeline-absolute-colour.txt", absolute.Bytes())
	golden(t, "timeline.json", programs.Bytes())
}

func TestState(t *testing.T) {
	s := each(t, node(t), func(*store.State, *eventpb.Event) {}).Proto()
	var pods, containers bytes.Buffer
	if err := view.WriteState(&pods, s, view.StateOptions{Now: now}); err != nil {
		t.Fatal(err)
	}
	if err := view.WriteState(&containers, s, view.StateOptions{Now: now, Containers: true}); err != nil {
		t.Fatal(err)
	}
	golden(t, "state.txt", pods.Bytes())
	golden(t, "state-containers.txt", containers.Bytes())
}

// TestStateBefore has what the final state has not: containers that run and
// that have ended, and a backend that is down.
func TestStateBefore(t *testing.T) {
	s := each(t, node(t)[:33], func(*store.State, *eventpb.Event) {}).Proto()
	var out bytes.Buffer
	if err := view.WriteState(&out, s, view.StateOptions{Now: now, Containers: true, Colour: true}); err != nil {
		t.Fatal(err)
	}
	golden(t, "state-before.txt", out.Bytes())
}

// TestStepDataIsNeverShown looks for the fixture's canary, plain and in
// base64, in everything that is printed.
func TestStepDataIsNeverShown(t *testing.T) {
	events := node(t)
	var all bytes.Buffer
	var rows view.Rows
	s := each(t, events, func(before *store.State, e *eventpb.Event) {
		r := rows.Row(before, e, view.Selector{})
		rec, err := view.NewRecord(before, e)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal([]any{r, rec})
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
		if e.GetStep() == nil {
			return
		}
		// The operation is open just here, and has its steps in the state.
		open := store.NewState()
		for _, e := range events[:e.GetSeq()] {
			if err := open.Apply(e); err != nil {
				t.Fatal(err)
			}
		}
		j, err := view.StateJSON(open.Proto())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(j, []byte("sandbox.created")) {
			t.Error("the state lacks the step")
		}
		all.Write(j)
	})
	j, err := view.StateJSON(s.Proto())
	if err != nil {
		t.Fatal(err)
	}
	all.Write(j)
	for _, canary := range []string{"CANARY", "Q0FOQVJZ"} {
		if strings.Contains(all.String(), canary) {
			t.Errorf("%s is in the output", canary)
		}
	}
}
