package proxy

import (
	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store/eventpb"
)

// hearNotices has what the backends meet on their own recorded. Nobody waits
// for it.
func (s *Server) hearNotices() {
	for _, m := range s.set.All() {
		n, ok := m.Backend.(backends.Noticer)
		if !ok {
			continue
		}
		n.OnNotice(func(n backends.Notice) {
			s.log.Append(&eventpb.Event{Backend: m.Name(), Kind: &eventpb.Event_Noticed{Noticed: &eventpb.Noticed{
				Name: n.Name, SandboxId: n.SandboxID, ContainerId: n.ContainerID, Message: valid(n.Message), Count: n.Count,
			}}})
		})
	}
}
