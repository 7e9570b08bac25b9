package view

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteStory writes a story for people. Its times count from its beginning;
// with a zero now they are absolute.
func WriteStory(w io.Writer, s *Story, now time.Time, colour bool) error {
	if _, err := fmt.Fprintln(w, s.title(now)); err != nil {
		return err
	}
	t := NewTable(w, colour, "AT", "SEQ", "BACKEND", "EVENT", "TOOK", "RESULT")
	for _, l := range s.Lines {
		at := absolute(l.Time)
		if !now.IsZero() {
			at = "+" + took(l.Time.Sub(s.Lines[0].Time))
		}
		if err := t.Row(l.Failed, at, l.span(), orNone(l.Backend), l.Event, l.took(), l.Result); err != nil {
			return err
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
