package view

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crimux/crimux/store/eventpb"
)

// Explain says in sentences why a pod is where it is and what happened to it.
// It knows nothing but the story. Times are relative to now, or absolute where
// now is zero.
func Explain(s *Story, now time.Time) []string {
	x := explainer{s: s, now: now}
	x.whereabouts()
	x.ended()
	x.why()
	x.moves()
	x.givenUp()
	x.containers()
	x.failures()
	x.crashes()
	x.outages()
	x.notices()
	x.underway()
	return x.said
}

type explainer struct {
	s    *Story
	now  time.Time
	said []string
}

func (x *explainer) say(format string, args ...any) {
	x.said = append(x.said, fmt.Sprintf(format, args...))
}

// when is a time as part of a sentence.
func (x *explainer) when(t time.Time) string {
	if x.now.IsZero() {
		return "at " + absolute(t)
	}
	return Age(x.now.Sub(t)) + " ago"
}

func (x *explainer) since(t time.Time) string {
	if x.now.IsZero() {
		return "since " + absolute(t)
	}
	return "for " + Age(x.now.Sub(t))
}

// last returns the newest line that is as wanted, or nil.
func (x *explainer) last(wanted func(*Line) bool) *Line {
	for i := len(x.s.Lines) - 1; i >= 0; i-- {
		if wanted(x.s.Lines[i]) {
			return x.s.Lines[i]
		}
	}
	return nil
}

// whereabouts says where the pod is.
func (x *explainer) whereabouts() {
	name := clean(x.s.Namespace + "/" + x.s.Name)
	if len(x.s.Sandboxes) == 0 {
		x.say("%s has never had a sandbox on this node.", name)
		return
	}
	id := x.s.Sandboxes[len(x.s.Sandboxes)-1]
	m := x.s.made(id)
	on := "the node"
	if m != nil {
		on = clean(m.Backend)
	}
	given := x.last(func(l *Line) bool { return l.Event == forgotten })
	end := x.last(func(l *Line) bool {
		return l.SandboxID == id && (l.Event == removePodSandbox && l.Code == "OK" || l.Event == observed && l.gone)
	})
	switch {
	case x.s.State != removed && m == nil && len(x.s.Backends) > 0:
		x.say("%s is %s on %s, in sandbox %s.", name, x.s.State, clean(x.s.Backends[len(x.s.Backends)-1]), Short(id))
	case x.s.State != removed && m == nil:
		x.say("%s is %s, in sandbox %s.", name, x.s.State, Short(id))
	case x.s.State != removed:
		x.say("%s is %s on %s, in sandbox %s, which has been there %s.", name, x.s.State, on, Short(id), x.since(m.Time))
	case given != nil && given.Time.After(m.madeAt()):
		x.say("%s is listed no more: the operator gave it up on %s %s.", name, clean(given.Backend), x.when(given.Time))
	case end != nil && end.Event == observed:
		x.say("%s is not on this node any more: its last sandbox, %s on %s, was found to be gone %s.", name, Short(id), on, x.when(end.Time))
	case end != nil:
		x.say("%s is not on this node any more: its last sandbox, %s on %s, was removed %s.", name, Short(id), on, x.when(end.Time))
	default:
		x.say("%s is not on this node any more.", name)
	}
}

// ended says why the newest sandbox is not ready.
func (x *explainer) ended() {
	if x.s.State != sandboxState(eventpb.SandboxState_SANDBOX_STATE_NOTREADY) {
		return
	}
	id := x.s.Sandboxes[len(x.s.Sandboxes)-1]
	for _, l := range x.s.Lines {
		switch {
		case l.SandboxID != id:
		case l.Event == stopPodSandbox && l.Code == "OK":
			x.say("Its sandbox was stopped %s.", x.when(l.Time))
			return
		case l.unready:
			x.say("Its sandbox was seen to have ended %s, and nobody had stopped it through crimux.", x.when(l.Time))
			return
		}
	}
}

// givenUp says when the operator gave up what is there again.
func (x *explainer) givenUp() {
	if x.s.State == removed {
		return
	}
	for i, l := range x.s.Lines {
		if l.Event != forgotten {
			continue
		}
		again := slices.IndexFunc(x.s.Lines[i:], func(m *Line) bool { return m.found && m.SandboxID == l.SandboxID })
		if again < 0 {
			x.say("The operator gave up its sandbox %s on %s %s.", Short(l.SandboxID), clean(l.Backend), x.when(l.Time))
			continue
		}
		x.say("The operator gave it up on %s %s; it was found there again %s.", clean(l.Backend), x.when(l.Time), x.when(x.s.Lines[i+again].Time))
	}
}

// madeAt is the line's time; that of no line is before all.
func (l *Line) madeAt() time.Time {
	if l == nil {
		return time.Time{}
	}
	return l.Time
}

// why says what put the pod there: the newest decision, and where that only
// repeats an older one, that one.
func (x *explainer) why() {
	var decided []*Line
	for _, l := range x.s.Lines {
		if l.route != nil {
			decided = append(decided, l)
		}
	}
	if n := len(x.s.Sandboxes); n > 0 {
		if m := x.s.made(x.s.Sandboxes[n-1]); m != nil && m.found {
			x.say("crimux did not put it there: its sandbox was found on %s %s, made by somebody else or before this log began.", clean(m.Backend), x.when(m.Time))
			return
		}
	}
	if x.s.Cut {
		x.say("The beginning of its story was taken out of the log (log.retention, log.maxSize): what is said here is of later.")
	}
	if len(decided) == 0 {
		return
	}
	newest := decided[len(decided)-1]
	there := "is there"
	switch x.s.State {
	case removed:
		there = "was there"
	case "":
		there = "was to go to " + clean(newest.Backend)
	}
	x.say("It %s because %s.", there, x.reason(newest))
	if !repeats(newest.route) {
		return
	}
	for i := len(decided) - 2; i >= 0; i-- {
		if l := decided[i]; l.route.GetBackend() == newest.route.GetBackend() && !repeats(l.route) {
			x.say("That was decided %s, because %s.", x.when(l.Time), x.reason(l))
			return
		}
	}
}

// The beginnings of the rules that policy.Decide gives. A test holds the two
// together.
const (
	ruleHandler   = "handler "
	ruleMigration = "migration to "
	ruleBucket    = "default: bucket "
	ruleBefore    = "default: decided before"
	ruleRuns      = "default: uid runs on "
	ruleDefault   = "default"
)

// repeats tells whether a decision only follows an earlier one.
func repeats(r *eventpb.Route) bool {
	return strings.HasPrefix(r.GetRule(), ruleBefore) || strings.HasPrefix(r.GetRule(), ruleRuns)
}

// reason says why a decision was as it was, as what follows "because".
func (x *explainer) reason(l *Line) string {
	r, to := l.route, clean(l.route.GetBackend())
	share := fmt.Sprintf("the migration to %s was at %d%%, and the pod's place in it%s", clean(l.policy.GetMigrationTo()), l.policy.GetMigrationPercent(), place(r))
	switch rule := r.GetRule(); {
	case strings.HasPrefix(rule, ruleHandler):
		return fmt.Sprintf("its RuntimeClass asks for handler %s, which the configuration routes to %s", clean(r.GetHandler()), to)
	case strings.HasPrefix(rule, ruleMigration) && l.policy != nil:
		return share + " is below that"
	case strings.HasPrefix(rule, ruleBucket) && l.policy != nil:
		return fmt.Sprintf("%s is the default; %s is not below that", to, share)
	case strings.HasPrefix(rule, ruleBefore):
		return fmt.Sprintf("a pod is decided once per change of the migration, and %s had been decided in epoch %d", to, r.GetEpoch())
	case strings.HasPrefix(rule, ruleRuns):
		return fmt.Sprintf("something of it still ran on %s when its sandbox was made, and a pod is never on two backends at once", to)
	case rule == ruleDefault:
		return fmt.Sprintf("it asks for no RuntimeClass, and %s is the default", to)
	case rule == "":
		return fmt.Sprintf("crimux sent it to %s; by which rule was not recorded", to)
	default:
		return fmt.Sprintf("of the rule %q, which leads to %s", clean(rule), to)
	}
}

// place is a pod's place in the migration as the rule tells it, if it does.
func place(r *eventpb.Route) string {
	_, bucket, _ := strings.Cut(r.GetRule(), "bucket ")
	number, _, _ := strings.Cut(bucket, " ")
	if number == "" {
		return ""
	}
	return ", " + clean(number) + ","
}

// moves says when the pod went from one backend to another.
func (x *explainer) moves() {
	on := ""
	for _, l := range x.s.Lines {
		if !(l.found || l.Event == runPodSandbox && l.outcome != nil && (l.Code == "OK" || l.outcome.GetSandbox() != nil)) {
			continue
		}
		if on != "" && l.Backend != on {
			x.say("It moved from %s to %s %s.", clean(on), clean(l.Backend), x.when(l.Time))
		}
		on = l.Backend
	}
}
