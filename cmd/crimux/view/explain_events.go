package view

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crimux/crimux/store/eventpb"
)

// times counts occurrences in words.
func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	default:
		return fmt.Sprintf("%d times", n)
	}
}

// grouped puts lines that have a key in common together, in the order in which
// the keys came. Lines without a key are left out.
func grouped(lines []*Line, key func(*Line) string) [][]*Line {
	var groups [][]*Line
	at := make(map[string]int)
	for _, l := range lines {
		k := key(l)
		if k == "" {
			continue
		}
		i, known := at[k]
		if !known {
			i = len(groups)
			at[k], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], l)
	}
	return groups
}

// containers says how containers ended unasked, and that they were started
// again.
func (x *explainer) containers() {
	for _, exits := range grouped(x.s.Lines, func(l *Line) string {
		if l.ended == nil {
			return ""
		}
		return fmt.Sprint(l.Container, "\x00", l.ended.GetReason(), "\x00", l.ended.GetExitCode())
	}) {
		x.exits(exits)
	}
	if n := x.s.Restarts; n > 0 {
		x.say("Containers of it were restarted %s.", times(n))
	}
	for _, probes := range grouped(x.s.Lines, func(l *Line) string {
		if l.probed == nil || !l.Failed {
			return ""
		}
		return l.Container
	}) {
		failed := uint64(0)
		for _, l := range probes {
			failed += l.probed.GetCount()
		}
		last := probes[len(probes)-1]
		x.say("Probes or other commands run in container %s failed %s, %s.",
			containerName(last.Container, last.ContainerID, 0), times(int(failed)), lastTime(int(failed), x.when(last.Time)))
	}
}

// exits says how often a container ended in one way, and whether that was its
// end.
func (x *explainer) exits(exits []*Line) {
	last, n := exits[len(exits)-1], len(exits)
	name, when := containerName(last.Container, last.ContainerID, 0), lastTime(n, x.when(endedAt(last)))
	now := ""
	if x.s.State == sandboxState(eventpb.SandboxState_SANDBOX_STATE_READY) && x.last(func(l *Line) bool {
		return l.Event == startContainer && l.Code == "OK" && l.Container == last.Container && l.Seq > last.Seq
	}) == nil {
		now = "; it has not been started since"
	}
	if last.ended.GetReason() == oomKilled {
		x.say("Container %s was killed for want of memory %s, %s, with %s: it used more than its limit, or the node had none left%s.",
			name, times(n), when, exitWords(last.ended), now)
		return
	}
	signal := ""
	if sig := last.ended.GetExitCode() - signalled; sig > 0 && unix.SignalName(syscall.Signal(sig)) != "" {
		signal = ", which is what " + unix.SignalName(syscall.Signal(sig)) + " leaves"
	}
	x.say("Container %s ended unasked %s, %s: %s%s%s.", name, times(n), when, exitWords(last.ended), signal, now)
}

// signalled is what a signal's number is added to in an exit code.
const signalled = 128

// lastTime is when something happened that did n times.
func lastTime(n int, when string) string {
	if n == 1 {
		return when
	}
	return "the last time " + when
}

// oomKilled is the reason that runtimes give.
const oomKilled = "OOMKilled"

// endedAt is when a container ended, which may be before it was seen.
func endedAt(l *Line) time.Time {
	if at := l.ended.GetFinishedAt(); at != 0 {
		return time.Unix(0, at)
	}
	return l.Time
}

// failures says which calls failed, how often, and whether they worked since.
func (x *explainer) failures() {
	for _, failed := range grouped(x.s.Lines, func(l *Line) string {
		if l.outcome == nil || !l.Failed || l.Recovered {
			return ""
		}
		return l.Event + "\x00" + l.Container + "\x00" + l.Code
	}) {
		last := failed[len(failed)-1]
		n, lastTime := countFailures(failed)
		words := fmt.Sprintf("%s failed %s", last.what(), times(n))
		if n > 1 {
			words += fmt.Sprintf(", first %s and last %s,", x.when(failed[0].Time), x.when(lastTime))
		} else {
			words += ", " + x.when(lastTime) + ","
		}
		words += fmt.Sprintf(" with %s", join(": ", last.Code, strings.TrimRight(clean(last.outcome.GetMessage()), ".")))
		if x.worked(last) {
			words += "; it has worked since"
		}
		x.say("%s.", words)
	}
}

// countFailures counts failures with their repeats that are not in the log any
// more, and says when the last of all was.
func countFailures(failed []*Line) (n int, last time.Time) {
	for _, l := range failed {
		n += 1 + int(l.Repeats)
		if last.Before(l.Time) {
			last = l.Time
		}
		if l.LastRepeat != nil && last.Before(*l.LastRepeat) {
			last = *l.LastRepeat
		}
	}
	return n, last
}

// crashes says what ends of the daemon and of the node meant for the pod.
func (x *explainer) crashes() {
	x.kills()
	for _, l := range x.s.Lines {
		switch {
		case l.run == rebooted:
			x.say("The node was rebooted, and the daemon was started again %s: everything of the pod that ran had ended.", x.when(l.Time))
		case l.lost:
			x.say("The event log was damaged, and salvaged %s: what happened before may be missing here.", x.when(l.Time))
		case l.Recovered && l.outcome != nil:
			worked := ""
			if l.Failed && x.worked(l) {
				worked = "; it has worked since"
			}
			x.say("%s was under way when the daemon ended, and was closed by recovery %s with %s%s.", l.what(), x.when(l.Time),
				join(": ", l.Code, strings.TrimRight(clean(l.outcome.GetMessage()), ".")), worked)
		}
	}
}

// kills says how often the daemon was killed.
func (x *explainer) kills() {
	n := 0
	var last *Line
	for _, l := range x.s.Lines {
		if l.run == killed {
			n, last = n+1, l
		}
	}
	switch n {
	case 0:
	case 1:
		x.say("The daemon was killed, and was started again %s; what ran went on without it.", x.when(last.Time))
	default:
		x.say("The daemon was killed %s, and was started again, the last time %s; what ran went on without it.", times(n), x.when(last.Time))
	}
}

// worked tells whether an operation like that of a line went well after it.
func (x *explainer) worked(l *Line) bool {
	return x.last(func(m *Line) bool {
		return m.Event == l.Event && m.Container == l.Container && m.Code == "OK" && m.Seq > l.Seq &&
			(l.LastRepeat == nil || !m.Time.Before(*l.LastRepeat))
	}) != nil
}

// what names the operation and what it was about.
func (l *Line) what() string {
	if l.Container != "" {
		return l.Event + " of container " + clean(l.Container)
	}
	return l.Event
}

// fewOutages is how many outages of one backend are told one by one.
const fewOutages = 2

// outage is an absence of a backend; back is nil while it lasts.
type outage struct{ away, back *Line }

// outages says when the pod's backends were away.
func (x *explainer) outages() {
	over := make(map[string][]outage)
	var order []string
	var lasting []*Line
	for i, l := range x.s.Lines {
		if l.health == nil || l.health.GetUp() {
			continue
		}
		back := slices.IndexFunc(x.s.Lines[i:], func(m *Line) bool {
			return m.health != nil && m.health.GetUp() && m.Backend == l.Backend
		})
		if back < 0 {
			lasting = append(lasting, l)
			continue
		}
		if over[l.Backend] == nil {
			order = append(order, l.Backend)
		}
		over[l.Backend] = append(over[l.Backend], outage{l, x.s.Lines[i+back]})
	}
	for _, backend := range order {
		x.over(clean(backend), over[backend])
	}
	for _, l := range lasting {
		x.say("%s has been away %s%s: meanwhile the pod is listed as it was last known.", clean(l.Backend), x.since(l.Time), l.reason())
	}
}

// over says when a backend was away: of many times how often, and how long
// together.
func (x *explainer) over(backend string, all []outage) {
	const meanwhile = "meanwhile the pod was listed as it was last known."
	if len(all) <= fewOutages {
		for _, o := range all {
			x.say("%s was away for %s, from %s%s: %s", backend, took(o.back.Time.Sub(o.away.Time)), strings.TrimPrefix(x.when(o.away.Time), "at "),
				o.away.reason(), meanwhile)
		}
		return
	}
	var sum time.Duration
	for _, o := range all {
		sum += o.back.Time.Sub(o.away.Time)
	}
	last := all[len(all)-1].away
	x.say("%s was away %s, for %s together, the last time from %s%s: %s", backend, times(len(all)), took(sum),
		strings.TrimPrefix(x.when(last.Time), "at "), last.reason(), meanwhile)
}

// reason is why a backend was away, in brackets.
func (l *Line) reason() string {
	if l.health.GetError() == "" {
		return ""
	}
	return " (" + clean(l.health.GetError()) + ")"
}

// notices says what backends met that no caller could be told.
func (x *explainer) notices() {
	for _, l := range x.s.Lines {
		if l.noticed == nil {
			continue
		}
		about := ""
		if l.ContainerID != "" || l.Container != "" {
			about = " of container " + containerName(l.Container, l.ContainerID, 0)
		}
		x.say("%s noticed %s%s %s: %s.", clean(l.Backend), clean(l.noticed.GetName()), about, x.when(l.Time),
			strings.TrimRight(noticedMessage(l), "."))
	}
}

func noticedMessage(l *Line) string {
	words := clean(l.noticed.GetMessage())
	if words == "" {
		words = "no particulars"
	}
	if n := l.noticed.GetCount(); n > 1 {
		words = fmt.Sprintf("%s (%d times)", words, n)
	}
	return words
}

// underway says what has no outcome.
func (x *explainer) underway() {
	for _, l := range x.s.Lines {
		if l.intent != nil && l.outcome == nil && !l.cutShort {
			x.say("%s has no outcome yet; it began %s.", l.what(), x.when(l.Time))
		}
	}
}
