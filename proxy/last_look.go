package proxy

import (
	"context"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

const (
	// causeRemoval is the cause of an observation: what is about to be removed
	// was asked how it has ended.
	causeRemoval = "removal"
	// lastLookBound bounds that, which the removal waits for.
	lastLookBound = 2 * time.Second
)

// lastLook records how the containers have ended that an operation is about to
// remove, where that is not known yet: the news of an end may take a second,
// and afterwards nobody can be asked. It is on disk with the operation's intent.
func (s *Server) lastLook(ctx context.Context, c *call) {
	asked := s.endsUnknown(c)
	if len(asked) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastLookBound)
	defer cancel()
	o := &eventpb.Observed{Cause: causeRemoval}
	for _, ctr := range asked {
		a, err := read(ctx, c.target, runtimeapi.RuntimeService_ContainerStatus_FullMethodName, backends.NewFrame(byID(ctr.GetId())))
		if err != nil {
			continue // It is gone, or the removal itself will say what is wrong.
		}
		st := wire.Message(a.Body.Bytes()).Msg(1)
		if containerState(st.Int(3)) == eventpb.ContainerState_CONTAINER_STATE_EXITED {
			seen := &eventpb.Container{Id: ctr.GetId(), SandboxId: ctr.GetSandboxId(), Backend: c.target.Name(), State: eventpb.ContainerState_CONTAINER_STATE_EXITED}
			withEnd(seen, st)
			o.Containers = append(o.Containers, seen)
		}
		a.Body.Free()
	}
	// What was removed meanwhile, and how it had ended, is in the log already.
	s.log.View(func(st *store.State) {
		o.Containers = kept(o.Containers, func(c *eventpb.Container) bool { return slices.Contains(asked, st.Container(c.GetId())) })
	})
	if len(o.Containers) > 0 {
		s.log.Append(&eventpb.Event{Backend: c.target.Name(), Kind: &eventpb.Event_Observed{Observed: o}})
	}
}

// endsUnknown returns the containers that a call removes and that have run,
// as far as is known, without an end that is known.
func (s *Server) endsUnknown(c *call) (list []*eventpb.Container) {
	add := func(ctr *eventpb.Container) {
		if ctr.GetState() == eventpb.ContainerState_CONTAINER_STATE_RUNNING || endUnknown(ctr) {
			list = append(list, ctr)
		}
	}
	switch c.method.full {
	case runtimeapi.RuntimeService_RemoveContainer_FullMethodName:
		add(s.knownContainer(c.intent.GetContainerId()))
	case runtimeapi.RuntimeService_RemovePodSandbox_FullMethodName:
		s.log.View(func(st *store.State) {
			for ctr := range st.ContainersIn(c.intent.GetSandboxId()) {
				add(ctr)
			}
		})
	}
	return list
}
