package proxy

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// runtime_handler is the one field that crimux changes: the kubelet knows the
// handlers of the routes, each backend its own. What comes out is taken from
// the decision recorded with the sandbox, since two front handlers may share
// one backend handler. Sandboxes that crimux did not place keep what their
// backend says.

// handlerIn sets the handler at path, where the request has one, to what the
// backend is told.
func handlerIn(req wire.Message, backendHandler string, path ...protowire.Number) wire.Message {
	if req.At(path...) == "" {
		return req
	}
	return req.With(backendHandler, path...)
}

// handlerOut returns the rewrite of an answer about sb whose handler is at
// path, nil where it is not ours to change.
func handlerOut(sb *eventpb.Sandbox, path ...protowire.Number) func(wire.Message) wire.Message {
	if !placed(sb) {
		return nil
	}
	return withFront(sb.GetRoute().GetHandler(), path...)
}

// withFront returns the rewrite that sets the handler at path to the front
// one. That of an image is only replaced where the backend gave one, and an
// answer without a status is not given one.
func withFront(front string, path ...protowire.Number) func(wire.Message) wire.Message {
	return func(m wire.Message) wire.Message {
		if path[len(path)-1] == imageHandler && m.At(path...) == "" || m.Msg(path[0]) == nil {
			return m
		}
		return m.With(front, path...)
	}
}

// imageHandler is ImageSpec.runtime_handler.
const imageHandler protowire.Number = 19

// placed tells whether crimux decided where sb goes.
func placed(sb *eventpb.Sandbox) bool { return sb.GetOp() != "" }

// listView is what the items of a list are looked at with.
type listView struct {
	st *store.State
	// halfMade is what crashes left of operations that their backends are
	// about to undo; nearly always nothing.
	halfMade []busy
}

// viewOf returns what a list is looked at with now.
func (s *Server) viewOf(st *store.State) listView {
	v := listView{st: st}
	for name, l := range s.lanes {
		if l.isClear() {
			continue
		}
		if _, undoes := s.set.Get(name).Backend.(backends.Recoverer); undoes {
			v.halfMade = append(v.halfMade, underway(st, name))
		}
	}
	return v
}

// sandboxItem rewrites one PodSandbox of a list. As little as before a crash is
// one listed that is half made.
func sandboxItem(v listView, item wire.Message) wire.Message {
	sb := v.st.Sandbox(item.String(1))
	if sb == nil {
		if len(v.halfMade) == 0 {
			return item
		}
		key := podID(keyOf(item.Msg(2)))
		if slices.ContainsFunc(v.halfMade, func(b busy) bool { return b.pods[key] }) {
			return nil
		}
		return item
	}
	if !placed(sb) {
		return item
	}
	return item.With(sb.GetRoute().GetHandler(), 7)
}

// containerItem rewrites one Container of a list.
func containerItem(v listView, item wire.Message) wire.Message {
	if len(v.halfMade) > 0 && v.st.Container(item.String(1)) == nil {
		meta := item.Msg(3)
		key := containerID(item.String(2), meta.String(1), uint32(meta.Uint(2)))
		if slices.ContainsFunc(v.halfMade, func(b busy) bool { return b.creating[key] }) {
			return nil
		}
	}
	if len(item.Msg(4).Bytes(imageHandler)) == 0 {
		return item
	}
	sb := v.st.Sandbox(item.String(2))
	if sb == nil || !placed(sb) {
		return item
	}
	return item.With(sb.GetRoute().GetHandler(), 4, imageHandler)
}

// itemRewrite returns an item of a list as the kubelet shall see it: the same
// slice where nothing changes, nil where it is not to be seen.
type itemRewrite func(v listView, item wire.Message) wire.Message

// rewriteItems applies fn to each item of a list answer, field 1, and copies
// nothing where nothing changes.
func (s *Server) rewriteItems(f *backends.Frame, fn itemRewrite) *backends.Frame {
	list := wire.Message(f.Bytes())
	var out wire.Message
	done := 0 // bytes of list that are in out already, or need not be
	at := 0
	s.log.View(func(st *store.State) {
		v := s.viewOf(st)
		list.Fields(func(fd wire.Field) bool {
			end := at + len(fd.Raw)
			if fd.Num == 1 && fd.Type == protowire.BytesType {
				if item := fn(v, fd.Value); !same(item, fd.Value) {
					out = append(out, list[done:at]...)
					if item != nil {
						out = wire.AppendItem(out, 1, item)
					}
					done = end
				}
			}
			at = end
			return true
		})
	})
	if done == 0 {
		return f
	}
	out = append(out, list[done:]...)
	f.Free()
	return backends.NewFrame(out)
}

// same tells whether two slices are one and the same memory.
func same(a, b []byte) bool {
	return len(a) == len(b) && (a == nil) == (b == nil) && (len(a) == 0 || &a[0] == &b[0])
}
