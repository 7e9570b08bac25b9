package proxy

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// observeTimeout bounds one look at a backend.
const observeTimeout = 30 * time.Second

// observe compares what a backend has with what the state knows of it, item
// by item, and records the differences as one event. Requests never pay for
// it: it runs beside them, and leaves alone what an operation under way is
// about to make known itself. again says that it is worth looking soon again:
// not all that was seen could be recorded yet.
func (s *Server) observe(ctx context.Context, m *backends.Member, cause string) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	began := time.Now()
	before := s.known(m.Name())
	sandboxes, containers, err := lists(ctx, m)
	if err != nil {
		return true, err
	}
	defer sandboxes.Body.Free()
	defer containers.Body.Free()

	f := s.feeds[m.Name()]
	changes := f.seen(began, sandboxes.Body.Bytes(), containers.Body.Bytes())
	o := &eventpb.Observed{Cause: cause}
	s.compareSandboxes(o, before, m.Name(), sandboxes.Body.Bytes())
	s.compareContainers(o, before, m.Name(), containers.Body.Bytes())
	again = s.dropUnderway(o, before, m.Name(), began)
	again = s.askExits(ctx, m, o) || again
	err = s.reclaim(ctx, m, o)
	// That has taken its time, too.
	again = s.dropUnderway(o, before, m.Name(), began) || again
	if size(o) > 0 {
		err = errors.Join(err, s.remember(ctx, o, m.Name()))
	}
	f.tell(ctx, changes)
	return again, err
}

// lists are the two lists of a backend. A pod that was made between them has a
// container in the second and no sandbox in the first, which is then read anew:
// a container without its sandbox must not become what is last known.
func lists(ctx context.Context, m *backends.Member) (sandboxes, containers backends.Answer, err error) {
	sandboxes, err = read(ctx, m, runtimeapi.RuntimeService_ListPodSandbox_FullMethodName, backends.NewFrame(nil))
	if err != nil {
		return sandboxes, containers, err
	}
	containers, err = read(ctx, m, runtimeapi.RuntimeService_ListContainers_FullMethodName, backends.NewFrame(nil))
	if err == nil && !lacksSandbox(sandboxes.Body.Bytes(), containers.Body.Bytes()) {
		return sandboxes, containers, nil
	}
	sandboxes.Body.Free()
	if err != nil {
		return sandboxes, containers, err
	}
	sandboxes, err = read(ctx, m, runtimeapi.RuntimeService_ListPodSandbox_FullMethodName, backends.NewFrame(nil))
	if err != nil {
		containers.Body.Free()
	}
	return sandboxes, containers, err
}

// lacksSandbox tells whether a list has a container of a sandbox that the
// other list has not.
func lacksSandbox(sandboxes, containers wire.Message) (lacks bool) {
	there := make(map[string]bool)
	sandboxes.Each(1, func(item wire.Message) bool {
		there[item.String(1)] = true
		return true
	})
	containers.Each(1, func(item wire.Message) bool {
		lacks = !there[item.String(2)]
		return !lacks
	})
	return lacks
}

// size is how many objects an observation is of.
func size(o *eventpb.Observed) int {
	return len(o.Sandboxes) + len(o.Containers) + len(o.GoneSandboxes) + len(o.GoneContainers)
}

// knowledge is what the state knew of one backend before it was asked.
type knowledge struct {
	sandboxes  map[string]*eventpb.Sandbox
	containers map[string]*eventpb.Container
}

func (s *Server) known(backend string) knowledge {
	k := knowledge{make(map[string]*eventpb.Sandbox), make(map[string]*eventpb.Container)}
	s.log.View(func(st *store.State) {
		for sb := range st.SandboxesOf(backend) {
			k.sandboxes[sb.GetId()] = sb
		}
		for ctr := range st.ContainersOf(backend) {
			k.containers[ctr.GetId()] = ctr
		}
	})
	return k
}

// compareSandboxes adds to o what a list of sandboxes shows to be new,
// changed or gone.
func (s *Server) compareSandboxes(o *eventpb.Observed, before knowledge, backend string, list wire.Message) {
	gone := maps.Clone(before.sandboxes)
	list.Each(1, func(item wire.Message) bool {
		id := valid(item.String(1))
		delete(gone, id)
		if s.hidesSandbox(item) {
			return true
		}
		have := before.sandboxes[id]
		if have == nil || have.GetState() != sandboxState(item.Int(3)) || have.GetCreatedAt() != item.Int(4) {
			o.Sandboxes = append(o.Sandboxes, s.sandboxRecord(backend, item))
		}
		return true
	})
	for id := range gone {
		o.GoneSandboxes = append(o.GoneSandboxes, id)
	}
}

// compareContainers is compareSandboxes for containers. A container that has
// exited is looked at until its end is known.
func (s *Server) compareContainers(o *eventpb.Observed, before knowledge, backend string, list wire.Message) {
	gone := maps.Clone(before.containers)
	list.Each(1, func(item wire.Message) bool {
		id := valid(item.String(1))
		delete(gone, id)
		if s.hidesContainer(item) {
			return true
		}
		have := before.containers[id]
		if have == nil || have.GetState() != containerState(item.Int(6)) ||
			have.GetCreatedAt() != item.Int(7) || have.GetImageRef() != valid(item.String(5)) || endUnknown(have) {
			o.Containers = append(o.Containers, s.containerRecord(backend, item))
		}
		return true
	})
	for id := range gone {
		o.GoneContainers = append(o.GoneContainers, id)
	}
}

// endUnknown tells whether a container is known to have exited, but not how.
func endUnknown(ctr *eventpb.Container) bool {
	return ctr.GetState() == eventpb.ContainerState_CONTAINER_STATE_EXITED && ctr.GetReason() == ""
}

// dropUnderway takes out of o what an operation is about that is under way, or
// has ended since the look began, and what has changed since the backend was
// asked: the answer was older than that. dropped says that there was any.
func (s *Server) dropUnderway(o *eventpb.Observed, before knowledge, backend string, began time.Time) (dropped bool) {
	all := size(o)
	s.log.View(func(st *store.State) {
		busy := underway(st, backend)
		s.recent.addTo(busy, backend, began)
		o.Sandboxes = kept(o.Sandboxes, func(sb *eventpb.Sandbox) bool {
			return !busy.sandboxes[sb.GetId()] && !busy.pods[podID(sb.GetPod())] && st.Sandbox(sb.GetId()) == before.sandboxes[sb.GetId()]
		})
		o.Containers = kept(o.Containers, func(c *eventpb.Container) bool {
			return !busy.containers[c.GetId()] && !busy.sandboxes[c.GetSandboxId()] &&
				!busy.creating[containerID(c.GetSandboxId(), c.GetName(), c.GetAttempt())] && st.Container(c.GetId()) == before.containers[c.GetId()]
		})
		o.GoneSandboxes = kept(o.GoneSandboxes, func(id string) bool {
			return !busy.sandboxes[id] && st.Sandbox(id) == before.sandboxes[id]
		})
		o.GoneContainers = kept(o.GoneContainers, func(id string) bool {
			return !busy.containers[id] && !busy.sandboxes[before.containers[id].GetSandboxId()] && st.Container(id) == before.containers[id]
		})
	})
	return size(o) < all
}

func podID(p *eventpb.PodKey) string {
	return joinKey("", p.GetNamespace(), p.GetName(), p.GetUid(), p.GetAttempt())
}

// containerID names a container before it has an id.
func containerID(sandbox, name string, attempt uint32) string {
	return joinKey("", sandbox, name, "", attempt)
}

func kept[T any](list []T, keep func(T) bool) []T {
	var out []T
	for _, v := range list {
		if keep(v) {
			out = append(out, v)
		}
	}
	return out
}

// askExits adds to each container that has exited when and how it did. One
// whose status cannot be had, or is not final yet, is looked at again, which
// owed says.
func (s *Server) askExits(ctx context.Context, m *backends.Member, o *eventpb.Observed) (owed bool) {
	o.Containers = kept(o.Containers, func(c *eventpb.Container) bool {
		if c.GetState() != eventpb.ContainerState_CONTAINER_STATE_EXITED {
			return true
		}
		a, err := read(ctx, m, runtimeapi.RuntimeService_ContainerStatus_FullMethodName, backends.NewFrame(byID(c.GetId())))
		if err != nil {
			owed = true
			return s.knownContainer(c.GetId()) == nil
		}
		withEnd(c, wire.Message(a.Body.Bytes()).Msg(1))
		a.Body.Free()
		if killedJustNow(c) {
			owed = true
			return false
		}
		return !proto.Equal(c, s.knownContainer(c.GetId()))
	})
	return owed
}

// withEnd adds to a container that has exited how it did.
func withEnd(c *eventpb.Container, st wire.Message) {
	withStatus(c, st)
	c.Reason = cmp.Or(c.Reason, "Unknown")
}

const (
	// killSettle is how long after a container was killed its runtime may not
	// know yet that it was out of memory: that is a message of its own, which
	// the news of the end may overtake.
	killSettle = 500 * time.Millisecond
	// exitKilled is the exit code of who was killed, whyMemory what runtimes
	// call it where the kernel did it to get memory back.
	exitKilled = 128 + 9
	whyMemory  = "OOMKilled"
)

// killedJustNow tells whether why a container has ended may yet change.
func killedJustNow(c *eventpb.Container) bool {
	age := time.Since(time.Unix(0, c.GetFinishedAt()))
	return c.GetExitCode() == exitKilled && c.GetReason() != whyMemory && 0 <= age && age < killSettle
}
