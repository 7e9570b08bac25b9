package docker

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
)

// dockerd knows from its containerd's events that a container has ended. It
// misses those that come while that containerd is away and until the two are
// connected again, shows such a container as running for ever, and the kubelet
// never starts another. A signal to a process that is not there makes it look.
const (
	// endsEvery lies between two looks at the containers' processes; each
	// endsThorough-th look is at whose they are, too, which takes twenty times
	// as long.
	endsEvery    = 2 * time.Second
	endsThorough = 15
	// endsGrace is how long the Engine has to tell of an end by itself.
	endsGrace = 3 * time.Second
	// endsAgain is how long it has to find one that it was pointed at. It
	// waits ten seconds for the event before it looks.
	endsAgain = 30 * time.Second
	// endsSignal changes nothing where there is a process all the same.
	endsSignal = "CONT"
)

// endWatch looks for ends that the Engine has missed.
type endWatch struct {
	*server
	// due are the containers that the Engine shows as running and whose process
	// has ended, with when to do something about it.
	due map[string]time.Time
	// sees is set once the process of any container was there: who is in a pid
	// namespace of its own sees none, and must not take all for dead.
	sees bool
	// looks is how many there were.
	looks int
}

// run points the Engine at the ends that it has missed, until ctx is done.
func (w *endWatch) run(ctx context.Context) {
	tick := time.NewTicker(endsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, id := range w.missed(now) {
				if err := w.pointAtEnd(ctx, id); err != nil {
					// Its containerd is still away, for one.
					w.due[id] = time.Now().Add(endsGrace)
				}
			}
		}
	}
}

// missed returns the containers at which the Engine is to be pointed now.
func (w *endWatch) missed(now time.Time) (ids []string) {
	before, thorough := w.due, w.looks%endsThorough == 0
	w.due = map[string]time.Time{}
	w.looks++
	for _, kind := range []string{typeSandbox, typeContainer} {
		for _, f := range w.cache.all(kind) {
			if !f.State.Running {
				continue
			}
			at, known := before[f.ID]
			if !w.processEnded(f, thorough || known) {
				w.sees = true
				continue
			}
			switch {
			case !known:
				at = now.Add(endsGrace)
			case w.sees && !now.Before(at):
				ids, at = append(ids, f.ID), now.Add(endsAgain)
			}
			w.due[f.ID] = at
		}
	}
	return ids
}

// processEnded tells whether the container's first process is no more. Its
// number may be another's by now, which a thorough look shows.
func (s *server) processEnded(f *found, thorough bool) bool {
	if thorough {
		return errors.Is(s.node.proc.belongs(f.State.Pid, f.ID), errEnded)
	}
	_, err := os.Lstat(s.node.proc.file(strconv.Itoa(f.State.Pid), ""))
	return gone(err)
}

// pointAtEnd has the Engine look at a container whose process has ended. What
// it finds, with the exit code that its containerd kept, comes as an event.
func (s *server) pointAtEnd(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, auditBound)
	defer cancel()
	if err := s.refresh(ctx, id); err != nil {
		return err
	}
	if f := s.cache.peek(id); f == nil || !f.State.Running || !s.processEnded(f, true) {
		return nil
	}
	s.log.Warn("the docker engine has missed the end of a container and is pointed at it", "container", id)
	s.pointed.note(id, time.Now())
	return s.engine.ContainerKill(ctx, id, endsSignal)
}

// pointedAt are the containers whose end the Engine was pointed at, since when
// they were known to have ended.
type pointedAt struct {
	mu  sync.Mutex
	ids map[string]time.Time
}

func newPointedAt() *pointedAt { return &pointedAt{ids: map[string]time.Time{}} }

func (p *pointedAt) note(id string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.ids[id]; !known {
		p.ids[id] = at
	}
}

// forget lets go of a removed container.
func (p *pointedAt) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ids, id)
}

const (
	// exitUnknown is what runtimes give where there is no exit code.
	exitUnknown = 255
	whyUnknown  = "the docker engine has missed its end, and does not know how it came"
)

// correct takes back what the Engine made up. Where its containerd, too, has
// forgotten the end, newer Engines show a success at the moment at which they
// looked.
func (p *pointedAt) correct(id string, st *container.State) {
	p.mu.Lock()
	at, ended := p.ids[id]
	p.mu.Unlock()
	again := engineTime(st.StartedAt).After(at)
	if ended && !again && !st.Running && st.ExitCode == 0 && engineTime(st.FinishedAt).After(at) {
		st.ExitCode, st.Error = exitUnknown, whyUnknown
	}
}
