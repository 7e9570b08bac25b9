package proxy

import (
	"context"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// tellTimeout bounds the questions behind the events of one look.
const tellTimeout = 10 * time.Second

// tell publishes what a look has shown and no event of the backend's own has
// told. The statuses that belong into each event are the backend's.
func (f *feed) tell(ctx context.Context, changes []change) {
	if !f.s.events.watched() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	pods := make(map[string]wire.Message)
	for _, c := range changes {
		if _, asked := pods[c.told.sandbox]; !asked {
			pods[c.told.sandbox] = f.podStatus(ctx, c.told)
		}
		var event wire.Message
		event = wire.AppendItem(event, 1, []byte(c.id))
		event = appendInt(event, 2, int64(c.kind))
		event = appendInt(event, 3, time.Now().UnixNano())
		event = append(event, pods[c.told.sandbox]...)
		f.publish(c, f.s.eventOut(event, f.m.Name()))
	}
}

// publish publishes the event of a change, unless the backend has told of what
// came after it already: what is started must not come after what is stopped.
func (f *feed) publish(c change, event wire.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.overtaken(c) {
		f.s.events.publish(event)
	}
}

// appendInt appends a varint field, which is left out where it is 0.
func appendInt(b []byte, num protowire.Number, v int64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(v))
}

// podStatus returns the fields of an event that tell how a pod is: the status
// of its sandbox, and those of its containers. A sandbox that is gone has the
// status that it had when it was last listed, and is not ready.
func (f *feed) podStatus(ctx context.Context, t told) wire.Message {
	a, err := read(ctx, f.m, runtimeapi.RuntimeService_PodSandboxStatus_FullMethodName, backends.NewFrame(byID(t.sandbox)))
	if err != nil {
		return wire.AppendItem(nil, 4, lastStatus(t.item))
	}
	fields := wire.AppendItem(nil, 4, wire.Message(a.Body.Bytes()).Msg(1))
	a.Body.Free()
	// A filter by the sandbox.
	in := wire.AppendItem(nil, 1, wire.AppendItem(nil, 3, []byte(t.sandbox)))
	list, err := read(ctx, f.m, runtimeapi.RuntimeService_ListContainers_FullMethodName, backends.NewFrame(in))
	if err != nil {
		return fields
	}
	defer list.Body.Free()
	wire.Message(list.Body.Bytes()).Each(1, func(item wire.Message) bool {
		a, err := read(ctx, f.m, runtimeapi.RuntimeService_ContainerStatus_FullMethodName, backends.NewFrame(byID(item.String(1))))
		if err == nil {
			fields = wire.AppendItem(fields, 5, wire.Message(a.Body.Bytes()).Msg(1))
			a.Body.Free()
		}
		return true
	})
	return fields
}

// lastStatus is the PodSandboxStatus of a sandbox that is gone, out of the
// PodSandbox that a list had of it.
func lastStatus(item wire.Message) wire.Message {
	var st wire.Message
	st = wire.AppendItem(st, 1, item.Bytes(1))
	st = wire.AppendItem(st, 2, item.Msg(2))
	st = appendInt(st, 3, int64(runtimeapi.PodSandboxState_SANDBOX_NOTREADY))
	st = appendInt(st, 4, item.Int(4))
	item.Each(5, func(label wire.Message) bool { st = wire.AppendItem(st, 7, label); return true })
	item.Each(6, func(annotation wire.Message) bool { st = wire.AppendItem(st, 8, annotation); return true })
	if h := item.Bytes(7); len(h) > 0 {
		st = wire.AppendItem(st, 9, h)
	}
	return st
}

// eventOut is an event as the kubelet gets it: with its own handlers, not the
// backend's.
func (s *Server) eventOut(event wire.Message, backend string) wire.Message {
	pod := event.Msg(4)
	if pod == nil {
		return event
	}
	front, ours := s.handlerOfPod(backend, pod)
	if !ours {
		return event
	}
	var out wire.Message
	event.Fields(func(fd wire.Field) bool {
		switch {
		case fd.Num == 4 && fd.Type == protowire.BytesType:
			out = wire.AppendItem(out, 4, wire.Message(fd.Value).With(front, 9))
		case fd.Num == 5 && fd.Type == protowire.BytesType && wire.Message(fd.Value).At(8, imageHandler) != "":
			out = wire.AppendItem(out, 5, wire.Message(fd.Value).With(front, 8, imageHandler))
		default:
			out = append(out, fd.Raw...)
		}
		return true
	})
	return out
}

// handlerOfPod is the handler of the pod that a PodSandboxStatus is of, as the
// kubelet knows it; ours is false where crimux did not place it. The first
// events of a sandbox come before its operation has an outcome.
func (s *Server) handlerOfPod(backend string, pod wire.Message) (front string, ours bool) {
	s.log.View(func(st *store.State) {
		if sb := st.Sandbox(pod.String(1)); sb != nil {
			front, ours = sb.GetRoute().GetHandler(), placed(sb)
			return
		}
		var op *eventpb.Operation
		want := podID(keyOf(pod.Msg(2)))
		for o := range st.OperationsOf(backend) {
			if o.GetIntent().GetRoute() != nil && podID(o.GetIntent().GetPod()) == want {
				op = o
			}
		}
		front, ours = op.GetIntent().GetRoute().GetHandler(), op != nil
	})
	return front, ours
}
