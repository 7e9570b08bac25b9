package proxy

import (
	"context"
	"sync"

	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store/eventpb"
)

// probes counts ExecSync calls by container. A node makes some hundred of
// them a minute, nearly all with the same result: the log keeps a run of
// equal results as one event.
type probes struct {
	mu   sync.Mutex
	runs map[string]*probeRun
}

type probeRun struct {
	backend string
	probed  *eventpb.Probed
}

// countProbe carries out an ExecSync and counts its result.
func (s *Server) countProbe(ctx context.Context, c *call) (backends.Answer, error) {
	a, err := read(ctx, c.target, c.method.full, c.frame)
	p := &eventpb.Probed{ContainerId: c.intent.GetContainerId(), Count: 1, Code: uint32(status.Code(err)), Since: now()}
	if err == nil {
		p.ExitCode = int32(wire.Message(a.Body.Bytes()).Int(3))
	}
	if done := s.probes.count(c.target.Name(), p); done != nil {
		s.appendProbe(done)
	}
	return a, err
}

// count adds a result to its container's run, and returns the run that it
// ends, if any.
func (p *probes) count(backend string, r *eventpb.Probed) *probeRun {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.runs[r.ContainerId]
	if last != nil && last.probed.Code == r.Code && last.probed.ExitCode == r.ExitCode {
		last.probed.Count++
		return nil
	}
	if p.runs == nil {
		p.runs = make(map[string]*probeRun)
	}
	p.runs[r.ContainerId] = &probeRun{backend, r}
	return last
}

// take takes out the runs of the containers that which names.
func (p *probes) take(which func(containerID string) bool) []*probeRun {
	p.mu.Lock()
	defer p.mu.Unlock()
	var taken []*probeRun
	for id, r := range p.runs {
		if which(id) {
			taken = append(taken, r)
			delete(p.runs, id)
		}
	}
	return taken
}

func (s *Server) appendProbe(r *probeRun) {
	s.log.Append(&eventpb.Event{Backend: r.backend, Kind: &eventpb.Event_Probed{Probed: r.probed}})
}

// flushProbes writes every run as it stands.
func (s *Server) flushProbes() {
	for _, r := range s.probes.take(func(string) bool { return true }) {
		s.appendProbe(r)
	}
}

// endProbes writes the runs of containers that are no more.
func (s *Server) endProbes() {
	for _, r := range s.probes.take(func(id string) bool { return s.knownContainer(id) == nil }) {
		s.appendProbe(r)
	}
}
