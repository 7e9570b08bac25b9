package docker

import (
	"context"
	"errors"
	"time"
)

// dockerd knows from its containerd's events that a container has ended. It
// misses those that come while that containerd is away and until the two are
// connected again, shows such a container as running for ever, and the kubelet
// never starts another. A signal to a process that is not there makes it look.
const (
	// endsEvery lies between two looks at the containers' processes.
	endsEvery = 2 * time.Second
	// endsGrace is how long the Engine has to tell of an end by itself.
	endsGrace = 3 * time.Second
	// endsAgain is how long it has to find one that it was pointed at. It
	// waits ten seconds for the event before it looks.
	endsAgain = 30 * time.Second
	// endsSignal changes nothing where there is a process all the same.
	endsSignal = "CONT"
)

// watchEnds points the Engine at the ends that it has missed, until ctx is
// done.
func (s *server) watchEnds(ctx context.Context) {
	tick := time.NewTicker(endsEvery)
	defer tick.Stop()
	due := map[string]time.Time{}
	for {
		var missed []string
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			due, missed = s.missedEnds(due, now)
		}
		for _, id := range missed {
			if err := s.pointAtEnd(ctx, id); err != nil {
				// Its containerd is still away, for one.
				due[id] = time.Now().Add(endsGrace)
			}
		}
	}
}

// missedEnds returns the containers that the Engine shows as running and whose
// process has ended, each with when to do something about it, and those for
// which it is time. before is what it returned last.
func (s *server) missedEnds(before map[string]time.Time, now time.Time) (due map[string]time.Time, missed []string) {
	due = map[string]time.Time{}
	for _, kind := range []string{typeSandbox, typeContainer} {
		for _, f := range s.cache.all(kind) {
			if !f.State.Running || !s.processEnded(f) {
				continue
			}
			at, known := before[f.ID]
			switch {
			case !known:
				at = now.Add(endsGrace)
			case !now.Before(at):
				missed, at = append(missed, f.ID), now.Add(endsAgain)
			}
			due[f.ID] = at
		}
	}
	return due, missed
}

// processEnded tells whether the container's first process is no more; its
// number may be another's by now.
func (s *server) processEnded(f *found) bool {
	return errors.Is(s.node.proc.belongs(f.State.Pid, f.ID), errEnded)
}

// pointAtEnd has the Engine look at a container whose process has ended. What
// it finds, with the exit code that its containerd kept, comes as an event.
func (s *server) pointAtEnd(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, auditBound)
	defer cancel()
	if err := s.refresh(ctx, id); err != nil {
		return err
	}
	if f := s.cache.peek(id); f == nil || !f.State.Running || !s.processEnded(f) {
		return nil
	}
	s.log.Warn("the docker engine has missed the end of a container and is pointed at it", "container", id)
	return s.engine.ContainerKill(ctx, id, endsSignal)
}
