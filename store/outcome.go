package store

import (
	"cmp"

	"github.com/crimux/crimux/store/eventpb"
)

// Methods whose outcome changes what is known.
const (
	methodRunPodSandbox    = "RunPodSandbox"
	methodStopPodSandbox   = "StopPodSandbox"
	methodRemovePodSandbox = "RemovePodSandbox"
	methodCreateContainer  = "CreateContainer"
	methodStartContainer   = "StartContainer"
	methodStopContainer    = "StopContainer"
	methodRemoveContainer  = "RemoveContainer"
)

// gRPC codes that an outcome may carry and that mean something to the fold.
const (
	codeOK       = 0
	codeNotFound = 5
)

// outcome closes the operation and does to the state what the operation did.
func (s *State) outcome(e *eventpb.Event, o *eventpb.Outcome) {
	if op := s.operations[e.GetOp()]; op != nil {
		s.dropOperation(op.GetOp())
		switch o.GetCode() {
		case codeOK:
			s.succeeded(e, op)
		case codeNotFound:
			s.notFound(op.GetIntent())
		}
		s.made(e, op, o)
	}
	if r := o.GetSandbox(); r != nil {
		s.observeSandbox(e, r)
	}
	if r := o.GetContainer(); r != nil {
		s.observeContainer(e, r)
	}
}

// made records the object that a create-type operation made: what it
// returned, or what recovery found of one that returned nothing.
func (s *State) made(e *eventpb.Event, op *eventpb.Operation, o *eventpb.Outcome) {
	id := ""
	if o.GetCode() == codeOK {
		id = o.GetId()
	}
	switch op.GetIntent().GetMethod() {
	case methodRunPodSandbox:
		if id = cmp.Or(o.GetSandbox().GetId(), id); id != "" {
			s.sandboxMade(e, op, id, o.GetCode() == codeOK)
		}
	case methodCreateContainer:
		if id = cmp.Or(o.GetContainer().GetId(), id); id != "" {
			s.containerMade(e, op, id)
		}
	}
}

// sandboxMade fills the sandbox from its intent. Where an observation came
// before the outcome, what it saw is kept, and where an earlier operation made
// the sandbox, that one stays its maker.
func (s *State) sandboxMade(e *eventpb.Event, op *eventpb.Operation, id string, ok bool) {
	i := op.GetIntent()
	n := &eventpb.Sandbox{Id: id, FirstSeq: e.GetSeq()}
	if old := s.sandboxes[id]; old != nil {
		n = cloneSandbox(old)
	}
	if n.GetState() == eventpb.SandboxState_SANDBOX_STATE_UNSPECIFIED {
		n.State = notReady
		if ok {
			n.State = ready
		}
	}
	if n.GetCreatedAt() == 0 {
		n.CreatedAt = e.GetTime()
	}
	n.LastSeq = e.GetSeq()
	if n.GetOp() == "" {
		n.Op, n.Backend = op.GetOp(), cmp.Or(op.GetBackend(), e.GetBackend(), n.GetBackend())
		n.Pod = either(i.GetPod(), n.GetPod())
		n.Route = either(i.GetRoute(), n.GetRoute())
		n.Labels = eitherMap(i.GetLabels(), n.GetLabels())
		n.Annotations = eitherMap(i.GetAnnotations(), n.GetAnnotations())
		n.LogDirectory = cmp.Or(i.GetLogDirectory(), n.GetLogDirectory())
	}
	s.putSandbox(n)
}

// containerMade is sandboxMade for a container.
func (s *State) containerMade(e *eventpb.Event, op *eventpb.Operation, id string) {
	i := op.GetIntent()
	n := &eventpb.Container{Id: id, FirstSeq: e.GetSeq()}
	if old := s.containers[id]; old != nil {
		n = cloneContainer(old)
	}
	if n.GetState() == eventpb.ContainerState_CONTAINER_STATE_UNSPECIFIED {
		n.State = created
	}
	if n.GetCreatedAt() == 0 {
		n.CreatedAt = e.GetTime()
	}
	n.LastSeq = e.GetSeq()
	if n.GetOp() == "" {
		n.Op, n.Backend = op.GetOp(), cmp.Or(op.GetBackend(), e.GetBackend(), n.GetBackend())
		n.SandboxId = cmp.Or(i.GetSandboxId(), n.GetSandboxId())
		n.Name = cmp.Or(i.GetContainerName(), n.GetName())
		n.Attempt = cmp.Or(i.GetContainerAttempt(), n.GetAttempt())
		n.Image = cmp.Or(i.GetImage(), n.GetImage())
		n.Labels = eitherMap(i.GetLabels(), n.GetLabels())
		n.Annotations = eitherMap(i.GetAnnotations(), n.GetAnnotations())
		n.LogPath = cmp.Or(i.GetLogPath(), n.GetLogPath())
	}
	s.putContainer(n)
}

// succeeded does what the operation did to objects that existed before it.
func (s *State) succeeded(e *eventpb.Event, op *eventpb.Operation) {
	i := op.GetIntent()
	switch i.GetMethod() {
	case methodStartContainer:
		if r := s.containers[i.GetContainerId()]; r != nil {
			s.containerStarted(e, op, r)
		}
	case methodStopContainer:
		if r := s.containers[i.GetContainerId()]; r != nil {
			s.containerStopped(e, r)
		}
	case methodStopPodSandbox:
		s.sandboxStopped(e, i.GetSandboxId())
	case methodRemoveContainer:
		s.dropContainer(i.GetContainerId())
	case methodRemovePodSandbox:
		s.dropSandbox(i.GetSandboxId())
	}
}

// containerStarted makes r RUNNING, unless it was seen to exit since the
// operation began: the outcome of a start may be recorded after the exit of a
// container that ended at once.
func (s *State) containerStarted(e *eventpb.Event, op *eventpb.Operation, r *eventpb.Container) {
	n := cloneContainer(r)
	n.LastSeq = e.GetSeq()
	switch r.GetState() {
	case running:
	case exited:
		if r.GetFinishedAt() == 0 || r.GetFinishedAt() >= op.GetTime() {
			return
		}
		n.State, n.StartedAt, n.FinishedAt, n.ExitCode, n.Reason = running, e.GetTime(), 0, 0, ""
	default:
		n.State = running
	}
	if n.GetStartedAt() == 0 {
		n.StartedAt = e.GetTime()
	}
	s.putContainer(n)
}

// containerStopped makes r EXITED where it ran. One that never ran is left as
// it is by a stop, on every runtime.
func (s *State) containerStopped(e *eventpb.Event, r *eventpb.Container) {
	if r.GetState() != created && r.GetState() != exited {
		s.exit(e, r)
	}
}

func (s *State) sandboxStopped(e *eventpb.Event, id string) {
	if r := s.sandboxes[id]; r != nil {
		s.stopSandbox(e, r)
	}
	for _, c := range s.containersBySandbox[id] {
		if c.GetState() == running {
			s.exit(e, c)
		}
	}
}

// notFound takes out what the backend says is not there.
func (s *State) notFound(i *eventpb.Intent) {
	switch i.GetMethod() {
	case methodStopContainer, methodRemoveContainer:
		s.dropContainer(i.GetContainerId())
	case methodStopPodSandbox, methodRemovePodSandbox:
		s.dropSandbox(i.GetSandboxId())
	}
}
