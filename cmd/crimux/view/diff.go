package view

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

// Diff is what changed between two states.
type Diff struct {
	// From and To are the events that the states are the folds up to.
	From DiffPoint `json:"from"`
	To   DiffPoint `json:"to"`
	// Pods are those of which anything changed, by namespace and name.
	Pods []PodDiff `json:"pods"`
	// Backends came, went, or were forgotten.
	Backends []BackendDiff `json:"backends"`
	// Policy says how the placement policy changed, in words; "" if it did not.
	Policy string `json:"policy,omitempty"`
	// Rebooted is set where the node was started anew between them.
	Rebooted bool `json:"rebooted,omitempty"`
	// Began are the operations that have no outcome at the end and had not
	// begun at the beginning.
	Began []OperationDiff `json:"began"`
}

// DiffPoint is an event that a state is the fold up to.
type DiffPoint struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
}

// PodDiff is what changed of one pod.
type PodDiff struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Change is appeared, gone, moved (to another backend), or changed.
	Change string `json:"change"`
	// From and To are the backends of its newest sandbox, "" where it has none.
	From    string       `json:"from,omitempty"`
	To      string       `json:"to,omitempty"`
	Objects []ObjectDiff `json:"objects"`
}

// ObjectDiff is what changed of a sandbox or container.
type ObjectDiff struct {
	// Kind is sandbox or container.
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"`
	Attempt uint32 `json:"attempt,omitempty"`
	Backend string `json:"backend"`
	// From and To are its states, "" where it was not there.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Exit says how a container ended, in words.
	Exit   string `json:"exit,omitempty"`
	failed bool
}

// BackendDiff is what changed of a backend: up, down, or "" where it is not
// known.
type BackendDiff struct {
	Name  string `json:"name"`
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
	Error string `json:"error,omitempty"`
}

// OperationDiff is an operation that is under way.
type OperationDiff struct {
	Seq     uint64 `json:"seq"`
	Op      string `json:"op"`
	Method  string `json:"method"`
	Backend string `json:"backend"`
	Pod     string `json:"pod,omitempty"`
}

// DiffHelp documents Diff for the commands' help.
const DiffHelp = `  from, to     {seq, time}, the last events of the two states
  pods         [{namespace, name, uid, change, from, to, objects}]: change is
               appeared, gone, moved or changed; from and to are backends;
               objects are [{kind, id, name, attempt, backend, from, to, exit}]
               with their states, which are left out where there was nothing
  backends     [{name, from, to, error}], up or down
  policy       how the placement policy changed, in words
  rebooted     true where the node was started anew
  began        [{seq, op, method, backend, pod}], new and without an outcome`

// The changes of a pod.
const (
	appeared = "appeared"
	gone     = "gone"
	moved    = "moved"
	changed  = "changed"
)

// NewDiff compares two states of one log, a before b.
func NewDiff(a, b *eventpb.State) *Diff {
	d := &Diff{
		From: DiffPoint{Seq: a.GetSeq()}, To: DiffPoint{Seq: b.GetSeq()},
		Pods: podDiffs(a, b), Backends: backendDiffs(a, b), Policy: policyDiff(a.GetPolicy(), b.GetPolicy()),
		Rebooted: a.GetBootId() != "" && a.GetBootId() != b.GetBootId(), Began: []OperationDiff{},
	}
	for _, op := range b.GetOperations() {
		if op.GetSeq() <= a.GetSeq() {
			continue
		}
		o := OperationDiff{op.GetSeq(), op.GetOp(), op.GetIntent().GetMethod(), op.GetBackend(), ""}
		if p := op.GetIntent().GetPod(); p != nil {
			o.Pod = p.GetNamespace() + "/" + p.GetName()
		}
		d.Began = append(d.Began, o)
	}
	slices.SortFunc(d.Began, func(x, y OperationDiff) int { return cmp.Compare(x.Seq, y.Seq) })
	return d
}

// Empty tells whether nothing changed.
func (d *Diff) Empty() bool {
	return len(d.Pods)+len(d.Backends)+len(d.Began) == 0 && d.Policy == "" && !d.Rebooted
}

// podState is what a state has of one pod.
type podState struct {
	key *eventpb.PodKey
	// sandboxes and containers are by id.
	sandboxes  map[string]*eventpb.Sandbox
	containers map[string]*eventpb.Container
}

func podsIn(s *eventpb.State) map[podKey]*podState {
	pods := make(map[podKey]*podState)
	bySandbox := make(map[string]*podState)
	of := func(k *eventpb.PodKey) *podState {
		p := pods[keyOf(k)]
		if p == nil {
			p = &podState{k, make(map[string]*eventpb.Sandbox), make(map[string]*eventpb.Container)}
			pods[keyOf(k)] = p
		}
		return p
	}
	for _, sb := range s.GetSandboxes() {
		p := of(sb.GetPod())
		p.sandboxes[sb.GetId()], bySandbox[sb.GetId()] = sb, p
	}
	for _, c := range s.GetContainers() {
		p := bySandbox[c.GetSandboxId()]
		if p == nil {
			p = of(nil) // Its sandbox is not known.
		}
		p.containers[c.GetId()] = c
	}
	return pods
}

// newest returns the sandbox that came last, nil where there is none.
func (p *podState) newest() *eventpb.Sandbox {
	var newest *eventpb.Sandbox
	if p == nil {
		return nil
	}
	for _, sb := range p.sandboxes {
		if newest == nil || cmp.Or(cmp.Compare(sb.GetFirstSeq(), newest.GetFirstSeq()), cmp.Compare(sb.GetId(), newest.GetId())) > 0 {
			newest = sb
		}
	}
	return newest
}

func podDiffs(a, b *eventpb.State) []PodDiff {
	before, after := podsIn(a), podsIn(b)
	keys := make(map[podKey]*eventpb.PodKey)
	for k, p := range before {
		keys[k] = p.key
	}
	for k, p := range after {
		keys[k] = p.key
	}
	diffs := []PodDiff{}
	for k, pod := range keys {
		d := PodDiff{Namespace: pod.GetNamespace(), Name: pod.GetName(), UID: pod.GetUid()}
		d.Objects = objectDiffs(before[k], after[k])
		if len(d.Objects) == 0 {
			continue
		}
		d.From, d.To = before[k].newest().GetBackend(), after[k].newest().GetBackend()
		d.Change = changeOf(before[k], after[k], d.From, d.To)
		diffs = append(diffs, d)
	}
	slices.SortFunc(diffs, func(x, y PodDiff) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name), cmp.Compare(x.UID, y.UID))
	})
	return diffs
}

func changeOf(before, after *podState, from, to string) string {
	switch {
	case before == nil:
		return appeared
	case after == nil:
		return gone
	case from != to && from != "" && to != "":
		return moved
	default:
		return changed
	}
}

// objectDiffs compares the sandboxes and containers of a pod, either of whose
// states may be nil.
func objectDiffs(before, after *podState) []ObjectDiff {
	if before == nil {
		before = &podState{}
	}
	if after == nil {
		after = &podState{}
	}
	diffs := []ObjectDiff{}
	for _, id := range allKeys(before.sandboxes, after.sandboxes) {
		a, b := before.sandboxes[id], after.sandboxes[id]
		one := cmp.Or(b, a)
		o := ObjectDiff{Kind: "sandbox", ID: id, Attempt: one.GetPod().GetAttempt(), Backend: one.GetBackend()}
		if a != nil {
			o.From = sandboxState(a.GetState())
		}
		if b != nil {
			o.To = sandboxState(b.GetState())
		}
		if o.From != o.To {
			diffs = append(diffs, o)
		}
	}
	for _, id := range allKeys(before.containers, after.containers) {
		if o, ok := containerDiff(id, before.containers[id], after.containers[id]); ok {
			diffs = append(diffs, o)
		}
	}
	return diffs
}

func containerDiff(id string, a, b *eventpb.Container) (ObjectDiff, bool) {
	one := cmp.Or(b, a)
	o := ObjectDiff{Kind: "container", ID: id, Name: one.GetName(), Attempt: one.GetAttempt(), Backend: one.GetBackend()}
	if a != nil {
		o.From = containerState(a.GetState())
	}
	if b != nil {
		o.To = containerState(b.GetState())
	}
	if b.GetState() == eventpb.ContainerState_CONTAINER_STATE_EXITED {
		o.Exit, o.failed = exitWords(b), b.GetExitCode() != 0
	}
	// A container that was started anew has another time of its start.
	again := o.From == o.To && a.GetStartedAt() != b.GetStartedAt() && a.GetStartedAt() != 0
	known := o.From == o.To && o.Exit != "" && exitWords(a) != o.Exit
	return o, o.From != o.To || again || known
}

// allKeys returns the keys of both maps in the order of what came first.
func allKeys[T interface{ GetFirstSeq() uint64 }](a, b map[string]T) []string {
	var ids []string
	first := make(map[string]uint64)
	for _, m := range []map[string]T{a, b} {
		for id, r := range m {
			if _, known := first[id]; !known {
				ids = append(ids, id)
			}
			first[id] = r.GetFirstSeq()
		}
	}
	slices.SortFunc(ids, func(x, y string) int { return cmp.Or(cmp.Compare(first[x], first[y]), cmp.Compare(x, y)) })
	return ids
}

func backendDiffs(a, b *eventpb.State) []BackendDiff {
	health := func(s *eventpb.State) map[string]*eventpb.Backend {
		m := make(map[string]*eventpb.Backend)
		for _, x := range s.GetBackends() {
			m[x.GetName()] = x
		}
		return m
	}
	before, after := health(a), health(b)
	diffs := []BackendDiff{}
	for name, x := range after {
		if old := before[name]; old == nil || old.GetUp() != x.GetUp() || old.GetError() != x.GetError() {
			diffs = append(diffs, BackendDiff{name, upDown(old), upDown(x), x.GetError()})
		}
	}
	for name, old := range before {
		if after[name] == nil {
			diffs = append(diffs, BackendDiff{Name: name, From: upDown(old)})
		}
	}
	slices.SortFunc(diffs, func(x, y BackendDiff) int { return cmp.Compare(x.Name, y.Name) })
	return diffs
}

func upDown(b *eventpb.Backend) string {
	switch {
	case b == nil:
		return ""
	case b.GetUp():
		return "up"
	default:
		return "down"
	}
}

func policyDiff(a, b *eventpb.Policy) string {
	if proto.Equal(a, b) {
		return ""
	}
	if a == nil {
		return policyWords(b)
	}
	return fmt.Sprintf("%s → %s", policyWords(a), policyWords(b))
}
