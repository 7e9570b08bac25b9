package main

import (
	"encoding/json"
	"fmt"
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

--at goes back in time, to a point; ages then count to that time.

` + pointHelp + `

` + fileHelp + `

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
				state, last, err := shownState(src, point)
				if err != nil {
					return err
				}
				if asJSON {
					return printStateJSON(out, state)
				}
				if last != nil {
					fmt.Fprintf(out, "after event %d, %s\n\n", last.GetSeq(), view.Exact(time.Unix(0, last.GetTime())))
					out.now = point.moment(last)
				}
				return view.WriteState(out, state, view.StateOptions{Now: out.now, Containers: containers, Colour: out.colour})
			})
		},
	}
	addFile(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&containers, "containers", false, "print the containers of each pod")
	c.Flags().StringVar(&at, "at", "", "print the state at this `POINT`")
	return c
}

// shownState returns the state at a point, and the last event in it; the
// present state without an event where no point was asked for.
func shownState(src *source, p point) (*eventpb.State, *eventpb.Event, error) {
	if p == (point{}) {
		state, err := src.state()
		return state, nil, err
	}
	state, last, err := stateAt(src, p)
	return state.Proto(), last, err
}

// state returns the present state. A daemon has it ready, however long its
// log is.
func (s *source) state() (*eventpb.State, error) {
	if s.daemon != nil {
		return s.daemon.State(s.ctx)
	}
	w, err := s.walk(func(*store.State, *eventpb.Event) error { return nil })
	return w.state.Proto(), err
}

func printStateJSON(out *output, state *eventpb.State) error {
	b, err := view.StateJSON(state)
	if err != nil {
		return err
	}
	return out.line(json.RawMessage(b))
}
