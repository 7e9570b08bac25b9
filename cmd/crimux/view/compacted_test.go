package view_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// TestBeginningTakenOut tells of a pod the making of whose sandbox had to go for
// want of room: both the timeline and the explanation say that they begin in
// the middle, and nobody claims to know why the pod is there.
func TestBeginningTakenOut(t *testing.T) {
	whole := new(script).routed("docker", "", "default", 0, "aa").container("docker", "aa", "app", 0, "c1")
	state := each(t, whole.events, func(*store.State, *eventpb.Event) {}).Proto()
	last := state.GetSeq()
	log := append([]*eventpb.Event{
		{Seq: last, Kind: &eventpb.Event_Compacted{Compacted: &eventpb.Compacted{First: 1, Last: last, Count: last}}},
		{Seq: last, Kind: &eventpb.Event_Snapshot{Snapshot: &eventpb.Snapshot{State: state}}},
	}, whole.ended("docker", "c1", 1, "Error").events[last:]...)
	got := stories(t, log, "web")
	if len(got) != 1 || !got[0].Cut {
		t.Fatalf("got %+v", got)
	}
	var out bytes.Buffer
	if err := view.WriteStory(&out, got[0], now, false); err != nil {
		t.Fatal(err)
	}
	said := strings.Join(view.Explain(got[0], time.Time{}), "\n")
	const cut = "eginning was taken out of the log (log.retention, log.maxSize)"
	if !strings.Contains(out.String(), "its b"+cut) || !strings.Contains(said, "The beginning of its story was taken out of the log") {
		t.Errorf("it is not said:\n%s\n%s", out.String(), said)
	}
	for _, want := range []string{"default/web is READY on docker, in sandbox aa.", "Container app ended unasked once"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in\n%s", want, said)
		}
	}
	if strings.Contains(said, "because") {
		t.Errorf("a reason that nobody knows:\n%s", said)
	}
	if s := stories(t, whole.events, "web"); s[0].Cut {
		t.Error("a story that is whole is said to be cut")
	}
}

// TestRepeats counts failures that were taken out with the one that is kept,
// over several stubs.
func TestRepeats(t *testing.T) {
	pull := func(s *script, op string, out *eventpb.Outcome) {
		s.done(op, "docker", &eventpb.Intent{Method: "PullImage", Image: "app:1", Pod: &eventpb.PodKey{Namespace: "default", Name: "web", Uid: "u"}}, out)
	}
	s := new(script).routed("docker", "", "default", 0, "aa")
	pull(s, "first", &eventpb.Outcome{Code: 5, Message: "there is none"})
	stub := func(count uint64, after time.Duration) {
		seq := uint64(len(s.events) + 1)
		s.events = append(s.events, &eventpb.Event{Seq: seq, Time: 1, Kind: &eventpb.Event_Compacted{Compacted: &eventpb.Compacted{
			First: seq, Last: seq, Count: 1, Repeated: []*eventpb.Repeated{{Op: "first", Count: count, LastTime: int64(after)}},
		}}})
	}
	stub(1, 10*time.Second)
	stub(40, 20*time.Second)
	got := stories(t, s.events, "web")[0]
	l := got.Lines[len(got.Lines)-1]
	if l.Repeats != 41 || l.Result != "NotFound: image app:1: there is none; 41 times more, the last at 1970-01-01T00:00:20.000Z" {
		t.Errorf("got %d, %q", l.Repeats, l.Result)
	}
	said := strings.Join(view.Explain(got, time.Time{}), "\n")
	if want := "PullImage failed 42 times, first at 1970-01-01T00:00:03.000Z and last at 1970-01-01T00:00:20.000Z, with NotFound: there is none."; !strings.Contains(said, want) {
		t.Errorf("%q is not in\n%s", want, said)
	}
	var rows view.Rows
	each(t, s.events, func(before *store.State, e *eventpb.Event) {
		if c := e.GetCompacted(); c != nil {
			if row := rows.Row(before, e, view.Selector{}); !strings.Contains(row.Detail, "of one that is kept") {
				t.Errorf("event %d: %q", e.GetSeq(), row.Detail)
			}
		}
	})
}
