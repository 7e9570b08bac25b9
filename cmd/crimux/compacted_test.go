package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// history makes the events of a node: each a while after noon.
type history struct{ events []*eventpb.Event }

// noon is when the histories begin.
var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func (h *history) add(after time.Duration, op string, e *eventpb.Event) {
	e.Time, e.Op, e.Backend = noon.Add(after).UnixNano(), op, "docker"
	h.events = append(h.events, e)
}

// done adds an operation of a second.
func (h *history) done(after time.Duration, i *eventpb.Intent, o *eventpb.Outcome) {
	op := fmt.Sprintf("op-%02d", len(h.events)+1)
	h.add(after, op, &eventpb.Event{Kind: &eventpb.Event_Intent{Intent: i}})
	o.Duration = int64(time.Second)
	h.add(after+time.Second, op, &eventpb.Event{Kind: &eventpb.Event_Outcome{Outcome: o}})
}

// longHistory is a pod that came and went, one that lives and whose image was
// missing for a while, and half an hour later what happened to it then.
func longHistory() []*eventpb.Event {
	h := &history{}
	gone := &eventpb.PodKey{Namespace: "default", Name: "gone", Uid: "uid-gone"}
	lives := &eventpb.PodKey{Namespace: "default", Name: "lives", Uid: "uid-lives"}
	route := &eventpb.Route{Backend: "docker", Rule: "default", Epoch: 1}
	h.add(0, "", &eventpb.Event{Kind: &eventpb.Event_Started{Started: &eventpb.Started{Version: "1", Pid: 7, BootId: "b"}}})
	h.done(time.Minute, &eventpb.Intent{Method: "RunPodSandbox", Pod: gone, Route: route}, &eventpb.Outcome{Id: "90ee0000"})
	h.done(2*time.Minute, &eventpb.Intent{Method: "StopPodSandbox", Pod: gone, SandboxId: "90ee0000"}, &eventpb.Outcome{})
	h.done(2*time.Minute, &eventpb.Intent{Method: "RemovePodSandbox", Pod: gone, SandboxId: "90ee0000"}, &eventpb.Outcome{})
	h.done(3*time.Minute, &eventpb.Intent{Method: "RunPodSandbox", Pod: lives, Route: route}, &eventpb.Outcome{Id: "11fe0000"})
	for i := range 4 {
		h.done(time.Duration(4+i)*time.Minute, &eventpb.Intent{Method: "PullImage", Pod: lives, Image: "app:1"}, &eventpb.Outcome{Code: 5, Message: "app:1 is not found"})
	}
	h.done(8*time.Minute, &eventpb.Intent{Method: "PullImage", Pod: lives, Image: "app:1"}, &eventpb.Outcome{Id: "sha256:aa"})
	h.done(8*time.Minute, &eventpb.Intent{Method: "CreateContainer", Pod: lives, SandboxId: "11fe0000", ContainerName: "app"}, &eventpb.Outcome{Id: "c0ffee00"})
	h.done(30*time.Minute, &eventpb.Intent{Method: "StartContainer", Pod: lives, SandboxId: "11fe0000", ContainerId: "c0ffee00"}, &eventpb.Outcome{})
	h.add(31*time.Minute, "", &eventpb.Event{Kind: &eventpb.Event_Health{Health: &eventpb.Health{Error: "no answer for 10s"}}})
	h.add(32*time.Minute, "", &eventpb.Event{Kind: &eventpb.Event_Health{Health: &eventpb.Health{Up: true}}})
	return h.events
}

// newCompactedNode makes a node with longHistory, from whose log the first half
// hour was taken out, but for the story of the pod that lives.
func newCompactedNode(t *testing.T) *node {
	t.Helper()
	return compactedNode(t, longHistory())
}

func compactedNode(t *testing.T, events []*eventpb.Event) *node {
	t.Helper()
	n := newBareNode(t)
	o := store.Options{NoSync: true, Tick: time.Millisecond, Now: func() time.Time { return noon.Add(33 * time.Minute) }}
	n.withLog(o, func(l *store.Log) {
		if _, err := l.Append(events...).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	o.Retention = 20 * time.Minute // which the daemon looks at when it starts
	n.withLog(o, func(l *store.Log) {
		for deadline := time.Now().Add(20 * time.Second); !hasStub(t, l); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing is taken out")
			}
		}
	})
	return n
}

// withLog opens the node's log for as long as fn runs.
func (n *node) withLog(o store.Options, fn func(*store.Log)) {
	n.t.Helper()
	l, err := store.Open(n.events, o)
	if err != nil {
		n.t.Fatal(err)
	}
	fn(l)
	if err := l.Close(); err != nil {
		n.t.Fatal(err)
	}
}

// hasStub tells whether events were taken out of a log.
func hasStub(t *testing.T, src store.Source) bool {
	t.Helper()
	found := false
	err := src.Records(0, func(r store.Record) error {
		e, err := r.Event()
		found = found || e.GetCompacted() != nil
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// compactedTranscript are command lines whose output testdata/compacted.txt has.
var compactedTranscript = []string{
	"events --absolute",
	"events --absolute --pod lives --failed",
	"timeline lives --absolute",
	"timeline lives --json",
	"explain lives --absolute",
	"state --at 21 --containers",
	"state --at 2026-05-01T12:30:01Z --json",
	"diff 21 23",
	"diff 2026-05-01T12:10:00Z 2026-05-01T12:31:00Z --json",
}

// TestTakenOut asks a log from which events were taken out, the daemon that has
// it, and an export of it: they say the same, what was taken out is shown as
// such, and the story of the pod that lives is whole.
func TestTakenOut(t *testing.T) {
	n := newCompactedNode(t)
	exported := filepath.Join(t.TempDir(), "export.jsonl")
	r := n.crimux("export")
	contains(t, r.out, `"kind":"compacted"`, `"kind":"snapshot"`)
	if err := os.WriteFile(exported, []byte(r.out), 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, n.crimux("verify").out, "sound: 12 events, 8 to 25, head ", "; 13 more were taken out, the last 4 are all there")
	contains(t, n.crimux("replay", "--dry-run", exported).out, "12 events, 8 to 25, from 2026-05-01T12:03:00Z to 2026-05-01T12:32:00Z\n13 more were taken out of the log\n",
		"4 operations failed", "default    lives")
	var got strings.Builder
	for _, line := range compactedTranscript {
		r := n.crimux(strings.Fields(line)...)
		if r.code != 0 || r.errOut != "" {
			t.Errorf("crimux %s: exit %d, %s", line, r.code, r.errOut)
		}
		fmt.Fprintf(&got, "$ crimux %s\n%s\n", line, r.out)
		if r2 := n.crimux(append(strings.Fields(line), "--file", exported)...); r2 != r {
			t.Errorf("crimux %s says of the export\n%+v", line, r2)
		}
	}
	compareGolden(t, "testdata/compacted.txt", got.String())
	n.daemon()
	for _, line := range compactedTranscript {
		r := n.crimux(strings.Fields(line)...)
		contains(t, got.String(), "$ crimux "+line+"\n"+r.out+"\n")
	}
}

// TestBeforeTheOldestSnapshot asks for states that cannot be told any more, and
// for a pod of which no event is left: there is a reason and an exit code, and
// not a state that never was.
func TestBeforeTheOldestSnapshot(t *testing.T) {
	n := newCompactedNode(t)
	exported := filepath.Join(t.TempDir(), "export.jsonl")
	if err := os.WriteFile(exported, []byte(n.crimux("export").out), 0o600); err != nil {
		t.Fatal(err)
	}
	const (
		tooEarly = "events up to then were taken out (log.retention, log.maxSize)"
		noPod    = `"gone": no such pod in the log, from which 13 events were taken out`
	)
	for _, tt := range []struct{ line, want string }{
		{"state --at 3", tooEarly},
		{"state --at 9", tooEarly}, // It is there, but what was before is not.
		{"state --at 2026-05-01T12:05:00Z", tooEarly},
		{"state --at 2026-05-01T11:00:00Z", tooEarly},
		{"diff 3", tooEarly},
		{"diff 3 23", tooEarly},
		{"diff 3 9", tooEarly},
		{"diff 2026-05-01T12:05:00Z", tooEarly},
		{"timeline gone", noPod},
		{"explain uid-gone", `"uid-gone": no such pod in the log, from which 13 events`},
	} {
		for _, file := range [][]string{nil, {"--file", exported}} {
			r := n.crimux(append(strings.Fields(tt.line), file...)...)
			if r.code != exitFailed || r.out != "" {
				t.Errorf("crimux %s %v: %+v", tt.line, file, r)
			}
			contains(t, r.errOut, tt.want)
		}
	}
}

// TestExportFromAmongTakenOut goes on from an event that is there no more, and
// from one before the oldest snapshot: what is read of the export is the state
// that the log has.
func TestExportFromAmongTakenOut(t *testing.T) {
	n := newCompactedNode(t)
	want := n.crimux("state", "--json")
	for _, since := range []string{"3", "9", "21", "24", "25"} {
		later := filepath.Join(t.TempDir(), "later.jsonl")
		if err := os.WriteFile(later, []byte(n.crimux("export", "--since", since).out), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := n.crimux("state", "--json", "--file", later); got != want {
			t.Errorf("of an export from event %s on: %+v, want %+v", since, got, want)
		}
	}
}

// TestExportResumedAfterTakingOut resumes an export of which events were taken out
// of the log since it was made: what is read of both parts is the state that the
// log has.
func TestExportResumedAfterTakingOut(t *testing.T) {
	whole := newBareNode(t)
	o := store.Options{NoSync: true, Now: func() time.Time { return noon.Add(33 * time.Minute) }}
	whole.withLog(o, func(l *store.Log) {
		if _, err := l.Append(longHistory()...).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	lines := strings.SplitAfter(whole.crimux("export").out, "\n")
	n := newCompactedNode(t)
	want := n.crimux("state", "--json")
	for _, since := range []int{1, 3, 5, 9, 21} {
		resumed := filepath.Join(t.TempDir(), "resumed.jsonl")
		// The first line is the header.
		text := strings.Join(lines[:1+since], "") + n.crimux("export", "--since", fmt.Sprint(since)).out
		if err := os.WriteFile(resumed, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := n.crimux("state", "--json", "--file", resumed); got != want {
			t.Errorf("resumed after event %d: %+v, want %+v", since, got, want)
		}
	}
}

// TestRunsOfTheDaemonStayTold: which end of the daemon was in order and which was
// not is told as before, though other pods' events between them were taken out.
func TestRunsOfTheDaemonStayTold(t *testing.T) {
	h := &history{}
	started := func(after time.Duration) {
		h.add(after, "", &eventpb.Event{Kind: &eventpb.Event_Started{Started: &eventpb.Started{Version: "1", Pid: 7, BootId: "b"}}})
	}
	other := func(after time.Duration, id string) {
		pod := &eventpb.PodKey{Namespace: "default", Name: "other", Uid: "uid-" + id}
		h.done(after, &eventpb.Intent{Method: "RunPodSandbox", Pod: pod}, &eventpb.Outcome{Id: id})
		h.done(after, &eventpb.Intent{Method: "RemovePodSandbox", Pod: pod, SandboxId: id}, &eventpb.Outcome{})
	}
	lives := &eventpb.PodKey{Namespace: "default", Name: "lives", Uid: "uid-lives"}
	started(0)
	h.done(time.Minute, &eventpb.Intent{Method: "RunPodSandbox", Pod: lives}, &eventpb.Outcome{Id: "11fe0000"})
	started(2 * time.Minute) // It was killed, and so it was before minute 6.
	other(3*time.Minute, "0b0b0001")
	h.add(3*time.Minute, "", &eventpb.Event{Kind: &eventpb.Event_Stopped{Stopped: &eventpb.Stopped{Reason: "shutdown"}}})
	started(4 * time.Minute)
	other(5*time.Minute, "0b0b0002")
	started(6 * time.Minute)
	h.done(30*time.Minute, &eventpb.Intent{Method: "CreateContainer", Pod: lives, SandboxId: "11fe0000", ContainerName: "app"}, &eventpb.Outcome{Id: "c0ffee00"})
	n := compactedNode(t, h.events)
	out := n.crimux("timeline", "lives", "--absolute").out
	var kills []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "the daemon was killed before this") {
			kills = append(kills, strings.Fields(line)[0])
		}
	}
	if !slices.Equal(kills, []string{"2026-05-01T12:02:00.000Z", "2026-05-01T12:06:00.000Z"}) {
		t.Errorf("killed at %v:\n%s", kills, out)
	}
}
