package docker

import (
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// departures are the sandboxes that are being stopped or removed. What is made
// or started in one meanwhile may come too late to be seen by that, and must not
// outlive it.
type departures struct {
	mu  sync.Mutex
	all map[string]int
}

func newDepartures() *departures { return &departures{all: map[string]int{}} }

// begin is called before the sandbox's containers are looked at; end when it is
// known what has become of it.
func (d *departures) begin(id string) (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all[id]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.all[id]--; d.all[id] == 0 {
			delete(d.all, id)
		}
	}
}

func (d *departures) has(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all[id] > 0
}

// stays is an error where a sandbox has been stopped or removed, or is about to
// be. It is called after something was made or started in it: either that comes
// before the sandbox's containers are looked at, or it is told here.
func (s *server) stays(sandbox string) error {
	f := s.cache.peek(sandbox)
	if s.leaving.has(sandbox) || s.cache.isGone(sandbox) || f != nil && !f.State.Running {
		return status.Errorf(codes.FailedPrecondition, "sandbox %s was stopped meanwhile: make another", sandbox)
	}
	return nil
}
