package proxy

import (
	"strings"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// lastSandboxes is the list of a backend that does not answer, as last known,
// with the request's PodSandboxFilter applied.
func (s *Server) lastSandboxes(backend string, filter wire.Message) ([]byte, error) {
	resp := new(runtimeapi.ListPodSandboxResponse)
	s.log.View(func(st *store.State) {
		for sb := range st.SandboxesOf(backend) {
			if item := sandboxAnswer(sb); matchSandbox(filter, item) && !isRehearsal(item.Labels) {
				resp.Items = append(resp.Items, item)
			}
		}
	})
	return proto.Marshal(resp)
}

// lastContainers is lastSandboxes for containers and a ContainerFilter.
func (s *Server) lastContainers(backend string, filter wire.Message) ([]byte, error) {
	resp := new(runtimeapi.ListContainersResponse)
	s.log.View(func(st *store.State) {
		for ctr := range st.ContainersOf(backend) {
			if item := containerAnswer(ctr); matchContainer(filter, item) && !isRehearsal(item.Labels) {
				resp.Containers = append(resp.Containers, item)
			}
		}
	})
	return proto.Marshal(resp)
}

func matchSandbox(f wire.Message, p *runtimeapi.PodSandbox) bool {
	return strings.HasPrefix(p.Id, f.String(1)) &&
		(!f.Has(2) || f.Msg(2).Int(1) == int64(p.State)) &&
		matchLabels(f.Map(3), p.Labels)
}

func matchContainer(f wire.Message, c *runtimeapi.Container) bool {
	return strings.HasPrefix(c.Id, f.String(1)) &&
		(!f.Has(2) || f.Msg(2).Int(1) == int64(c.State)) &&
		strings.HasPrefix(c.PodSandboxId, f.String(3)) &&
		matchLabels(f.Map(4), c.Labels)
}

func matchLabels(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// stillThere tells how many sandboxes of a backend the state has, and one of
// them.
func stillThere(st *store.State, backend string) (n int, one *eventpb.Sandbox) {
	for sb := range st.SandboxesOf(backend) {
		n, one = n+1, sb
	}
	return n, one
}
