package store

import (
	"cmp"

	"github.com/crimux/crimux/store/eventpb"
)

// observed takes over what was seen on a backend.
func (s *State) observed(e *eventpb.Event, o *eventpb.Observed) {
	for _, r := range o.GetSandboxes() {
		s.observeSandbox(e, r)
	}
	for _, r := range o.GetContainers() {
		s.observeContainer(e, r)
	}
	for _, id := range o.GetGoneContainers() {
		s.dropContainer(id)
	}
	for _, id := range o.GetGoneSandboxes() {
		s.dropSandbox(id)
	}
}

// observeSandbox merges r into what is known: what r does not say is kept.
func (s *State) observeSandbox(e *eventpb.Event, r *eventpb.Sandbox) {
	if r.GetId() == "" {
		return
	}
	old := s.sandboxes[r.GetId()]
	s.putSandbox(&eventpb.Sandbox{
		Id:          r.GetId(),
		Backend:     cmp.Or(r.GetBackend(), old.GetBackend(), e.GetBackend()),
		Pod:         either(r.GetPod(), old.GetPod()),
		State:       cmp.Or(r.GetState(), old.GetState()),
		CreatedAt:   cmp.Or(r.GetCreatedAt(), old.GetCreatedAt()),
		Labels:      eitherMap(r.GetLabels(), old.GetLabels()),
		Annotations: eitherMap(r.GetAnnotations(), old.GetAnnotations()),
		// An observer knows only the handler that the backend was told, not
		// the one that the kubelet asked for.
		Route:        either(old.GetRoute(), r.GetRoute()),
		LogDirectory: cmp.Or(old.GetLogDirectory(), r.GetLogDirectory()),
		Op:           cmp.Or(old.GetOp(), r.GetOp()),
		FirstSeq:     cmp.Or(old.GetFirstSeq(), e.GetSeq()),
		LastSeq:      e.GetSeq(),
	})
}

// observeContainer merges r into what is known: what r does not say is kept.
func (s *State) observeContainer(e *eventpb.Event, r *eventpb.Container) {
	if r.GetId() == "" {
		return
	}
	old := s.containers[r.GetId()]
	n := &eventpb.Container{
		Id:          r.GetId(),
		SandboxId:   cmp.Or(r.GetSandboxId(), old.GetSandboxId()),
		Backend:     cmp.Or(r.GetBackend(), old.GetBackend(), e.GetBackend()),
		Name:        cmp.Or(r.GetName(), old.GetName()),
		Attempt:     cmp.Or(r.GetAttempt(), old.GetAttempt()),
		Image:       cmp.Or(r.GetImage(), old.GetImage()),
		ImageRef:    cmp.Or(r.GetImageRef(), old.GetImageRef()),
		ImageId:     cmp.Or(r.GetImageId(), old.GetImageId()),
		CreatedAt:   cmp.Or(r.GetCreatedAt(), old.GetCreatedAt()),
		Labels:      eitherMap(r.GetLabels(), old.GetLabels()),
		Annotations: eitherMap(r.GetAnnotations(), old.GetAnnotations()),
		LogPath:     cmp.Or(old.GetLogPath(), r.GetLogPath()),
		Op:          cmp.Or(old.GetOp(), r.GetOp()),
		FirstSeq:    cmp.Or(old.GetFirstSeq(), e.GetSeq()),
		LastSeq:     e.GetSeq(),
	}
	life(n, old, r)
	s.putContainer(n)
}

// life sets the state of n and what goes with it, out of what was known and
// what was seen. A container is created, runs and exits, in that order: what
// was seen before the last of these and arrives after it changes nothing,
// unless the container was started anew.
func life(n, old, seen *eventpb.Container) {
	from := seen
	if seen.GetState() == eventpb.ContainerState_CONTAINER_STATE_UNSPECIFIED || outdated(old, seen) {
		from = old
	}
	n.State = from.GetState()
	n.StartedAt = cmp.Or(from.GetStartedAt(), old.GetStartedAt(), seen.GetStartedAt())
	if n.GetState() == exited {
		n.FinishedAt = cmp.Or(from.GetFinishedAt(), old.GetFinishedAt(), seen.GetFinishedAt())
		n.ExitCode, n.Reason = from.GetExitCode(), from.GetReason()
	}
}

// outdated tells whether seen is from an earlier time of the container's life
// than old, or knows less of it.
func outdated(old, seen *eventpb.Container) bool {
	switch seen.GetState() {
	case created:
		return old.GetState() == running || old.GetState() == exited || old.GetStartedAt() != 0
	case running:
		return old.GetState() == exited && seen.GetStartedAt() <= old.GetStartedAt()
	case unknown:
		return old.GetState() == exited
	}
	return false
}
