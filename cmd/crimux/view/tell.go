package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// tell adds to a story what an event says about one of its objects.
func (t *Teller) tell(s *Story, o object, before *store.State, e *eventpb.Event) {
	switch k := e.GetKind().(type) {
	case *eventpb.Event_Intent:
		t.intent(s, o, before, e, k.Intent)
	case *eventpb.Event_Step:
		if l := t.open[e.GetOp()]; l != nil {
			l.Steps = append(l.Steps, Step{e.GetSeq(), time.Unix(0, e.GetTime()).UTC(), k.Step.GetName(), k.Step.GetId()})
		}
	case *eventpb.Event_Outcome:
		t.outcome(s, o, e, k.Outcome)
	case *eventpb.Event_Observed:
		t.observed(s, o, before, e, k.Observed)
	case *eventpb.Event_Called:
		l := s.add(e, k.Called.GetMethod(), o)
		l.Code, l.Failed = codeName(k.Called.GetCode()), k.Called.GetCode() != 0
		l.DurationMs = milliseconds(time.Duration(k.Called.GetDuration()))
		l.Result = join(": ", l.Code, o.name())
	case *eventpb.Event_Probed:
		l := s.add(e, execSync, o)
		l.Code, l.Failed = codeName(k.Probed.GetCode()), probeFailed(k.Probed)
		l.probed, l.Result = k.Probed, join(": ", probeWords(k.Probed), o.name())
	case *eventpb.Event_Noticed:
		l := s.add(e, "Noticed", o)
		l.noticed, l.Failed, l.Result = k.Noticed, true, join(": ", noticedWords(k.Noticed), o.name())
	case *eventpb.Event_Forgotten:
		l := s.add(e, forgotten, o)
		l.Failed, l.Result = true, join(": ", "given up by the operator", o.name())
	}
}

// Names of lines that are no methods.
const (
	observed  = "Observed"
	forgotten = "Forgotten"
	salvaged  = "Salvaged"
)

// noOutcome is what is said of an operation until more is known.
const noOutcome = "no outcome yet"

func (t *Teller) intent(s *Story, o object, before *store.State, e *eventpb.Event, i *eventpb.Intent) {
	if r := i.GetRoute(); r != nil {
		l := s.add(e, "Route", o)
		l.route, l.policy, l.Result = r, before.Policy(), routeWords(r)
	}
	if e.GetOp() == "" {
		return // The fold makes nothing of it either.
	}
	l := s.add(e, i.GetMethod(), o)
	l.intent, l.Result = i, join(": ", noOutcome, join(", ", aboutWords(i, o)...))
	t.open[e.GetOp()] = l
}

// outcome completes the line of the operation. What recovery says of it is a
// line of its own: it came later, and from another run.
func (t *Teller) outcome(s *Story, o object, e *eventpb.Event, out *eventpb.Outcome) {
	l := t.open[e.GetOp()]
	if l == nil {
		return
	}
	delete(t.open, e.GetOp())
	if out.GetRecovered() {
		l.cutShort, l.Failed, l.Result = true, true, strings.Replace(l.Result, noOutcome, "cut short", 1)
		began := l
		l = s.add(e, began.Event, o)
		l.intent, l.Recovered = began.intent, true
	} else {
		l.End, l.SandboxID, l.ContainerID = e.GetSeq(), o.sandboxID, o.containerID
	}
	l.outcome, l.Code, l.Failed = out, codeName(out.GetCode()), out.GetCode() != 0
	l.DurationMs = milliseconds(time.Duration(out.GetDuration()))
	l.Result = join("; ", outcomeWords(l.intent, out, o, false), broughtWords(l.Steps))
	if l.Failed {
		t.failed[e.GetOp()], l.once = l, l.Result
	}
	if l.Event == startContainer {
		t.start(s, l, o)
	}
}

// start learns whether a container began.
func (t *Teller) start(s *Story, l *Line, o object) {
	t.ends[o.containerID] = l.Failed
	if !l.Failed {
		if o.attempt > 0 {
			s.Restarts++
		}
		return
	}
	// Runtimes have an exit code for what never ran, too; it may have been seen
	// before the answer came.
	for _, seen := range s.Lines {
		if seen.ended != nil && seen.ContainerID == o.containerID && seen.Seq > l.Seq {
			seen.ended = nil
			s.Exits--
		}
	}
}

// broughtWords says where the image of a container was brought from.
func broughtWords(steps []Step) string {
	var words []string
	for _, st := range steps {
		if strings.HasPrefix(st.Name, imageStep) {
			words = append(words, join(" ", clean(st.Name), clean(st.ID)))
		}
	}
	return join(", ", words...)
}

// imageStep is how the names of steps begin that an operation's words tell.
const imageStep = "image."

// lateness is how long after a container's end the news of it is worth saying.
const lateness = 2 * time.Second

func (t *Teller) observed(s *Story, o object, before *store.State, e *eventpb.Event, obs *eventpb.Observed) {
	change := o.change(before)
	if change == "" {
		return
	}
	l := s.add(e, observed, o)
	l.Failed = o.failed(before)
	l.gone = o.gone
	l.found = o.sandbox != nil && before.Sandbox(o.sandboxID) == nil
	l.unready = o.sandbox.GetState() == eventpb.SandboxState_SANDBOX_STATE_NOTREADY && !l.found
	if l.Failed && !t.ends[o.containerID] {
		l.ended, t.ends[o.containerID] = o.ctr, true
		s.Exits++
	}
	ended := ""
	if at := o.ctr.GetFinishedAt(); at != 0 {
		if late := time.Duration(e.GetTime() - at); late >= lateness {
			ended = "ended " + took(late) + " earlier"
		}
	}
	seen := ""
	if obs.GetCause() != "" {
		seen = "seen on " + clean(obs.GetCause())
	}
	l.Result = join(", ", change, ended, seen)
}

// started tells the pods that there were of a crash or a reboot. A restart in
// order is no part of a pod's story.
func (t *Teller) started(before *store.State, e *eventpb.Event, st *eventpb.Started, r run) {
	if r != killed && r != rebooted {
		return
	}
	for _, s := range t.stories {
		if !s.there(before) && !t.underway(s) {
			continue
		}
		l := s.add(e, "Started", object{})
		l.run, l.Failed, l.Result = r, r == killed, startedWords(st, r)
	}
}

// salvaged tells the pods that there were that the log lost events.
func (t *Teller) salvaged(before *store.State, e *eventpb.Event, sv *eventpb.Salvaged) {
	for _, s := range t.stories {
		if s.there(before) || t.underway(s) {
			l := s.add(e, salvaged, object{})
			l.lost, l.Failed, l.Result = true, true, salvagedWords(sv)
		}
	}
}

// compacted tells of failures that were taken out that they were as one that is
// there.
func (t *Teller) compacted(c *eventpb.Compacted) {
	t.takenOut = true
	for _, r := range c.GetRepeated() {
		l := t.failed[r.GetOp()]
		if l == nil {
			continue
		}
		last := time.Unix(0, r.GetLastTime()).UTC()
		l.Repeats, l.LastRepeat = l.Repeats+r.GetCount(), &last
		l.Result = fmt.Sprintf("%s; %s more, the last at %s", l.once, times(int(l.Repeats)), absolute(last))
	}
}

// there tells whether any sandbox of the pod exists.
func (s *Story) there(st *store.State) bool {
	for _, id := range s.Sandboxes {
		if st.Sandbox(id) != nil {
			return true
		}
	}
	return false
}

// underway tells whether an operation of the pod has no outcome.
func (t *Teller) underway(s *Story) bool {
	for _, l := range s.Lines {
		if l.Op != "" && t.open[l.Op] == l {
			return true
		}
	}
	return false
}

// health tells the pods on a backend that it went away, and that it came back.
func (t *Teller) health(before *store.State, e *eventpb.Event, h *eventpb.Health) {
	for _, s := range t.stories {
		told := t.down[s][e.GetBackend()]
		if h.GetUp() != told || !h.GetUp() && !s.on(before, e.GetBackend()) {
			continue
		}
		if t.down[s] == nil {
			t.down[s] = make(map[string]bool)
		}
		t.down[s][e.GetBackend()] = !h.GetUp()
		l := s.add(e, "Health", object{})
		l.health, l.Failed, l.Result = h, !h.GetUp(), "backend "+healthWords(h)
	}
}

// on tells whether the pod has a sandbox on that backend.
func (s *Story) on(st *store.State, backend string) bool {
	for _, id := range s.Sandboxes {
		if sb := st.Sandbox(id); sb != nil && sb.GetBackend() == backend {
			return true
		}
	}
	return false
}
