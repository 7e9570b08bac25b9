package store

import "github.com/crimux/crimux/store/eventpb"

// The clones are shallow: a published record never changes, so that two may
// share maps and messages. What a clone's user changes is a field of its own.

func cloneSandbox(r *eventpb.Sandbox) *eventpb.Sandbox {
	return &eventpb.Sandbox{
		Id:           r.GetId(),
		Backend:      r.GetBackend(),
		Pod:          r.GetPod(),
		State:        r.GetState(),
		CreatedAt:    r.GetCreatedAt(),
		Labels:       r.GetLabels(),
		Annotations:  r.GetAnnotations(),
		Route:        r.GetRoute(),
		LogDirectory: r.GetLogDirectory(),
		Op:           r.GetOp(),
		FirstSeq:     r.GetFirstSeq(),
		LastSeq:      r.GetLastSeq(),
	}
}

func cloneContainer(r *eventpb.Container) *eventpb.Container {
	return &eventpb.Container{
		Id:          r.GetId(),
		SandboxId:   r.GetSandboxId(),
		Backend:     r.GetBackend(),
		Name:        r.GetName(),
		Attempt:     r.GetAttempt(),
		Image:       r.GetImage(),
		ImageRef:    r.GetImageRef(),
		ImageId:     r.GetImageId(),
		State:       r.GetState(),
		CreatedAt:   r.GetCreatedAt(),
		StartedAt:   r.GetStartedAt(),
		FinishedAt:  r.GetFinishedAt(),
		ExitCode:    r.GetExitCode(),
		Reason:      r.GetReason(),
		Labels:      r.GetLabels(),
		Annotations: r.GetAnnotations(),
		LogPath:     r.GetLogPath(),
		Op:          r.GetOp(),
		FirstSeq:    r.GetFirstSeq(),
		LastSeq:     r.GetLastSeq(),
	}
}

func cloneOperation(r *eventpb.Operation) *eventpb.Operation {
	return &eventpb.Operation{
		Op:      r.GetOp(),
		Backend: r.GetBackend(),
		Seq:     r.GetSeq(),
		Time:    r.GetTime(),
		Intent:  r.GetIntent(),
		Steps:   r.GetSteps(),
	}
}

// either returns a, or b where a is nil.
func either[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// eitherMap returns a, or b where a is empty.
func eitherMap(a, b map[string]string) map[string]string {
	if len(a) > 0 {
		return a
	}
	return b
}
