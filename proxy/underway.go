package proxy

import (
	"slices"
	"sync"
	"time"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// busy is what some operations on a backend are about.
type busy struct {
	sandboxes, containers map[string]bool
	pods, creating        map[string]bool
}

// underway is what the open operations on a backend are about.
func underway(st *store.State, backend string) busy {
	b := busy{make(map[string]bool), make(map[string]bool), make(map[string]bool), make(map[string]bool)}
	for op := range st.OperationsOf(backend) {
		b.add(op.GetIntent())
	}
	return b
}

func (b busy) add(in *eventpb.Intent) {
	switch in.GetMethod() {
	case "RunPodSandbox", "RestorePod":
		b.pods[podID(in.GetPod())] = true
	case "CreateContainer":
		b.creating[containerID(in.GetSandboxId(), in.GetContainerName(), in.GetContainerAttempt())] = true
	case "StopPodSandbox", "RemovePodSandbox":
		b.sandboxes[in.GetSandboxId()] = true
	default:
		b.containers[in.GetContainerId()] = true
	}
}

// recentOps are the operations that have ended lately: a look that began before saw
// what they have changed since, and the state has no trace of what is gone.
type recentOps struct {
	mu  sync.Mutex
	ops []endedOp // oldest first
}

type endedOp struct {
	backend string
	intent  *eventpb.Intent
	at      time.Time
}

// note is called when an operation has had its effect, before the state says
// what that was.
func (r *recentOps) note(backend string, in *eventpb.Intent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	young := slices.IndexFunc(r.ops, func(op endedOp) bool { return now.Sub(op.at) < observeTimeout })
	if young < 0 {
		young = len(r.ops)
	}
	r.ops = append(slices.Delete(r.ops, 0, young), endedOp{backend, in, now})
}

// addTo adds to b those on a backend that have ended since a look began.
func (r *recentOps) addTo(b busy, backend string, began time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, op := range r.ops {
		if op.backend == backend && !op.at.Before(began) {
			b.add(op.intent)
		}
	}
}
