package view

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteStory writes a story for people. Its times count from its beginning;
// with a zero now they are absolute. The steps of an operation follow it; how
// long each took counts from the step before, or from the operation's begin.
func WriteStory(w io.Writer, s *Story, now time.Time, colour bool) error {
	if _, err := fmt.Fprintln(w, s.title(now)); err != nil {
		return err
	}
	t := NewTable(w, colour, "AT", "SEQ", "BACKEND", "EVENT", "TOOK", "RESULT")
	at := func(when time.Time) string {
		if now.IsZero() {
			return absolute(when)
		}
		return "+" + took(when.Sub(s.Lines[0].Time))
	}
	for _, l := range s.Lines {
		if err := t.Row(l.Failed, at(l.Time), l.span(), orNone(l.Backend), l.Event, l.took(), l.Result); err != nil {
			return err
		}
		from := l.Time
		for _, st := range l.Steps {
			if strings.HasPrefix(st.Name, imageStep) {
				continue
			}
			if err := t.Row(false, at(st.Time), fmt.Sprint(st.Seq), "", "  step", took(st.Time.Sub(from)), join(" ", clean(st.Name), Short(st.ID))); err != nil {
				return err
			}
			from = st.Time
		}
	}
	return t.Flush()
}

// title says whose story it is, where the pod is and since when.
func (s *Story) title(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pod %s", clean(s.Namespace+"/"+s.Name))
	if s.UID != "" {
		fmt.Fprintf(&b, ", uid %s", clean(s.UID))
	}
	if s.State != "" {
		fmt.Fprintf(&b, ", %s", s.State)
	}
	if len(s.Backends) > 0 {
		fmt.Fprintf(&b, ", on %s", clean(strings.Join(s.Backends, " then ")))
	}
	if len(s.Sandboxes) > 1 {
		fmt.Fprintf(&b, ", %d sandboxes", len(s.Sandboxes))
	}
	for _, n := range []struct {
		n    int
		what string
	}{{s.Restarts, "restart"}, {s.Exits, "failed exit"}} {
		if n.n > 0 {
			b.WriteString(", " + count(n.n, n.what))
		}
	}
	if s.Cut {
		b.WriteString("\nits beginning was taken out of the log (log.retention, log.maxSize)")
	}
	if len(s.Lines) > 0 {
		began := s.Lines[0].Time
		fmt.Fprintf(&b, "\nfrom %s", absolute(began))
		if !now.IsZero() {
			fmt.Fprintf(&b, ", %s ago", Age(now.Sub(began)))
		}
	}
	return b.String()
}

// span names the line's events.
func (l *Line) span() string {
	if l.End == 0 {
		return fmt.Sprint(l.Seq)
	}
	return fmt.Sprintf("%d-%d", l.Seq, l.End)
}

func (l *Line) took() string {
	if l.DurationMs == nil {
		return none
	}
	return took(time.Duration(*l.DurationMs * float64(time.Millisecond)))
}
