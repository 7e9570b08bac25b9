package view

import (
	"cmp"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// object is a sandbox or container that an event is about, and its pod, as
// far as they are known.
type object struct {
	pod                    *eventpb.PodKey
	sandboxID, containerID string
	// container is the container's name, attempt which of that name it is.
	container string
	attempt   uint32
	// What was observed, if anything was: the object as it is now, or that
	// it is gone.
	sandbox *eventpb.Sandbox
	ctr     *eventpb.Container
	gone    bool
	// forgotten is set where the operator gave it up.
	forgotten bool
}

// objectsOf returns what an event is about: nothing, one object, or for an
// observation any number. before is the state before the event.
func objectsOf(before *store.State, e *eventpb.Event) []object {
	switch k := e.GetKind().(type) {
	case *eventpb.Event_Intent:
		return []object{ofIntent(before, k.Intent)}
	case *eventpb.Event_Step:
		if op := before.Operation(e.GetOp()); op != nil {
			return []object{ofIntent(before, op.GetIntent())}
		}
	case *eventpb.Event_Outcome:
		if op := before.Operation(e.GetOp()); op != nil {
			return []object{ofOutcome(before, op.GetIntent(), k.Outcome)}
		}
	case *eventpb.Event_Observed:
		return ofObserved(before, k.Observed)
	case *eventpb.Event_Called:
		return []object{byID(before, k.Called.GetSandboxId(), k.Called.GetContainerId())}
	case *eventpb.Event_Probed:
		return []object{byID(before, "", k.Probed.GetContainerId())}
	case *eventpb.Event_Noticed:
		return []object{byID(before, k.Noticed.GetSandboxId(), k.Noticed.GetContainerId())}
	case *eventpb.Event_Forgotten:
		return ofForgotten(before, k.Forgotten)
	}
	return nil
}

// byID returns what the state knows of these ids.
func byID(s *store.State, sandboxID, containerID string) object {
	c := s.Container(containerID)
	o := object{
		sandboxID:   cmp.Or(sandboxID, c.GetSandboxId()),
		containerID: containerID,
		container:   c.GetName(),
		attempt:     c.GetAttempt(),
	}
	o.pod = s.Sandbox(o.sandboxID).GetPod()
	return o
}

func ofIntent(before *store.State, i *eventpb.Intent) object {
	o := byID(before, i.GetSandboxId(), i.GetContainerId())
	if i.GetPod() != nil {
		o.pod = i.GetPod()
	}
	if i.GetContainerName() != "" {
		o.container, o.attempt = i.GetContainerName(), i.GetContainerAttempt()
	}
	return o
}

// Methods of which more is told than of others.
const (
	runPodSandbox   = "RunPodSandbox"
	createContainer = "CreateContainer"
	startContainer  = "StartContainer"

	stopContainer    = "StopContainer"
	stopPodSandbox   = "StopPodSandbox"
	removePodSandbox = "RemovePodSandbox"
)

func ofOutcome(before *store.State, i *eventpb.Intent, out *eventpb.Outcome) object {
	o := ofIntent(before, i)
	switch i.GetMethod() {
	case runPodSandbox:
		o.sandboxID = cmp.Or(out.GetSandbox().GetId(), out.GetId())
	case createContainer:
		o.containerID = cmp.Or(out.GetContainer().GetId(), out.GetId())
	}
	return o
}

func ofObserved(before *store.State, obs *eventpb.Observed) []object {
	var all []object
	pods := make(map[string]*eventpb.PodKey)
	for _, r := range obs.GetSandboxes() {
		o := byID(before, r.GetId(), "")
		if r.GetPod() != nil {
			o.pod = r.GetPod()
		}
		o.sandbox = r
		pods[r.GetId()] = o.pod
		all = append(all, o)
	}
	for _, r := range obs.GetContainers() {
		o := byID(before, r.GetSandboxId(), r.GetId())
		if pod := pods[o.sandboxID]; pod != nil {
			o.pod = pod
		}
		if r.GetName() != "" {
			o.container, o.attempt = r.GetName(), r.GetAttempt()
		}
		o.ctr = r
		all = append(all, o)
	}
	for _, id := range obs.GetGoneContainers() {
		o := byID(before, "", id)
		o.gone = true
		all = append(all, o)
	}
	for _, id := range obs.GetGoneSandboxes() {
		o := byID(before, id, "")
		o.gone = true
		all = append(all, o)
	}
	return all
}

// ofForgotten are the sandboxes that were given up.
func ofForgotten(before *store.State, f *eventpb.Forgotten) []object {
	var all []object
	for _, id := range f.GetSandboxIds() {
		o := byID(before, id, "")
		o.forgotten = true
		all = append(all, o)
	}
	return all
}

// name says which object it is, in words.
func (o object) name() string {
	switch {
	case o.containerID != "" || o.container != "":
		return "container " + containerName(o.container, o.containerID, o.attempt)
	case o.sandboxID != "":
		return "sandbox " + Short(o.sandboxID)
	default:
		return ""
	}
}

// change says what an observation tells that was not known, "" where people
// learn nothing from it.
func (o object) change(before *store.State) string {
	switch {
	case o.gone:
		return o.name() + " is gone"
	case o.sandbox != nil:
		return o.sandboxChange(before.Sandbox(o.sandboxID))
	case o.ctr != nil:
		return o.containerChange(before.Container(o.containerID))
	default:
		return ""
	}
}

func (o object) sandboxChange(old *eventpb.Sandbox) string {
	now := sandboxState(o.sandbox.GetState())
	switch {
	case old == nil:
		return o.name() + " " + now + ", found"
	case old.GetState() != o.sandbox.GetState():
		return o.name() + " " + sandboxState(old.GetState()) + " → " + now
	default:
		return ""
	}
}

func (o object) containerChange(old *eventpb.Container) string {
	now := containerState(o.ctr.GetState())
	ended := o.ctr.GetState() == eventpb.ContainerState_CONTAINER_STATE_EXITED
	words := o.name() + " "
	switch {
	case old == nil:
		words += now + ", found"
	case old.GetState() != o.ctr.GetState():
		words += containerState(old.GetState()) + " → " + now
	case ended && (old.GetReason() != o.ctr.GetReason() || old.GetExitCode() != o.ctr.GetExitCode()):
		return words + exitWords(o.ctr)
	default:
		return ""
	}
	if ended {
		words += ", " + exitWords(o.ctr)
	}
	return words
}

// failed tells whether an observation is of a container that ended badly by
// itself: one that was stopped, or is just being, mostly has an exit code of
// its signal.
func (o object) failed(before *store.State) bool {
	if o.ctr.GetExitCode() == 0 || before.Container(o.containerID).GetState() == eventpb.ContainerState_CONTAINER_STATE_EXITED {
		return false
	}
	for op := range before.OperationsOf(o.ctr.GetBackend()) {
		i := op.GetIntent()
		if i.GetMethod() == stopContainer && i.GetContainerId() == o.containerID ||
			i.GetMethod() == stopPodSandbox && i.GetSandboxId() == o.sandboxID {
			return false
		}
	}
	return true
}
