package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// eventsFlags are the flags of the events command.
type eventsFlags struct {
	json, follow, absolute bool
	from                   uint64
	tail                   int
	filter                 eventFilter
}

func newEvents() *cobra.Command {
	var f eventsFlags
	c := &cobra.Command{
		Use:   "events",
		Short: "Print what happened, event by event",
		Long: `Print what happened, event by event, oldest first.

An operation is an intent, which is on disk before its first effect, then its
steps, then its outcome, which is on disk before the kubelet hears of it.

--follow goes on with what the daemon records until ^C; its times are absolute.
--pod takes a name, NAMESPACE/NAME, a uid, or the id of a sandbox or container;
of uids and ids the beginning is enough.

--since and --until take a point, and print what is after the one and not after
the other: 'events --since 20 --until 33' are those that 'diff 20 33' is about.

` + pointHelp + `

` + fileHelp + `

--json prints one JSON object per line, with these fields where they apply:

` + view.RecordHelp,
		Example: `  crimux events --tail 20
  crimux events --follow --backend docker
  crimux events --failed --since "yesterday 14:00" --namespace kube-system
  crimux events --json | jq 'select(.kind == "outcome" and .code != "OK")'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("tail") && f.tail < 0 {
				return usageError{fmt.Errorf("--tail: %d is below 0", f.tail)}
			}
			if err := f.filter.parse(time.Now()); err != nil {
				return usageError{err}
			}
			return reading(c, f.absolute || f.follow, func(src *source, out *output) error {
				return printEvents(c, src, newEventPrinter(f, out))
			})
		},
	}
	fl := c.Flags()
	fl.BoolVar(&f.json, "json", false, "print JSON, one object per line")
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on with what is recorded from now on")
	fl.BoolVar(&f.absolute, "absolute", false, "print times as RFC 3339 instead of relative to now")
	fl.Uint64Var(&f.from, "from", 0, "print events from this `SEQ` on")
	fl.IntVar(&f.tail, "tail", -1, "print only the last `N` of the events there are")
	fl.Lookup("tail").DefValue = "all"
	f.filter.flags(c)
	addFile(c)
	return c
}

// printEvents reads the log to its end, or follows it.
func printEvents(c *cobra.Command, src *source, p *eventPrinter) error {
	if p.follow && src.daemon == nil {
		return fmt.Errorf("%s, so that nothing is being recorded: leave out --follow to print what there is", src.noDaemon)
	}
	if isTerminal(c.OutOrStdout()) {
		src.progress = nil // The lines tell how far it is.
	}
	w, err := src.walk(p.event)
	if errors.Is(err, errPassed) {
		err = nil
	}
	if perr := p.caughtUp(); err == nil {
		err = perr
	}
	if err != nil {
		return err
	}
	if p.follow && !p.filter.over {
		return follow(c.Context(), src, w)
	}
	if p.printed == 0 && !p.json {
		hint(c, "no events")
	}
	return nil
}

// follow goes on until ^C, which is how following is meant to end.
func follow(ctx context.Context, src *source, w *walker) error {
	err := src.daemon.Follow(ctx, w.chain.Last()+1, w.next)
	switch {
	case ctx.Err() != nil, errors.Is(err, errPassed):
		return nil
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the daemon ended, so that nothing more is recorded")
	default:
		return err
	}
}

// eventPrinter prints the events that the flags ask for.
type eventPrinter struct {
	eventsFlags
	out   *output
	rows  view.Rows
	table *view.Table
	// last are the newest events with --tail, which are printed when the end
	// is known.
	last    []eventLine
	live    bool
	printed int
}

// eventLine is an event as it is printed: as the record, where there is one.
type eventLine struct {
	row    view.Row
	record *view.Record
}

func newEventPrinter(f eventsFlags, out *output) *eventPrinter {
	return &eventPrinter{eventsFlags: f, out: out, table: view.NewTable(out, out.colour, view.RowHeader()...)}
}

// event takes in an event, whether it is to be printed or not.
func (p *eventPrinter) event(before *store.State, e *eventpb.Event) error {
	wanted, err := p.filter.wants(before, e)
	if err != nil {
		return err
	}
	if !wanted || e.GetSeq() < p.from {
		p.rows.Skip(before, e)
		return nil
	}
	l, err := p.line(before, e)
	if err != nil {
		return err
	}
	switch {
	case p.filter.failed && !l.row.Failed:
		return nil
	case p.tail < 0 || p.live:
		return p.print(l)
	}
	if p.last = append(p.last, l); len(p.last) > p.tail {
		p.last = p.last[1:]
	}
	return nil
}

func (p *eventPrinter) line(before *store.State, e *eventpb.Event) (eventLine, error) {
	l := eventLine{row: p.rows.Row(before, e, p.filter.sel)}
	if p.json {
		r, err := view.NewRecord(before, e)
		l.record = &r
		return l, err
	}
	return l, nil
}

func (p *eventPrinter) print(l eventLine) error {
	p.printed++
	if err := p.write(l); err != nil || !p.live {
		return err
	}
	return p.out.Flush()
}

func (p *eventPrinter) write(l eventLine) error {
	if l.record != nil {
		return p.out.line(l.record)
	}
	return p.table.Row(l.row.Failed, l.row.Cells(view.When(l.row.Time, p.out.now))...)
}

// caughtUp prints what was held back until the log's end was known. From then
// on every event is printed as it comes.
func (p *eventPrinter) caughtUp() error {
	for _, l := range p.last {
		if err := p.print(l); err != nil {
			return err
		}
	}
	p.last, p.live = nil, true
	if err := p.table.Live(); err != nil {
		return err
	}
	return p.out.Flush()
}
