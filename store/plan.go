package store

import (
	"math"

	"github.com/crimux/crimux/store/eventpb"
)

// plan is what of the events up to the cut is kept.
type plan struct {
	all  bool // but for what is damaged
	keep map[uint64]bool
	// repeats are, by the number of their outcome, the failures that are
	// counted instead of kept.
	repeats map[uint64]repeat
}

// repeat is a failure like one that is kept.
type repeat struct {
	op   string // that is kept
	time int64
}

// planner goes through the events up to the cut in order.
type planner struct {
	cut   *State
	since uint64            // the first event about a pod that is kept
	uids  map[string]bool   // pods that are kept
	ids   map[string]string // their sandboxes and containers, with their UID
	ops   map[string]*plannedOp
	first map[failure]string // the operation that failed first in that way
	size  map[uint64]int64   // of what is kept
	plan
}

// plannedOp is an operation that is kept and has no outcome yet.
type plannedOp struct {
	uid    string
	intent *eventpb.Intent
	seqs   []uint64
}

// failure is what makes two failures the same.
type failure struct {
	uid, method, object, message string
	code                         uint32
}

// plan decides what is kept of the events up to the cut: the stories of the
// pods that are in the state there, and what happened to the node meanwhile;
// of failures that are all the same the first in full. The oldest goes where
// it is too much.
func (l *Log) plan(cut start) (plan, error) {
	p := newPlanner(cut.state)
	err := l.file.records(0, cut.chain.Last(), func(r Record) error {
		if l.keeper.stopped() {
			return errStopped
		}
		if e, err := r.Event(); err == nil && r.Value[0] == recordVersion {
			p.next(e, recordSize(r))
		}
		return nil
	})
	if err != nil {
		return plan{}, err
	}
	if l.opts.MaxSize > 0 {
		p.fit(l.opts.MaxSize/100*keptShare, cut.chain.Last())
	}
	return p.plan, nil
}

func newPlanner(cut *State) *planner {
	p := &planner{
		cut: cut, since: math.MaxUint64,
		uids: map[string]bool{}, ids: map[string]string{}, ops: map[string]*plannedOp{},
		first: map[failure]string{}, size: map[uint64]int64{},
		plan: plan{keep: map[uint64]bool{}, repeats: map[uint64]repeat{}},
	}
	for r := range cut.Sandboxes() {
		uid := r.GetPod().GetUid()
		if uid == "" {
			continue
		}
		p.uids[uid], p.ids[r.GetId()] = true, uid
		p.since = min(p.since, r.GetFirstSeq())
		for c := range cut.ContainersIn(r.GetId()) {
			p.ids[c.GetId()] = uid
		}
	}
	for o := range cut.Operations() {
		if uid := o.GetIntent().GetPod().GetUid(); uid != "" {
			p.uids[uid] = true
		}
	}
	return p
}

func (p *planner) next(e *eventpb.Event, size int64) {
	seq := e.GetSeq()
	switch k := e.GetKind().(type) {
	case *eventpb.Event_Intent:
		uid := k.Intent.GetPod().GetUid()
		for _, id := range []string{k.Intent.GetSandboxId(), k.Intent.GetContainerId()} {
			if uid == "" {
				uid = p.ids[id]
			}
		}
		delete(p.ops, e.GetOp())
		if p.uids[uid] || p.cut.Operation(e.GetOp()).GetSeq() == seq {
			p.ops[e.GetOp()] = &plannedOp{uid: uid, intent: k.Intent, seqs: []uint64{seq}}
			p.kept(seq, size)
		}
	case *eventpb.Event_Step:
		if op := p.ops[e.GetOp()]; op != nil {
			op.seqs = append(op.seqs, seq)
			p.kept(seq, size)
		}
	case *eventpb.Event_Outcome:
		if op := p.ops[e.GetOp()]; op != nil {
			delete(p.ops, e.GetOp())
			p.kept(seq, size)
			p.outcome(e, k.Outcome, op)
		}
	case *eventpb.Event_Started, *eventpb.Event_Stopped, *eventpb.Event_Policy, *eventpb.Event_Health, *eventpb.Event_Salvaged:
		if seq >= p.since {
			p.kept(seq, size)
		}
	default:
		if p.uids[podOf(e, p.ids)] {
			p.kept(seq, size)
		}
	}
}

func (p *planner) kept(seq uint64, size int64) {
	p.keep[seq], p.size[seq] = true, size
}

// outcome learns what the operation made, or gives it up where it failed as
// another one did.
func (p *planner) outcome(e *eventpb.Event, o *eventpb.Outcome, op *plannedOp) {
	if o.GetCode() == codeOK {
		if id := o.GetId(); id != "" && op.uid != "" {
			p.ids[id] = op.uid
			p.since = min(p.since, op.seqs[0])
		}
		return
	}
	i := op.intent
	key := failure{op.uid, i.GetMethod(), i.GetContainerName() + "\x00" + i.GetContainerId() + "\x00" + i.GetImage(), o.GetMessage(), o.GetCode()}
	first, ok := p.first[key]
	if !ok || o.GetSandbox() != nil || o.GetContainer() != nil {
		p.first[key] = e.GetOp()
		return
	}
	for _, seq := range append(op.seqs, e.GetSeq()) {
		delete(p.keep, seq)
		delete(p.size, seq)
	}
	p.repeats[e.GetSeq()] = repeat{op: first, time: e.GetTime()}
}

// fit gives up the oldest events until what is kept is no more than most.
func (p *planner) fit(most int64, last uint64) {
	total := int64(0)
	for _, n := range p.size {
		total += n
	}
	if total <= most {
		return
	}
	for seq := uint64(1); seq <= last && total > most; seq++ {
		if p.keep[seq] {
			total -= p.size[seq]
			delete(p.keep, seq)
		}
	}
}
