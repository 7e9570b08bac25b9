package proxy

import (
	"google.golang.org/protobuf/encoding/protowire"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
)

// podUIDLabel is the label that the kubelet puts on all that is of a pod.
const podUIDLabel = "io.kubernetes.pod.uid"

// filterFields are where the filter of a list has what tells whom to ask; 0
// where it has no such field. Field 1 is an id of what is listed.
type filterFields struct {
	// ofSandbox is set where what is listed are sandboxes.
	ofSandbox       bool
	sandbox, labels protowire.Number
}

var filters = map[string]filterFields{
	runtimeapi.RuntimeService_ListPodSandbox_FullMethodName:      {ofSandbox: true, labels: 3},
	runtimeapi.RuntimeService_ListPodSandboxStats_FullMethodName: {ofSandbox: true, labels: 2},
	runtimeapi.RuntimeService_ListContainers_FullMethodName:      {sandbox: 3, labels: 4},
	runtimeapi.RuntimeService_ListContainerStats_FullMethodName:  {sandbox: 2, labels: 3},
}

// concerned returns the members that a list has to be asked of: one where the
// filter names an object whose backend is known, those where a pod is or may
// be where it names the pod, and else all.
func (s *Server) concerned(full string, req wire.Message) []*backends.Member {
	f, filters := filters[full]
	if !filters || !req.Has(1) {
		return s.set.All()
	}
	var names map[string]bool
	s.log.View(func(st *store.State) { names = s.named(st, f, req.Msg(1)) })
	var some []*backends.Member
	for _, m := range s.set.All() {
		if names[m.Name()] {
			some = append(some, m)
		}
	}
	if len(some) == 0 {
		return s.set.All()
	}
	return some
}

// named returns the backends that a filter leads to, none where it does not.
func (s *Server) named(st *store.State, f filterFields, filter wire.Message) map[string]bool {
	id := filter.String(1)
	sandbox := ""
	if f.sandbox != 0 {
		sandbox = filter.String(f.sandbox)
	}
	switch {
	case id != "" && f.ofSandbox:
		return map[string]bool{st.Sandbox(id).GetBackend(): true}
	case id != "":
		return map[string]bool{st.Container(id).GetBackend(): true}
	case sandbox != "":
		return map[string]bool{st.Sandbox(sandbox).GetBackend(): true}
	}
	return s.ofPod(st, filter.Map(f.labels)[podUIDLabel])
}

// ofPod returns the backends where a pod is known to have sandboxes, and where
// one of it may be that is not known of yet: an attempt whose caller went away
// leaves one where the policy has placed it.
func (s *Server) ofPod(st *store.State, uid string) map[string]bool {
	names := make(map[string]bool)
	if uid == "" {
		return nil
	}
	for sb := range st.SandboxesOfPod(uid) {
		names[sb.GetBackend()] = true
		if !placed(sb) {
			return nil // it is older than crimux, whose policy never placed it
		}
		p := sb.GetPod()
		r, err := policy.Decide(policy.Pod{Namespace: p.GetNamespace(), Name: p.GetName(), UID: uid, Handler: sb.GetRoute().GetHandler()}, view{st}, s.config)
		if err != nil {
			return nil
		}
		names[r.Backend] = true
	}
	if backend, ok := st.Live(uid); ok {
		names[backend] = true
	}
	return names
}
