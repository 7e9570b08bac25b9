package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/cmd/crimux/export"
	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func newExport() *cobra.Command {
	var since uint64
	var followed, stepData bool
	c := &cobra.Command{
		Use:   "export",
		Short: "Write the event log as JSON lines",
		Long: `Write the event log as JSON lines, for other programs, for keeping, and for bug
reports: 'crimux replay --dry-run FILE' and --file of the commands that read
events take them anywhere, without a daemon and without root.

The first line is a header: schema ("` + export.Schema + `"), version, after (the
event that the export follows), and state, what the events up to that one
amount to. Every other line is one event, as 'events --json' prints it, with
these fields where they apply:

` + view.RecordHelp + `

Fields may be added; none is renamed. --since SEQ writes what comes after event
SEQ: who has the lines up to SEQ goes on from there, be it by appending to the
same file. --follow goes on with what the daemon records until ^C.

What events record is an allow-list, without credentials and environments.
Left out besides is the data of steps, in which the configuration of the pods'
network is; --step-data writes it, too, and then the fold of the export is that
of the log byte for byte, operations under way included.`,
		Example: `  crimux export > report.jsonl
  crimux export --since "$(tail -1 node.jsonl | jq .seq)" >> node.jsonl
  crimux export --follow | vector --config ship.yaml`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return reading(c, true, func(src *source, out *output) error {
				x := &exporter{since: since, out: out}
				x.w = export.Writer{Out: out, Version: buildVersion(), StepData: stepData}
				return x.run(c, src, followed)
			})
		},
	}
	c.Flags().Uint64Var(&since, "since", 0, "write what comes after event `SEQ`")
	c.Flags().BoolVarP(&followed, "follow", "f", false, "go on with what is recorded from now on")
	c.Flags().BoolVar(&stepData, "step-data", false, "write the data of steps, too")
	return c
}

// exporter writes an export.
type exporter struct {
	since uint64
	w     export.Writer
	out   *output
	live  bool
}

func (x *exporter) run(c *cobra.Command, src *source, followed bool) error {
	if followed && src.daemon == nil {
		return fmt.Errorf("%s, so that nothing is being recorded: leave out --follow to write what there is", src.noDaemon)
	}
	w := newWalker(x.event)
	w.snapshot = x.event
	w, err := src.walkWith(w)
	if err != nil {
		return err
	}
	if last := w.state.Seq(); x.since > last {
		return notThereYet(x.since, last)
	}
	// Where nothing came after, the header tells so.
	if err := x.w.Begin(w.state); err != nil {
		return err
	}
	if !followed {
		return nil
	}
	x.live = true
	if err := x.out.Flush(); err != nil {
		return err
	}
	return follow(c.Context(), src, w)
}

func (x *exporter) event(before *store.State, e *eventpb.Event) error {
	// Who has the events up to SEQ may lack the snapshot that is after it.
	if e.GetSeq() < x.since || e.GetSeq() == x.since && e.GetSnapshot() == nil {
		return nil
	}
	if err := x.w.Event(before, e); err != nil || !x.live {
		return err
	}
	return x.out.Flush()
}
