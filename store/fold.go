package store

import (
	"fmt"
	"iter"

	"github.com/crimux/crimux/store/eventpb"
)

const (
	ready    = eventpb.SandboxState_SANDBOX_STATE_READY
	notReady = eventpb.SandboxState_SANDBOX_STATE_NOTREADY

	created = eventpb.ContainerState_CONTAINER_STATE_CREATED
	running = eventpb.ContainerState_CONTAINER_STATE_RUNNING
	exited  = eventpb.ContainerState_CONTAINER_STATE_EXITED
	unknown = eventpb.ContainerState_CONTAINER_STATE_UNKNOWN
)

// What the state says of containers that a reboot of the node ended.
const (
	rebootReason   = "NodeRebooted"
	rebootExitCode = 255
)

// foldVersion rises when the same events amount to another state than before,
// so that no snapshot of an older fold stands in for the events.
const foldVersion = 1

// Fold applies all events to a new state. The first error, be it of events or
// of the fold, ends it.
func Fold(events iter.Seq2[*eventpb.Event, error]) (*State, error) {
	s := NewState()
	for e, err := range events {
		if err != nil {
			return nil, err
		}
		if err := s.Apply(e); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Apply folds one event into the state, in time proportional to the event
// (and, for the first start after a reboot, to the state). It is the only way
// that a state changes, and it depends on nothing but state and event. The
// state keeps parts of e, which must not be changed afterwards.
//
// Events must come in the order of their sequence numbers. An event that needs
// a newer reader is ErrNewer, and an intent whose operation is open already is
// ErrRefused; the state is then as before. Steps and outcomes of operations
// that are not open, intents without one and events of an unknown kind have no
// effect, but for what an outcome says was found.
//
// A Compacted in place of events makes the state [State.Partial]. A Snapshot
// ends that: the state becomes the one in it. Where the state is not partial,
// a snapshot that is not equal to it is ErrRefused.
func (s *State) Apply(e *eventpb.Event) error {
	if snap := e.GetSnapshot(); snap != nil {
		return s.meet(e, snap)
	}
	if e.GetSeq() <= s.seq {
		return fmt.Errorf("event %d: %w: the state is at event %d", e.GetSeq(), ErrRefused, s.seq)
	}
	if e.GetMinReader() > Schema {
		return fmt.Errorf("event %d: %w: it needs schema %d, known is %d", e.GetSeq(), ErrNewer, e.GetMinReader(), Schema)
	}
	if e.GetIntent() != nil && s.operations[e.GetOp()] != nil && !s.partial {
		return fmt.Errorf("event %d: %w: operation %s is open already", e.GetSeq(), ErrRefused, e.GetOp())
	}
	s.apply(e)
	return nil
}

// apply is Apply after its checks.
func (s *State) apply(e *eventpb.Event) {
	s.seq = e.GetSeq()
	switch k := e.GetKind().(type) {
	case *eventpb.Event_Started:
		s.started(e, k.Started)
	case *eventpb.Event_Intent:
		s.intent(e, k.Intent)
	case *eventpb.Event_Step:
		s.step(e, k.Step)
	case *eventpb.Event_Outcome:
		s.outcome(e, k.Outcome)
	case *eventpb.Event_Observed:
		s.observed(e, k.Observed)
	case *eventpb.Event_Health:
		s.health(e, k.Health)
	case *eventpb.Event_Policy:
		s.policy = k.Policy
	case *eventpb.Event_Forgotten:
		s.forgotten(e, k.Forgotten)
	case *eventpb.Event_Compacted:
		s.partial = true
	}
}

// started ends all that cannot have outlived a reboot. What is left is what
// was last known: a later observation corrects it.
func (s *State) started(e *eventpb.Event, started *eventpb.Started) {
	boot := started.GetBootId()
	if boot == "" || boot == s.bootID {
		return
	}
	rebooted := s.bootID != ""
	s.bootID = boot
	if !rebooted {
		return
	}
	for _, r := range s.sandboxes {
		s.stopSandbox(e, r)
	}
	for _, r := range s.containers {
		if r.GetState() == running {
			n := s.exit(e, r)
			n.Reason, n.ExitCode = rebootReason, rebootExitCode
		}
	}
}

func (s *State) intent(e *eventpb.Event, i *eventpb.Intent) {
	if e.GetOp() == "" {
		return
	}
	s.putOperation(&eventpb.Operation{
		Op: e.GetOp(), Backend: e.GetBackend(), Seq: e.GetSeq(), Time: e.GetTime(), Intent: i,
	})
}

func (s *State) step(e *eventpb.Event, step *eventpb.Step) {
	old := s.operations[e.GetOp()]
	if old == nil {
		return
	}
	n := cloneOperation(old)
	// Published operations that share the array end before the new element.
	n.Steps = append(n.GetSteps(), step)
	s.putOperation(n)
}

func (s *State) health(e *eventpb.Event, h *eventpb.Health) {
	name := e.GetBackend()
	old := s.backends[name]
	if name == "" || old != nil && old.GetUp() == h.GetUp() && old.GetError() == h.GetError() {
		return
	}
	s.backends[name] = &eventpb.Backend{Name: name, Up: h.GetUp(), Error: h.GetError(), Since: e.GetTime()}
}

// stopSandbox makes r NOTREADY.
func (s *State) stopSandbox(e *eventpb.Event, r *eventpb.Sandbox) {
	if r.GetState() == notReady {
		return
	}
	n := cloneSandbox(r)
	n.State, n.LastSeq = notReady, e.GetSeq()
	s.putSandbox(n)
}

// exit makes r EXITED and returns the record that it put in place of r, which
// the caller may still complete. The exit code is not known to it.
func (s *State) exit(e *eventpb.Event, r *eventpb.Container) *eventpb.Container {
	n := cloneContainer(r)
	if r.GetState() == running {
		n.FinishedAt = e.GetTime()
	}
	n.State, n.LastSeq = exited, e.GetSeq()
	s.putContainer(n)
	return n
}
