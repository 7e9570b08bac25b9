package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// pointHelp documents points for the commands' help.
const pointHelp = `A point is a sequence number, which stands for just after that event; a time,
which is RFC 3339 (2026-05-01T12:00:00Z), a date, a clock time of today, or
both with a blank between, where the date may be "today" or "yesterday"; or as
long ago as a duration such as 90s, 5m, 36h or 3d says. Times without a zone
are UTC, as those that are printed. Where the node's clock was set back, a time
stands for the first moment at which it was passed.`

// point is a place in the log: a sequence number, a time, or with neither the
// end.
type point struct {
	seq  uint64
	time time.Time
}

// parsePoint reads a sequence number, a time, or a duration before now.
func parsePoint(text string, now time.Time) (point, error) {
	if text == "" {
		return point{}, nil
	}
	if seq, err := strconv.ParseUint(text, 10, 64); err == nil {
		if seq == 0 {
			return point{}, errors.New("0 is before the first event, which is 1")
		}
		return point{seq: seq}, nil
	}
	if t, ok := parseMoment(text, now.UTC()); ok {
		return point{time: t}, nil
	}
	if d, ok := parseAgo(text); ok {
		return point{time: now.Add(-d)}, nil
	}
	return point{}, fmt.Errorf("%q is no sequence number (17), no time (2026-05-01T12:00:00Z, 2026-05-01, 14:30, \"yesterday 14:30\") "+
		"and no duration (90s, 5m, 36h, 3d)", text)
}

// parseMoment reads a time of which the date or the clock may be missing.
func parseMoment(text string, now time.Time) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, true
	}
	date, clock, both := strings.Cut(strings.Replace(text, "T", " ", 1), " ")
	day, isDate := parseDate(date, now)
	switch {
	case isDate && !both:
		return day, true
	case !isDate && both:
		return time.Time{}, false
	case !isDate:
		day, clock = midnight(now), date
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(layout, clock); err == nil {
			return day.Add(t.Sub(midnight(t))), true
		}
	}
	return time.Time{}, false
}

func parseDate(text string, now time.Time) (time.Time, bool) {
	switch text {
	case "today":
		return midnight(now), true
	case "yesterday":
		return midnight(now).AddDate(0, 0, -1), true
	}
	t, err := time.Parse(time.DateOnly, text)
	return t, err == nil
}

func midnight(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
}

// maxDays bounds a duration in days to what a time.Duration holds.
const maxDays = 100_000

// parseAgo reads a duration, which may be in days.
func parseAgo(text string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		return time.Duration(n) * 24 * time.Hour, err == nil && n <= maxDays
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= 0
}

// passed tells whether an event is after the point.
func (p point) passed(e *eventpb.Event) bool {
	if e.GetCompacted() != nil && p.seq == 0 {
		return false // It has the time of the clearing up, not of what happened.
	}
	return p.seq > 0 && e.GetSeq() > p.seq || !p.time.IsZero() && e.GetTime() > p.time.UnixNano()
}

// takenOut tells whether the point is among events that were taken out of the
// log, in place of which there is e.
func (p point) takenOut(e *eventpb.Event) bool {
	c := e.GetCompacted()
	return c != nil && p.seq >= c.GetFirst() && p.seq < c.GetLast()
}

// errTakenOut says that the state at a point cannot be told any more.
var errTakenOut = fmt.Errorf("%w: events up to then were taken out (log.retention, log.maxSize)", store.ErrOutOfRange)

// moment is the time that the point stands for, given the last event before it.
func (p point) moment(last *eventpb.Event) time.Time {
	if p.seq > 0 {
		return time.Unix(0, last.GetTime())
	}
	return p.time
}

// errPassed ends reading where the point is passed.
var errPassed = errors.New("passed")

// stateAt folds the log up to a point, and returns the last event in the state.
func stateAt(src *source, p point) (*store.State, *eventpb.Event, error) {
	var last *eventpb.Event
	w, err := src.walk(func(before *store.State, e *eventpb.Event) error {
		if p.passed(e) {
			switch {
			case p.takenOut(e):
				return errTakenOut
			case last == nil:
				return beginsAfter(before, e)
			}
			return errPassed
		}
		last = e
		return nil
	})
	if err != nil && !errors.Is(err, errPassed) {
		return w.state, nil, err
	}
	if w.state.Partial() {
		return w.state, nil, errTakenOut
	}
	if last == nil && p != (point{}) {
		return w.state, nil, errors.New("the log has no events yet")
	}
	if p.seq > last.GetSeq() {
		return w.state, nil, notThereYet(p.seq, last.GetSeq())
	}
	return w.state, last, nil
}

func beginsAfter(before *store.State, first *eventpb.Event) error {
	return fmt.Errorf("the log begins after that, at %s%s", view.Exact(time.Unix(0, first.GetTime())), eventAfter(before.Seq()))
}

// eventAfter says where a log begins that has been cut short at its front.
func eventAfter(seq uint64) string {
	if seq == 0 {
		return ""
	}
	return fmt.Sprintf(" with event %d", seq+1)
}

func notThereYet(seq, last uint64) error {
	return fmt.Errorf("event %d is not in the log, which ends at event %d", seq, last)
}
