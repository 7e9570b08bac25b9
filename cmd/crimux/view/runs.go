package view

import (
	"fmt"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// run says what an event tells of the daemon's run before it.
type run int

const (
	// same: the run goes on, or there was none.
	same run = iota
	// ended: the run before ended in order.
	ended
	// killed: the run before has no last event.
	killed
	// rebooted: the node was started anew since, which ends every run.
	rebooted
)

// runs tells the daemon's runs apart. It must be given all events that there
// are. Where the first of them are not, what only a daemon records tells that one
// was running.
type runs struct{ running, known bool }

func (r *runs) next(before *store.State, e *eventpb.Event) run {
	switch k := e.GetKind().(type) {
	case *eventpb.Event_Stopped:
		r.running, r.known = false, true
	case *eventpb.Event_Started:
		was := r.running
		r.running, r.known = true, true
		boot := k.Started.GetBootId()
		switch {
		case before.BootID() != "" && boot != "" && boot != before.BootID():
			return rebooted
		case was:
			return killed
		case before.BootID() != "":
			return ended
		}
	case *eventpb.Event_Intent, *eventpb.Event_Step, *eventpb.Event_Outcome, *eventpb.Event_Observed, *eventpb.Event_Health,
		*eventpb.Event_Policy, *eventpb.Event_Called, *eventpb.Event_Probed, *eventpb.Event_Noticed:
		r.running = r.running || !r.known
	}
	return same
}

func startedWords(s *eventpb.Started, r run) string {
	words := fmt.Sprintf("crimux %s, pid %d", clean(s.GetVersion()), s.GetPid())
	switch r {
	case killed:
		return words + "; the daemon was killed before this"
	case rebooted:
		return words + "; the node was rebooted before this"
	default:
		return words
	}
}
