package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
)

// Exit codes of verify, which scripts tell apart.
const (
	exitDamaged    = 1
	exitUnreadable = 2
)

func newVerify() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check the event log",
		Long: `Check every record of the event log: its checksum, the chain of hashes, that
none is missing but for those that stubs account for, that every outcome belongs
to an operation that was open, that the snapshots are what the events amount to,
and that the log reaches as far as it once did.

Exit codes: 0 sound, 1 damaged, 2 cannot read it (no file, no permission, no
usable configuration, written by a newer crimux), 64 wrong usage. A log of which
records were lost, and that was salvaged, counts as damaged until the retention
has passed.

Operations without an outcome are no damage: those of a running daemon are
under way, and those of one that was killed are recovered at its next start.

--json prints one object: sound, count, first, last (sequence numbers of the
sound records), compacted (events that were taken out), lost (events that were
lost to damage before), base (event from which on all are there, 0 where that is
the first), snapshots (how many were compared), head (hash of the last), open
[{seq, op, method, backend}], bad (first record that is not sound, 0 if there is none or it is not
known), damage (what is wrong with it, ""), broken [what is wrong with sound
records]. Where nothing can be read there is only the message.`,
		Example: `  crimux verify
  crimux verify --json | jq .head`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return verify(c, asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// verify checks the log and prints what it found.
func verify(c *cobra.Command, asJSON bool) error {
	var report store.Report
	err := reading(c, false, func(src *source, out *output) error {
		var err error
		if report, err = store.Verify(src); err != nil {
			return err
		}
		if asJSON {
			return out.line(newVerifyReport(&report))
		}
		return printReport(out, &report)
	})
	var code exitError
	switch {
	case errors.As(err, &code):
		return err
	case err != nil:
		fmt.Fprintf(c.ErrOrStderr(), "crimux: %v\n", err)
		return exitError{verifyCode(err)}
	case report.Damage != nil:
		return exitError{verifyCode(report.Damage)}
	case !report.Sound():
		return exitError{exitDamaged}
	}
	return nil
}

// verifyCode tells a damaged log from one that could not be looked at, such as
// one of a newer crimux.
func verifyCode(err error) int {
	if errors.Is(err, store.ErrDamaged) {
		return exitDamaged
	}
	return exitUnreadable
}

// verifyReport is a store.Report for programs.
type verifyReport struct {
	Sound bool   `json:"sound"`
	Count uint64 `json:"count"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Compacted, Lost, Base and Snapshots are those of store.Report.
	Compacted uint64 `json:"compacted"`
	Lost      uint64 `json:"lost"`
	Base      uint64 `json:"base"`
	Snapshots int    `json:"snapshots"`

	Head   string          `json:"head"`
	Open   []openOperation `json:"open"`
	Bad    uint64          `json:"bad"`
	Damage string          `json:"damage"`
	Broken []string        `json:"broken"`
}

type openOperation struct {
	Seq     uint64 `json:"seq"`
	Op      string `json:"op"`
	Method  string `json:"method"`
	Backend string `json:"backend"`
}

func newVerifyReport(r *store.Report) verifyReport {
	v := verifyReport{
		Sound: r.Sound(), Count: r.Count, First: r.First, Last: r.Last,
		Compacted: r.Compacted, Lost: r.Lost, Base: r.Base, Snapshots: r.Snapshots, Head: hex.EncodeToString(r.Head[:]),
		Open: []openOperation{}, Bad: r.Bad, Broken: []string{},
	}
	for _, op := range r.Open {
		v.Open = append(v.Open, openOperation{op.GetSeq(), op.GetOp(), op.GetIntent().GetMethod(), op.GetBackend()})
	}
	if r.Damage != nil {
		v.Damage = r.Damage.Error()
	}
	for _, err := range r.Broken {
		v.Broken = append(v.Broken, err.Error())
	}
	return v
}

// printReport prints what was found. The verdict comes first.
func printReport(out *output, r *store.Report) error {
	switch {
	case r.Damage != nil:
		fmt.Fprintf(out, "%s: %v\nbefore that: %s\n", verdict(r), r.Damage, reach(r))
	default:
		fmt.Fprintf(out, "%s: %s\n", verdict(r), reach(r))
	}
	if r.Lost > 0 {
		fmt.Fprintf(out, "  %d events were lost when the log was damaged before; a Salvaged event tells of it\n", r.Lost)
	}
	for _, err := range r.Broken {
		fmt.Fprintf(out, "  %v\n", err)
	}
	if len(r.Open) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\noperations without an outcome:\n")
	return view.WriteOperations(out, r.Open, time.Now(), out.colour)
}

func verdict(r *store.Report) string {
	switch {
	case r.Damage != nil && verifyCode(r.Damage) == exitUnreadable:
		return "cannot be read"
	case r.Sound():
		return "sound"
	default:
		return "damaged"
	}
}

// reach says how much of the log is sound.
func reach(r *store.Report) string {
	if r.Count == 0 {
		return "no events"
	}
	words := fmt.Sprintf("%d events, %d to %d, head %s", r.Count, r.First, r.Last, view.Short(hex.EncodeToString(r.Head[:])))
	if r.Compacted > 0 {
		words += fmt.Sprintf("; %d more were taken out, the last %d are all there", r.Compacted, r.Last-r.Base)
	}
	return words
}
