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

func newReplay() *cobra.Command {
	var dry, asJSON bool
	var r rehearsing
	c := &cobra.Command{
		Use:   "replay POD --on BACKEND | --dry-run FILE",
		Short: "Rehearse a pod on another backend, or fold an exported log",
		Long: rehearseHelp + `

With --dry-run: fold an exported log, and print what it holds and the state that it ends in:
anywhere, without a runtime, a daemon, a configuration or root. A bug report is
a file.

FILE is what 'crimux export' wrote, or a copy of an event log. The commands
events, state, timeline, diff and explain answer their questions about it with
--file FILE.

--json prints one object: events (their number), compacted (how many were taken
out of the log), first, last (sequence numbers), begins, ends (their times),
versions (of crimux), failed (number of outcomes that were errors), open (operations without an outcome), state (the
message State of store/eventpb/event.proto in protobuf's JSON form).`,
		Example: `  crimux replay web --on containerd
  crimux replay default/web --on containerd --level start --timeout 2m
  crimux replay --dry-run report.jsonl
  crimux timeline web --file report.jsonl`,
		Args:              exactlyOne("POD or FILE"),
		ValidArgsFunction: completePod,
		RunE: func(c *cobra.Command, args []string) error {
			if !dry {
				return rehearse(c, args[0], r, asJSON)
			}
			if r.on != "" {
				return usageError{errors.New("crimux replay: --dry-run carries nothing out: it goes without --on")}
			}
			src, err := openExport(c.Context(), args[0])
			if err != nil {
				return err
			}
			return readingFrom(c, src, true, func(src *source, out *output) error { return dryRun(src, out, asJSON) })
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only fold the events of FILE")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	r.addFlags(c)
	return c
}

// dryReport is what a log holds.
type dryReport struct {
	Events uint64 `json:"events"`
	// Compacted counts events of which only stubs are left; failures among
	// them that were as one that is kept count as Failed.
	Compacted uint64      `json:"compacted"`
	First     uint64      `json:"first"`
	Last      uint64      `json:"last"`
	Begins    time.Time   `json:"begins"`
	Ends      time.Time   `json:"ends"`
	Versions  []string    `json:"versions"`
	Failed    uint64      `json:"failed"`
	Open      int         `json:"open"`
	State     jsonMessage `json:"state"`
}

// jsonMessage is a message that is JSON already.
type jsonMessage []byte

// MarshalJSON implements json.Marshaler.
func (m jsonMessage) MarshalJSON() ([]byte, error) { return m, nil }

func (r *dryReport) add(_ *store.State, e *eventpb.Event) error {
	if c := e.GetCompacted(); c != nil {
		r.Compacted += c.GetCount()
		for _, like := range c.GetRepeated() {
			r.Failed += like.GetCount()
		}
		return nil
	}
	at := time.Unix(0, e.GetTime()).UTC()
	if r.Events++; r.Events == 1 {
		r.First, r.Begins = e.GetSeq(), at
	}
	r.Last, r.Ends = e.GetSeq(), at
	if v := e.GetStarted().GetVersion(); v != "" && (len(r.Versions) == 0 || r.Versions[len(r.Versions)-1] != v) {
		r.Versions = append(r.Versions, v)
	}
	if e.GetOutcome().GetCode() != 0 {
		r.Failed++
	}
	return nil
}

func dryRun(src *source, out *output, asJSON bool) error {
	r := dryReport{Versions: []string{}}
	w, err := src.walk(r.add)
	if err != nil {
		return err
	}
	state := w.state.Proto()
	r.Open = len(state.GetOperations())
	if asJSON {
		if r.State, err = view.StateJSON(state); err != nil {
			return err
		}
		return out.line(r)
	}
	fmt.Fprintf(out, "%d events, %d to %d, from %s to %s\n", r.Events, r.First, r.Last, view.Exact(r.Begins), view.Exact(r.Ends))
	if r.Compacted > 0 {
		fmt.Fprintf(out, "%d more were taken out of the log\n", r.Compacted)
	}
	for _, v := range r.Versions {
		fmt.Fprintf(out, "recorded by crimux %s\n", view.Clean(v))
	}
	fmt.Fprintf(out, "%d operations failed, %d have no outcome\n\nat its end:\n\n", r.Failed, r.Open)
	return view.WriteState(out, state, view.StateOptions{Now: r.Ends, Containers: true, Colour: out.colour})
}
