package view

import (
	"fmt"
	"slices"
	"strings"
	"time"
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

// containers says how containers ended by themselves, and that they were
// started again.
func (x *explainer) containers() {
	for _, exits := range grouped(x.s.Lines, func(l *Line) string {
		if l.ended == nil {
			return ""
		}
		return fmt.Sprint(l.Container, "\x00", l.ended.GetReason(), "\x00", l.ended.GetExitCode())
	}) {
		last := exits[len(exits)-1]
		why := exitWords(last.ended)
		if last.ended.GetReason() == oomKilled {
			why = fmt.Sprintf("killed for want of memory, exit %d (%s): it used more than its limit, or the node had none left", last.ended.GetExitCode(), oomKilled)
		}
		when := x.when(endedAt(last))
		if len(exits) > 1 {
			when = "the last time " + when
		}
		x.say("Container %s ended by itself %s, %s: %s.", containerName(last.Container, last.ContainerID, 0), times(len(exits)), when, why)
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
		x.say("Probes or other commands run in container %s failed %s, the last time %s.",
			containerName(last.Container, last.ContainerID, 0), times(int(failed)), x.when(last.Time))
	}
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
		worked := x.last(func(l *Line) bool {
			return l.Event == last.Event && l.Container == last.Container && l.Code == "OK" && l.Seq > last.Seq &&
				(last.LastRepeat == nil || !l.Time.Before(lastTime))
		})
		if worked != nil {
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
	for _, l := range x.s.Lines {
		switch {
		case l.run == rebooted:
			x.say("The node was rebooted before %s, which ended everything of the pod that ran.", x.moment(l.Time))
		case l.run == killed:
			x.say("The daemon was killed before %s; what runs goes on without it.", x.moment(l.Time))
		case l.lost:
			x.say("The event log was damaged, and salvaged %s: what happened before may be missing here.", x.when(l.Time))
		case l.Recovered && l.outcome != nil:
			x.say("%s was under way then, and was closed by recovery %s with %s.", l.what(), x.when(l.Time),
				join(": ", l.Code, strings.TrimRight(clean(l.outcome.GetMessage()), ".")))
		}
	}
}

// moment is a time that something was before.
func (x *explainer) moment(t time.Time) string {
	if x.now.IsZero() {
		return absolute(t)
	}
	return "its start " + x.when(t)
}

// what names the operation and what it was about.
func (l *Line) what() string {
	if l.Container != "" {
		return l.Event + " of container " + clean(l.Container)
	}
	return l.Event
}

// outages says when the pod's backends were away.
func (x *explainer) outages() {
	for i, l := range x.s.Lines {
		if l.health == nil || l.health.GetUp() {
			continue
		}
		back := slices.IndexFunc(x.s.Lines[i:], func(m *Line) bool {
			return m.health != nil && m.health.GetUp() && m.Backend == l.Backend
		})
		why := ""
		if l.health.GetError() != "" {
			why = " (" + clean(l.health.GetError()) + ")"
		}
		if back < 0 {
			x.say("%s has been away %s%s: meanwhile the pod is listed as it was last known.", clean(l.Backend), x.since(l.Time), why)
			continue
		}
		x.say("%s was away for %s, from %s%s: meanwhile the pod was listed as it was last known.",
			clean(l.Backend), took(x.s.Lines[i+back].Time.Sub(l.Time)), strings.TrimPrefix(x.when(l.Time), "at "), why)
	}
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
