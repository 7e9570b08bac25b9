package store

import (
	"errors"
	"fmt"

	"github.com/crimux/crimux/store/eventpb"
)

// Source is where records come from: a [Log], a [Reader], or a daemon's admin
// socket.
type Source interface {
	// Records calls fn for each record from sequence number from on, in
	// order, and returns the first error of fn or of reading.
	Records(from uint64, fn func(Record) error) error
}

// Report is what [Verify] found.
type Report struct {
	// Count, First and Last are of the events that are there and sound; all 0
	// in an empty log.
	Count, First, Last uint64
	// Compacted is how many events were taken out and are accounted for, and
	// Lost how many are not there because the log was damaged once and was
	// salvaged; Base is the event from which on all are there, and the state
	// can be told, where that is not the first.
	Compacted, Lost, Base uint64
	// Snapshots is how many were compared with the fold of the events. The
	// first one after events that were taken out has nothing to compare with.
	Snapshots int
	// Head is the hash of the last sound record.
	Head [32]byte
	// Open are the operations without an outcome. In the log of a daemon
	// that runs, or was killed, they are no fault.
	Open []*eventpb.Operation
	// Bad is the first record that is not sound, 0 if there is none or it
	// cannot be told which, and Damage says what is wrong: ErrDamaged or
	// ErrNewer. Nothing is known of what follows.
	Bad    uint64
	Damage error
	// Broken are the promises about operations that sound records break,
	// such as two outcomes of one; at most maxBroken of them.
	Broken []error
}

// maxBroken bounds what a report holds of a log that is wrong throughout.
const maxBroken = 100

// Sound tells whether nothing at all was found. A log that was salvaged is not
// sound while the gap is in it.
func (r *Report) Sound() bool { return r.Damage == nil && len(r.Broken) == 0 && r.Lost == 0 }

// Verify reads all records of src, verifies their chain and folds them. The
// error is that of reading: the report is then of what could be read. Damage
// is in the report, not in the error.
func Verify(src Source) (Report, error) {
	v := verifier{state: NewState()}
	err := src.Records(0, v.next)
	r := v.report
	r.Last, r.Head = v.chain.Last(), v.chain.Head()
	r.Open = v.state.Proto().GetOperations()
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrNewer) {
		r.Bad, r.Damage = v.bad, err
		return r, nil
	}
	return r, err
}

type verifier struct {
	chain  Chain
	state  *State
	report Report
	bad    uint64
}

func (v *verifier) next(r Record) error {
	e, err := v.chain.Next(r)
	if err != nil {
		v.bad = r.Seq
		return err
	}
	v.promises(e)
	partial := v.state.Partial()
	if err := refold(v.state, e); err != nil {
		v.bad = r.Seq
		return err
	}
	switch {
	case e.GetSnapshot() != nil && partial:
		v.report.Base = r.Seq
	case e.GetSnapshot() != nil:
		v.report.Snapshots++
	case e.GetCompacted() != nil:
		v.report.Compacted += e.GetCompacted().GetCount() - e.GetCompacted().GetLost()
		v.report.Lost += e.GetCompacted().GetLost()
	default:
		if v.report.Count++; v.report.First == 0 {
			v.report.First = r.Seq
		}
	}
	return nil
}

// promises checks what the writer should have refused.
func (v *verifier) promises(e *eventpb.Event) {
	if e.GetOutcome() == nil || v.state.Partial() || v.state.Operation(e.GetOp()) != nil || len(v.report.Broken) == maxBroken {
		return
	}
	v.report.Broken = append(v.report.Broken, fmt.Errorf(
		"record %d: an outcome of operation %s, which is not open: it has no intent, or a second outcome", e.GetSeq(), e.GetOp()))
}
