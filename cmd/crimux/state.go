package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func newState() *cobra.Command {
	var asJSON, containers bool
	var at string
	c := &cobra.Command{
		Use:   "state",
		Short: "Print the pods, backends and open operations",
		Long: `Print the pods that there are as crimux knows them, the backends, and the
operations that have no outcome yet.

--at goes back in time: to just after event SEQ, to a time (RFC 3339), or to as
long ago as a duration such as 90s, 5m or 36h says. Ages then count to that
time. Where the node's clock was set back, a time stands for the first moment
at which it was passed.

--json prints the message State of store/eventpb/event.proto in protobuf's JSON
form (64 bit numbers are strings, times are nanoseconds since 1970, what is
zero is left out), without the data of steps, as one line.`,
		Example: `  crimux state --containers
  crimux state --at 5m
  crimux state --at 2026-05-01T12:00:00Z --json | jq -r '.sandboxes[].id'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			point, err := parsePoint(at, time.Now())
			if err != nil {
				return usageError{fmt.Errorf("--at: %w", err)}
			}
			return reading(c, false, func(src *source, out *output) error {
				state, last, err := stateAt(src, point)
				if err != nil {
					return err
				}
				if asJSON {
					return printStateJSON(out, state)
				}
				if at != "" {
					fmt.Fprintf(out, "after event %d, %s\n\n", last.GetSeq(), view.Exact(time.Unix(0, last.GetTime())))
					out.now = point.moment(last)
				}
				return view.WriteState(out, state.Proto(), view.StateOptions{Now: out.now, Containers: containers, Colour: out.colour})
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&containers, "containers", false, "print the containers of each pod")
	c.Flags().StringVar(&at, "at", "", "print the state at this `SEQ|TIME|DURATION` ago")
	return c
}

func printStateJSON(out *output, state *store.State) error {
	b, err := view.StateJSON(state.Proto())
	if err != nil {
		return err
	}
	return out.line(json.RawMessage(b))
}

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
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return point{time: t}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return point{time: now.Add(-d)}, nil
	}
	return point{}, fmt.Errorf("%q is no sequence number (17), no time (2026-05-01T12:00:00Z) and no duration (90s, 5m, 36h)", text)
}

// passed tells whether an event is after the point.
func (p point) passed(e *eventpb.Event) bool {
	return p.seq > 0 && e.GetSeq() > p.seq || !p.time.IsZero() && e.GetTime() > p.time.UnixNano()
}

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
	w := newWalker(func(_ *store.State, e *eventpb.Event) error {
		if p.passed(e) {
			if last == nil {
				return fmt.Errorf("the log begins after that, at %s", view.Exact(time.Unix(0, e.GetTime())))
			}
			return errPassed
		}
		last = e
		return nil
	})
	if err := src.Records(0, w.next); err != nil && !errors.Is(err, errPassed) {
		return nil, nil, err
	}
	if last == nil && p != (point{}) {
		return nil, nil, errors.New("the log has no events yet")
	}
	if p.seq > last.GetSeq() {
		return nil, nil, fmt.Errorf("event %d is not in the log, which ends at event %d", p.seq, last.GetSeq())
	}
	return w.state, last, nil
}
