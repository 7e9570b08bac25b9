package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// sweepAgain lies between two attempts to undo what is left of rehearsals.
const sweepAgain = time.Second

// undo takes away what the rehearsal has made. It looks for it on the backend,
// since an operation that was cut short may have taken effect all the same.
func (r *rehearsal) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, undoBound)
	defer cancel()
	r.say("removing it")
	err := errors.Join(
		r.s.undoRehearsals(ctx, r.target, func(id string) bool { return id == r.id }),
		r.s.removeLogs(r.id))
	if r.report.Undone = err == nil; err != nil {
		r.report.Owed = err.Error()
		r.s.rehearsals.owe(r.target.Name())
		r.s.logger.Warn("a rehearsal is left: it is removed as soon as that can be done", "backend", r.target.Name(), "id", r.id, "error", err)
	}
}

// undoRehearsals stops and removes all sandboxes of the rehearsals that which
// selects, and their logs.
func (s *Server) undoRehearsals(ctx context.Context, m *backends.Member, which func(id string) bool) error {
	a, err := read(ctx, m, runtimeapi.RuntimeService_ListPodSandbox_FullMethodName, backends.NewFrame(nil))
	if err != nil {
		return err
	}
	left := make(map[string]string)
	wire.Message(a.Body.Bytes()).Each(1, func(item wire.Message) bool {
		if id := item.Map(5)[backends.LabelRehearsal]; id != "" && which(id) {
			left[item.String(1)] = id
		}
		return true
	})
	a.Body.Free()
	var errs []error
	for sandbox, id := range left {
		s.rehearsals.note(sandbox)
		if err := s.undoSandbox(ctx, m, sandbox); err != nil {
			errs = append(errs, fmt.Errorf("sandbox %s: %w", sandbox, err))
			continue
		}
		errs = append(errs, s.removeLogs(id))
	}
	return errors.Join(errs...)
}

// undoStop is how long a sandbox has to stop by itself: CRI-O waits nearly as
// long as it is given for containers that do not heed SIGTERM. What has not
// stopped by then is killed as it is removed.
const undoStop = 15 * time.Second

// undoSandbox stops and removes a sandbox with its containers.
func (s *Server) undoSandbox(ctx context.Context, m *backends.Member, sandbox string) error {
	stopping, cancel := context.WithTimeout(ctx, s.rehearsals.undoStop)
	defer cancel()
	err := s.undoCall(stopping, m, runtimeapi.RuntimeService_StopPodSandbox_FullMethodName, sandbox)
	if err != nil && stopping.Err() == nil && status.Code(err) != codes.DeadlineExceeded {
		return err // the backend's clock may be ahead of ours
	}
	return s.undoCall(ctx, m, runtimeapi.RuntimeService_RemovePodSandbox_FullMethodName, sandbox)
}

// undoCall makes a call that takes a sandbox; that it is gone is as good.
func (s *Server) undoCall(ctx context.Context, m *backends.Member, full, sandbox string) error {
	method := methods[full]
	a, err := s.send(ctx, &call{
		method: method, target: m, frame: backends.NewFrame(byID(sandbox)),
		intent: sandboxCallIntent(method, sandbox, s.knownSandbox(sandbox)),
	})
	switch {
	case err == nil:
		a.Body.Free()
	case status.Code(err) != codes.NotFound:
		return err
	}
	return nil
}

func (s *Server) removeLogs(id string) error {
	return os.RemoveAll(filepath.Join(s.rehearsalFolder(), filepath.Base(id)))
}

// removeOldLogs removes the logs that a crash has left.
func (s *Server) removeOldLogs() error {
	list, err := os.ReadDir(s.rehearsalFolder())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range list {
		if !s.rehearsals.isActive(e.Name()) {
			errs = append(errs, s.removeLogs(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// sweepRehearsals undoes what a crash, or a backend that was away, has left of
// rehearsals, until ctx is done.
func (s *Server) sweepRehearsals(ctx context.Context) {
	complained := ""
	for {
		away, err := s.sweepOnce(ctx)
		if text := fmt.Sprint(err); err != nil && text != complained && ctx.Err() == nil {
			s.logger.Warn("a rehearsal is left", "error", err)
			complained = text
		}
		var again <-chan time.Time
		if away || err != nil {
			again = time.After(sweepAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.rehearsals.woken:
		case <-again:
		}
	}
}

// sweepOnce undoes what can be undone now. Some may be left where a backend is
// away or not recovered yet, which others tell of, and where there is an error.
func (s *Server) sweepOnce(ctx context.Context) (away bool, err error) {
	var errs []error
	for _, m := range s.set.All() {
		if owed, _ := s.rehearsals.owes(m.Name()); owed == 0 {
			continue
		}
		if !m.Health().Up || !s.lanes[m.Name()].isClear() {
			away = true
			continue
		}
		if err := s.sweepBackend(ctx, m); err != nil {
			errs = append(errs, fmt.Errorf("backend %q: %w", m.Name(), err))
		}
	}
	if len(errs) == 0 && !away {
		errs = append(errs, s.removeOldLogs())
	}
	return away, errors.Join(errs...)
}

func (s *Server) sweepBackend(ctx context.Context, m *backends.Member) error {
	ctx, cancel := context.WithTimeout(ctx, undoBound)
	defer cancel()
	// What is owed from now on is for the next time, and so is what a rehearsal
	// may leave that is not over.
	owed, active := s.rehearsals.owes(m.Name())
	err := s.undoRehearsals(ctx, m, func(id string) bool { return !s.rehearsals.isActive(id) })
	if err == nil && !active {
		s.rehearsals.settle(m.Name(), owed)
	}
	return err
}

// owe notes that something is left on a backend.
func (r *rehearsals) owe(backend string) {
	r.mu.Lock()
	r.owed[backend]++
	r.mu.Unlock()
	r.wake()
}

// wake makes the sweeper look at once.
func (r *rehearsals) wake() { poke(r.woken) }

// owes tells how often it was noted that something is left on a backend, and
// whether a rehearsal is under way, which the sweeper leaves alone.
func (r *rehearsals) owes(backend string) (owed int, active bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owed[backend], r.active != ""
}

// settle notes that nothing is left on a backend, unless it was noted that there
// is since it was owed so often. Until then lists are looked through.
func (r *rehearsals) settle(backend string, owed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owed[backend] == owed {
		delete(r.owed, backend)
	}
}
