package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// Row is one event for people.
type Row struct {
	Seq                         uint64
	Time                        time.Time
	Backend, Pod, Event, Detail string
	Failed                      bool
}

// Rows makes rows of a log's events, which it must be given from the first on,
// be it to skip them.
// The zero value is ready.
type Rows struct{ runs runs }

// Skip takes in an event whose row is not wanted.
func (rs *Rows) Skip(before *store.State, e *eventpb.Event) { rs.runs.next(before, e) }

// Row returns the row of an event that came after the state before. Of an
// observation it mentions the objects of the pods that sel selects.
func (rs *Rows) Row(before *store.State, e *eventpb.Event, sel Selector) Row {
	r := Row{Seq: e.GetSeq(), Time: time.Unix(0, e.GetTime()), Backend: orNone(e.GetBackend()), Pod: none}
	objects := sel.of(objectsOf(before, e))
	if len(objects) > 0 {
		r.Pod = podsOf(objects)
	}
	var o object
	if len(objects) == 1 {
		o = objects[0]
	}
	run := rs.runs.next(before, e)
	switch k := e.GetKind().(type) {
	case *eventpb.Event_Started:
		r.Event, r.Detail = "Started", startedWords(k.Started, run)
		r.Failed = run == killed
	case *eventpb.Event_Stopped:
		r.Event, r.Detail = "Stopped", clean(k.Stopped.GetReason())
	case *eventpb.Event_Intent:
		r.Event, r.Detail = clean(k.Intent.GetMethod()), intentWords(k.Intent, o)
	case *eventpb.Event_Step:
		r.Event = methodOf(before, e)
		r.Detail = join(" ", "step", clean(k.Step.GetName()), Short(k.Step.GetId()))
	case *eventpb.Event_Outcome:
		r.Event, r.Failed = methodOf(before, e), k.Outcome.GetCode() != 0
		r.Detail = outcomeWords(before.Operation(e.GetOp()).GetIntent(), k.Outcome, o, true)
	case *eventpb.Event_Observed:
		r.Event = "Observed"
		r.Detail, r.Failed = observedWords(before, k.Observed, objects)
	case *eventpb.Event_Health:
		r.Event, r.Detail, r.Failed = "Health", healthWords(k.Health), !k.Health.GetUp()
	case *eventpb.Event_Policy:
		r.Event, r.Detail = "Policy", policyWords(k.Policy)
	case *eventpb.Event_Called:
		r.Event, r.Failed = clean(k.Called.GetMethod()), k.Called.GetCode() != 0
		r.Detail = join(": ", codeName(k.Called.GetCode())+" in "+took(time.Duration(k.Called.GetDuration())), o.name())
	case *eventpb.Event_Probed:
		r.Event, r.Failed = execSync, probeFailed(k.Probed)
		r.Detail = join(": ", probeWords(k.Probed), o.name())
	case *eventpb.Event_Noticed:
		r.Event, r.Failed = "Noticed", true
		r.Detail = join(": ", noticedWords(k.Noticed), o.name())
	case *eventpb.Event_Forgotten:
		r.Event, r.Failed, r.Detail = "Forgotten", true, forgottenWords(k.Forgotten)
	case *eventpb.Event_Compacted:
		r.Event, r.Failed, r.Detail = "Compacted", k.Compacted.GetLost() > 0, compactedWords(k.Compacted)
	case *eventpb.Event_Salvaged:
		r.Event, r.Failed, r.Detail = salvaged, true, salvagedWords(k.Salvaged)
	default:
		r.Event, r.Detail = "Unknown", "written by a newer crimux"
	}
	return r
}

// execSync is the method whose calls are recorded as probes.
const execSync = "ExecSync"

// Cells are the row's columns, as many as RowHeader has.
func (r Row) Cells(when string) []string {
	return []string{fmt.Sprint(r.Seq), when, r.Backend, r.Pod, r.Event, r.Detail}
}

// RowHeader are the names of a row's columns.
func RowHeader() []string {
	return []string{"SEQ", "TIME", "BACKEND", "POD", "EVENT", "DETAIL"}
}

// When is a time in a column of times: relative to now, or absolute where
// there is no now.
func When(t, now time.Time) string {
	if now.IsZero() {
		return absolute(t)
	}
	return Age(now.Sub(t)) + " ago"
}

func orNone(s string) string {
	if s == "" {
		return none
	}
	return clean(s)
}

// join puts sep between those parts that are not empty.
func join(sep string, parts ...string) string {
	var have []string
	for _, p := range parts {
		if p != "" {
			have = append(have, p)
		}
	}
	return strings.Join(have, sep)
}

// podsOf names the pod of all objects, or counts them.
func podsOf(objects []object) string {
	names := make(map[string]bool)
	for _, o := range objects {
		names[podName(o.pod)] = true
	}
	if len(names) == 1 {
		return podName(objects[0].pod)
	}
	return fmt.Sprintf("%d pods", len(names))
}

func methodOf(before *store.State, e *eventpb.Event) string {
	return orNone(before.Operation(e.GetOp()).GetIntent().GetMethod())
}
