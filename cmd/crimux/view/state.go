package view

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/crimux/crimux/store/eventpb"
)

// StateJSON is a state for programs: protobuf's JSON form of it, without the
// data of steps.
func StateJSON(s *eventpb.State) ([]byte, error) {
	shown := &eventpb.State{
		Seq: s.GetSeq(), BootId: s.GetBootId(), Sandboxes: s.GetSandboxes(), Containers: s.GetContainers(),
		Backends: s.GetBackends(), Policy: s.GetPolicy(),
	}
	for _, op := range s.GetOperations() {
		o := &eventpb.Operation{
			Op: op.GetOp(), Backend: op.GetBackend(), Seq: op.GetSeq(), Time: op.GetTime(), Intent: op.GetIntent(),
		}
		for _, st := range op.GetSteps() {
			o.Steps = append(o.Steps, withoutData(st))
		}
		shown.Operations = append(shown.Operations, o)
	}
	return protojson.Marshal(shown)
}

// StateOptions say how a state is written.
type StateOptions struct {
	// Now is the time that ages count to.
	Now time.Time
	// Containers adds a row for each.
	Containers bool
	Colour     bool
}

// WriteState writes a state for people: pods, backends, open operations.
func WriteState(w io.Writer, s *eventpb.State, o StateOptions) error {
	v := stateView{w: w, s: s, o: o, inside: make(map[string][]*eventpb.Container), known: make(map[string]bool)}
	for _, sb := range s.GetSandboxes() {
		v.known[sb.GetId()] = true
	}
	for _, c := range s.GetContainers() {
		v.inside[c.GetSandboxId()] = append(v.inside[c.GetSandboxId()], c)
	}
	if err := v.writePods(); err != nil {
		return err
	}
	if err := v.writeBackends(); err != nil {
		return err
	}
	if len(s.GetOperations()) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return WriteOperations(w, s.GetOperations(), o.Now, o.Colour)
}

type stateView struct {
	w      io.Writer
	s      *eventpb.State
	o      StateOptions
	inside map[string][]*eventpb.Container // by sandbox
	known  map[string]bool                 // by sandbox
}

func (v *stateView) writePods() error {
	t := NewTable(v.w, v.o.Colour, "NAMESPACE", "NAME", "BACKEND", "HANDLER", "STATE", "CONTAINERS", "AGE", "ID")
	pods := slices.SortedFunc(slices.Values(v.s.GetSandboxes()), comparePods)
	if len(pods) == 0 {
		if _, err := fmt.Fprintln(v.w, "no pods"); err != nil {
			return err
		}
	}
	for _, sb := range pods {
		containers := v.inside[sb.GetId()]
		p := sb.GetPod()
		err := t.Row(false, orNone(p.GetNamespace()), orNone(p.GetName()), orNone(sb.GetBackend()), orNone(sb.GetRoute().GetHandler()),
			sandboxState(sb.GetState()), running(containers), ageAt(v.o.Now, sb.GetCreatedAt()), Short(sb.GetId()))
		if err != nil {
			return err
		}
		if err := v.writeContainers(t, containers); err != nil {
			return err
		}
	}
	// Containers whose sandbox is not known belong to no row above.
	for _, c := range v.s.GetContainers() {
		if v.known[c.GetSandboxId()] {
			continue
		}
		if err := v.writeContainers(t, []*eventpb.Container{c}); err != nil {
			return err
		}
	}
	return t.Flush()
}

func comparePods(a, b *eventpb.Sandbox) int {
	return cmp.Or(
		cmp.Compare(a.GetPod().GetNamespace(), b.GetPod().GetNamespace()),
		cmp.Compare(a.GetPod().GetName(), b.GetPod().GetName()),
		cmp.Compare(a.GetCreatedAt(), b.GetCreatedAt()),
		cmp.Compare(a.GetId(), b.GetId()),
	)
}

// running counts containers: those that run, and all.
func running(containers []*eventpb.Container) string {
	n := 0
	for _, c := range containers {
		if c.GetState() == eventpb.ContainerState_CONTAINER_STATE_RUNNING {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, len(containers))
}

// writeContainers writes the rows of a pod's containers below its own, where
// that was asked for.
func (v *stateView) writeContainers(t *Table, containers []*eventpb.Container) error {
	if !v.o.Containers {
		return nil
	}
	sorted := slices.SortedFunc(slices.Values(containers), func(a, b *eventpb.Container) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetAttempt(), b.GetAttempt()), cmp.Compare(a.GetId(), b.GetId()))
	})
	for _, c := range sorted {
		end := none
		if c.GetState() == eventpb.ContainerState_CONTAINER_STATE_EXITED {
			end = exitWords(c)
		}
		err := t.Row(false, "", "  "+containerName(c.GetName(), c.GetId(), c.GetAttempt()), orNone(c.GetBackend()), "",
			containerState(c.GetState()), end, ageAt(v.o.Now, c.GetCreatedAt()), Short(c.GetId()))
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *stateView) writeBackends() error {
	if len(v.s.GetBackends()) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(v.w); err != nil {
		return err
	}
	t := NewTable(v.w, v.o.Colour, "BACKEND", "SINCE", "HEALTH")
	for _, b := range v.s.GetBackends() {
		health := healthWords(&eventpb.Health{Up: b.GetUp(), Error: b.GetError()})
		if err := t.Row(!b.GetUp(), orNone(b.GetName()), When(time.Unix(0, b.GetSince()), v.o.Now), health); err != nil {
			return err
		}
	}
	return t.Flush()
}

// WriteOperations writes operations that have no outcome.
func WriteOperations(w io.Writer, ops []*eventpb.Operation, now time.Time, colour bool) error {
	t := NewTable(w, colour, "OPERATION", "POD", "BACKEND", "BEGAN", "SEQ", "ID")
	for _, op := range ops {
		err := t.Row(false, orNone(op.GetIntent().GetMethod()), podName(op.GetIntent().GetPod()), orNone(op.GetBackend()),
			When(time.Unix(0, op.GetTime()), now), fmt.Sprint(op.GetSeq()), clean(op.GetOp()))
		if err != nil {
			return err
		}
	}
	return t.Flush()
}
