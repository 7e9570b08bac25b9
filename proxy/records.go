package proxy

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store/eventpb"
)

// sandboxRecord is what the log keeps of a PodSandbox that a backend lists.
func (s *Server) sandboxRecord(backend string, item wire.Message) *eventpb.Sandbox {
	return &eventpb.Sandbox{
		Id:          valid(item.String(1)),
		Backend:     backend,
		Pod:         keyOf(item.Msg(2)),
		State:       sandboxState(item.Int(3)),
		CreatedAt:   item.Int(4),
		Labels:      text(item.Map(5)),
		Annotations: s.annotations(item.Map(6)),
		Route:       &eventpb.Route{Handler: valid(item.String(7)), Backend: backend, BackendHandler: valid(item.String(7))},
	}
}

// keyOf is a PodSandboxMetadata as the log has it.
func keyOf(meta wire.Message) *eventpb.PodKey {
	return &eventpb.PodKey{
		Name: valid(meta.String(1)), Uid: valid(meta.String(2)), Namespace: valid(meta.String(3)), Attempt: uint32(meta.Uint(4)),
	}
}

func sandboxState(v int64) eventpb.SandboxState {
	if runtimeapi.PodSandboxState(v) == runtimeapi.PodSandboxState_SANDBOX_READY {
		return eventpb.SandboxState_SANDBOX_STATE_READY
	}
	return eventpb.SandboxState_SANDBOX_STATE_NOTREADY
}

// containerRecord is what the log keeps of a Container that a backend lists.
func (s *Server) containerRecord(backend string, item wire.Message) *eventpb.Container {
	meta := item.Msg(3)
	return &eventpb.Container{
		Id:          valid(item.String(1)),
		SandboxId:   valid(item.String(2)),
		Backend:     backend,
		Name:        valid(meta.String(1)),
		Attempt:     uint32(meta.Uint(2)),
		Image:       valid(item.Msg(4).String(1)),
		ImageRef:    valid(item.String(5)),
		ImageId:     valid(item.String(10)),
		State:       containerState(item.Int(6)),
		CreatedAt:   item.Int(7),
		Labels:      text(item.Map(8)),
		Annotations: s.annotations(item.Map(9)),
	}
}

// containerStates maps CRI's states; both have four.
var containerStates = map[runtimeapi.ContainerState]eventpb.ContainerState{
	runtimeapi.ContainerState_CONTAINER_CREATED: eventpb.ContainerState_CONTAINER_STATE_CREATED,
	runtimeapi.ContainerState_CONTAINER_RUNNING: eventpb.ContainerState_CONTAINER_STATE_RUNNING,
	runtimeapi.ContainerState_CONTAINER_EXITED:  eventpb.ContainerState_CONTAINER_STATE_EXITED,
	runtimeapi.ContainerState_CONTAINER_UNKNOWN: eventpb.ContainerState_CONTAINER_STATE_UNKNOWN,
}

func containerState(v int64) eventpb.ContainerState {
	if st, ok := containerStates[runtimeapi.ContainerState(v)]; ok {
		return st
	}
	return eventpb.ContainerState_CONTAINER_STATE_UNKNOWN
}

// withStatus adds what only ContainerStatus tells: when and how it ended.
func withStatus(ctr *eventpb.Container, st wire.Message) {
	ctr.StartedAt, ctr.FinishedAt = st.Int(5), st.Int(6)
	ctr.ExitCode, ctr.Reason = int32(st.Int(7)), valid(st.String(10))
	ctr.LogPath = valid(st.String(15))
}

// sandboxAnswer is a PodSandbox as last known, for the kubelet.
func sandboxAnswer(sb *eventpb.Sandbox) *runtimeapi.PodSandbox {
	p := sb.GetPod()
	state := runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	if sb.GetState() == eventpb.SandboxState_SANDBOX_STATE_READY {
		state = runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return &runtimeapi.PodSandbox{
		Id:             sb.GetId(),
		Metadata:       &runtimeapi.PodSandboxMetadata{Name: p.GetName(), Uid: p.GetUid(), Namespace: p.GetNamespace(), Attempt: p.GetAttempt()},
		State:          state,
		CreatedAt:      sb.GetCreatedAt(),
		Labels:         sb.GetLabels(),
		Annotations:    sb.GetAnnotations(),
		RuntimeHandler: sb.GetRoute().GetHandler(),
	}
}

// containerAnswer is a Container as last known, for the kubelet.
func containerAnswer(ctr *eventpb.Container) *runtimeapi.Container {
	state := runtimeapi.ContainerState_CONTAINER_UNKNOWN
	for cri, ours := range containerStates {
		if ours == ctr.GetState() {
			state = cri
		}
	}
	return &runtimeapi.Container{
		Id:           ctr.GetId(),
		PodSandboxId: ctr.GetSandboxId(),
		Metadata:     &runtimeapi.ContainerMetadata{Name: ctr.GetName(), Attempt: ctr.GetAttempt()},
		Image:        &runtimeapi.ImageSpec{Image: ctr.GetImage()},
		ImageRef:     ctr.GetImageRef(),
		ImageId:      ctr.GetImageId(),
		State:        state,
		CreatedAt:    ctr.GetCreatedAt(),
		Labels:       ctr.GetLabels(),
		Annotations:  ctr.GetAnnotations(),
	}
}
