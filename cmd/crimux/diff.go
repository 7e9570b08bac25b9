package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func newDiff() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "diff A [B]",
		Short: "Print what changed between two points",
		Long: `Print what changed between point A and the later point B, or now: pods that
appeared, are gone, moved to another backend or changed, with their sandboxes
and containers; backends that came and went; the placement policy.

It compares two states. What came and went between them is not in it:
'crimux events --since A --until B' has every step of the way.

` + pointHelp + `

` + fileHelp + `

--json prints one JSON object:

` + view.DiffHelp,
		Example: `  crimux diff 1h
  crimux diff 2026-05-01T12:00:00Z 2026-05-01T13:00:00Z
  crimux diff 20 33 --json | jq '.pods[] | select(.change == "moved")'`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 2 {
				return usageError{fmt.Errorf("%s: takes point A and perhaps point B", c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			a, b, err := parsePoints(args, time.Now())
			if err != nil {
				return usageError{err}
			}
			return reading(c, true, func(src *source, out *output) error {
				d, err := diffBetween(src, a, b)
				switch {
				case err != nil:
					return err
				case asJSON:
					return out.line(d)
				default:
					return view.WriteDiff(out, d, out.colour)
				}
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	addFile(c)
	return c
}

func parsePoints(args []string, now time.Time) (a, b point, err error) {
	if args[0] == "" {
		return a, b, errors.New("point A is empty")
	}
	if a, err = parsePoint(args[0], now); err != nil {
		return a, b, err
	}
	if len(args) == 2 {
		b, err = parsePoint(args[1], now)
	}
	if a.seq > 0 && b.seq > 0 && a.seq > b.seq {
		err = fmt.Errorf("event %d is after event %d: name the earlier point first", a.seq, b.seq)
	}
	if !a.time.IsZero() && !b.time.IsZero() && a.time.After(b.time) {
		err = fmt.Errorf("%s is after %s: name the earlier point first", view.Exact(a.time), view.Exact(b.time))
	}
	return a, b, err
}

// diffBetween folds the log once, and keeps the state at both points.
func diffBetween(src *source, a, b point) (*view.Diff, error) {
	var last *eventpb.Event
	var from *eventpb.State
	var fromTime, toTime time.Time
	w, err := src.walk(func(before *store.State, e *eventpb.Event) error {
		if from == nil && a.passed(e) {
			switch {
			case a.takenOut(e) || before.Partial():
				return errTakenOut
			case last == nil:
				return beginsAfter(before, e)
			}
			from, fromTime = before.Proto(), time.Unix(0, last.GetTime()).UTC()
		}
		if b.takenOut(e) {
			return errTakenOut
		}
		if b.passed(e) {
			return errPassed
		}
		last, toTime = e, time.Unix(0, e.GetTime()).UTC()
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, errPassed):
		return nil, err
	case w.state.Partial():
		return nil, errTakenOut
	case last == nil:
		return nil, errors.New("the log has no events yet, or begins after that")
	case from == nil && err != nil:
		return nil, errors.New("point A is after point B: name the earlier one first")
	case from == nil && a.seq > last.GetSeq():
		return nil, notThereYet(a.seq, last.GetSeq())
	case b.seq > last.GetSeq():
		return nil, notThereYet(b.seq, last.GetSeq())
	}
	to := w.state.Proto()
	if from == nil { // Nothing happened since.
		from, fromTime = to, toTime
	}
	d := view.NewDiff(from, to)
	d.From.Time, d.To.Time = fromTime, toTime
	return d, nil
}
