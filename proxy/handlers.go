package proxy

import (
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

// handlerIn sets the handler at path, where there is one, to what the backend
// of sb was told.
func handlerIn(req wire.Message, sb *eventpb.Sandbox, path ...protowire.Number) wire.Message {
	if field(req, path) == "" {
		return req
	}
	return req.With(sb.GetRoute().GetBackendHandler(), path...)
}

// handlerOut returns the rewrite of an answer about sb whose handler is at
// path. The handler of an image, a longer path, is only replaced where the
// backend gave one.
func (s *Server) handlerOut(sb *eventpb.Sandbox, path ...protowire.Number) func(wire.Message) wire.Message {
	if !placed(sb) {
		return nil
	}
	front := sb.GetRoute().GetHandler()
	return func(m wire.Message) wire.Message {
		if path[len(path)-1] == imageHandler && field(m, path) == "" {
			return m
		}
		return m.With(front, path...)
	}
}

// imageHandler is ImageSpec.runtime_handler.
const imageHandler protowire.Number = 19

// placed tells whether crimux decided where sb goes.
func placed(sb *eventpb.Sandbox) bool { return sb.GetOp() != "" }

func field(m wire.Message, path []protowire.Number) string {
	for _, num := range path[:len(path)-1] {
		m = m.Msg(num)
	}
	return m.String(path[len(path)-1])
}

// sandboxItem rewrites one PodSandbox of a list.
func (s *Server) sandboxItem(st *store.State, item wire.Message) wire.Message {
	sb := st.Sandbox(item.String(1))
	if sb == nil {
		meta := item.Msg(2)
		return s.unlessHalfMade(st, item, podID(&eventpb.PodKey{
			Name: meta.String(1), Uid: meta.String(2), Namespace: meta.String(3), Attempt: uint32(meta.Uint(4)),
		}))
	}
	if !placed(sb) {
		return item
	}
	return item.With(sb.GetRoute().GetHandler(), 7)
}

// containerItem rewrites one Container of a list.
func (s *Server) containerItem(st *store.State, item wire.Message) wire.Message {
	if st.Container(item.String(1)) == nil {
		meta := item.Msg(3)
		if s.unlessHalfMade(st, item, containerID(item.String(2), meta.String(1), uint32(meta.Uint(2)))) == nil {
			return nil
		}
	}
	if item.Msg(4).String(imageHandler) == "" {
		return item
	}
	sb := st.Sandbox(item.String(2))
	if sb == nil || !placed(sb) {
		return item
	}
	return item.With(sb.GetRoute().GetHandler(), 4, imageHandler)
}

// unlessHalfMade returns item, or nil where it is what a crash left of an
// operation that its backend is about to undo: as little as before the crash
// it may be listed as if it were whole.
func (s *Server) unlessHalfMade(st *store.State, item wire.Message, key string) wire.Message {
	for name, l := range s.lanes {
		if l.isClear() {
			continue
		}
		if _, undoes := s.set.Get(name).Backend.(backends.Recoverer); !undoes {
			continue
		}
		if b := underway(st, name); b.pods[key] || b.creating[key] {
			return nil
		}
	}
	return item
}

// itemRewrite returns an item of a list as the kubelet shall see it: the same
// slice where nothing changes, nil where it is not to be seen.
type itemRewrite func(st *store.State, item wire.Message) wire.Message

// rewriteItems applies fn to each item of a list answer, field 1, and copies
// nothing where nothing changes.
func (s *Server) rewriteItems(f *backends.Frame, fn itemRewrite) *backends.Frame {
	list := wire.Message(f.Bytes())
	var out wire.Message
	done := 0 // bytes of list that are in out already, or need not be
	at := 0
	s.log.View(func(st *store.State) {
		list.Fields(func(fd wire.Field) bool {
			end := at + len(fd.Raw)
			if fd.Num == 1 && fd.Type == protowire.BytesType {
				if item := fn(st, fd.Value); !same(item, fd.Value) {
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
