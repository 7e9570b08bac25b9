package proxy

import (
	"bytes"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
)

// Rehearsals do not show on the CRI socket: this is the one exception to "a
// list never omits". They are known by their label, and where an answer has no
// labels, by their ids.

// isRehearsal tells by its labels whether something belongs to a rehearsal.
func isRehearsal(labels map[string]string) bool { return labels[backends.LabelRehearsal] != "" }

var rehearsalKey = []byte(backends.LabelRehearsal)

// newRehearsals returns what the log knows of rehearsals.
func (s *Server) newRehearsals() *rehearsals {
	r := &rehearsals{undoStop: undoStop, woken: make(chan struct{}, 1), ids: make(map[string]bool), owed: make(map[string]int)}
	for _, m := range s.set.All() {
		r.owed[m.Name()] = 1
	}
	s.log.View(func(st *store.State) {
		for sb := range st.Sandboxes() {
			if isRehearsal(sb.GetLabels()) {
				r.ids[sb.GetId()] = true
			}
		}
		for c := range st.Containers() {
			if isRehearsal(c.GetLabels()) || r.ids[c.GetSandboxId()] {
				r.ids[c.GetId()] = true
			}
		}
	})
	return r
}

// note remembers an id of a rehearsal.
func (r *rehearsals) note(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids[id] = true
}

// has tells whether an id is known to be a rehearsal's.
func (r *rehearsals) has(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ids[id]
}

// refuse is the error of a call about what no backend lists: it is a
// rehearsal's that has ended, or of one under way that is just being made.
func (r *rehearsals) refuse(what, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ids[id] && r.active == "" {
		return nil
	}
	return notThere(what, id)
}

// none tells whether no backend can have anything of a rehearsal.
func (r *rehearsals) none() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids)+len(r.owed) == 0 && r.active == ""
}

// listing says where the items of a list have what tells a rehearsal's: path
// leads to the message with the id in field 1 and the labels in field labels,
// 0 for none.
type listing struct {
	path   []protowire.Number
	labels protowire.Number
}

var listings = map[string]listing{
	runtimeapi.RuntimeService_ListPodSandbox_FullMethodName:        {labels: 5},
	runtimeapi.RuntimeService_ListContainers_FullMethodName:        {labels: 8},
	runtimeapi.RuntimeService_ListContainerStats_FullMethodName:    {path: []protowire.Number{1}, labels: 3},
	runtimeapi.RuntimeService_ListPodSandboxStats_FullMethodName:   {path: []protowire.Number{1}, labels: 3},
	runtimeapi.RuntimeService_ListPodSandboxMetrics_FullMethodName: {},
}

// hides tells whether an item of a list is a rehearsal's.
func (s *Server) hides(l listing, item wire.Message) bool {
	for _, num := range l.path {
		item = item.Msg(num)
	}
	if s.rehearsals.has(item.String(1)) {
		return true
	}
	return l.labels != 0 && bytes.Contains(item, rehearsalKey) && isRehearsal(item.Map(l.labels))
}

// hidesSandbox and hidesContainer are hides for the items of the two lists.
func (s *Server) hidesSandbox(item wire.Message) bool { return s.hides(listing{labels: 5}, item) }

func (s *Server) hidesContainer(item wire.Message) bool { return s.hides(listing{labels: 8}, item) }

// hidesEvent tells whether a container event is about a rehearsal: the last
// ones of a pod come without its status.
func (s *Server) hidesEvent(event wire.Message) bool {
	pod := event.Msg(4)
	return s.rehearsals.has(event.String(1)) || s.rehearsals.has(pod.String(1)) ||
		bytes.Contains(pod, rehearsalKey) && isRehearsal(pod.Map(7))
}

// withoutRehearsals takes out of a backend's list what is a rehearsal's. full
// is the unary list. Where there are none the frame is returned as it is.
func (s *Server) withoutRehearsals(full string, f *backends.Frame) *backends.Frame {
	l, ok := listings[full]
	if !ok || s.rehearsals.none() {
		return f
	}
	list := wire.Message(f.Bytes())
	out := make(wire.Message, 0, len(list))
	list.Fields(func(fd wire.Field) bool {
		if fd.Num != 1 || fd.Type != protowire.BytesType || !s.hides(l, fd.Value) {
			out = append(out, fd.Raw...)
		}
		return true
	})
	if len(out) == len(list) {
		return f
	}
	f.Free()
	return backends.NewFrame(out)
}

// hideRehearsals does so with all parts of a merged list.
func (s *Server) hideRehearsals(full string, parts []part) {
	for i := range parts {
		if parts[i].err == nil {
			parts[i].messages = changed(parts[i].messages, func(f *backends.Frame) *backends.Frame { return s.withoutRehearsals(full, f) })
		}
	}
}

// notOfRehearsal refuses a call about a rehearsal: to the kubelet there is no
// such sandbox or container.
func notOfRehearsal(labels map[string]string, what, id string) error {
	if !isRehearsal(labels) {
		return nil
	}
	return notThere(what, id)
}

func notThere(what, id string) error {
	return status.Errorf(codes.NotFound, "%s %q: not found", what, id)
}

// noRehearsalLabel refuses a request that would be hidden from whoever made it.
func noRehearsalLabel(m *method, labels map[string]string) error {
	if !isRehearsal(labels) {
		return nil
	}
	return status.Errorf(codes.InvalidArgument, "%s: config.labels[%q]: the key is crimux's own, and hides what carries it: take it off the pod",
		m.name, backends.LabelRehearsal)
}
