package streaming

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// killBound is how long a command's end may take. It runs when the caller's
// own context may have ended.
const killBound = 10 * time.Second

// kill ends a command and its descendants, and returns when they are gone.
func (s *Server) kill(ctx context.Context, x *execution) error {
	if !x.asked {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killBound)
	defer cancel()
	p, err := s.process(ctx, x)
	if err != nil || p == nil {
		return err
	}
	return p.kill(ctx)
}

// hangup tells a command on a terminal that its terminal is gone, as the
// kernel does when a terminal is closed. A command without a terminal sees the
// end of its input and goes on to its own end.
func (s *Server) hangup(ctx context.Context, x *execution, tty bool) error {
	if !x.asked || !tty {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killBound)
	defer cancel()
	p, err := s.process(ctx, x)
	if err != nil || p == nil {
		return err
	}
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGCONT} {
		if err := p.signalRoot(sig); err != nil {
			return fmt.Errorf("hang up process %d: %w", p.root, err)
		}
	}
	return nil
}

// process returns the host's view of a command that the Engine was asked to
// start: nil when there is nothing to end. It waits for an Engine that is
// still about to start it.
func (s *Server) process(ctx context.Context, x *execution) (*family, error) {
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		seen, err := s.engine.ContainerExecInspect(ctx, x.id)
		switch {
		case errdefs.IsNotFound(err), errdefs.IsConflict(err):
			// The container is gone or has stopped, and its processes with it.
			return nil, nil
		case err != nil:
			return nil, engineError(ctx, "find the command's process", err)
		case seen.Pid != 0:
			return &family{root: seen.Pid, container: seen.ContainerID}, nil
		case !seen.Running && seen.ExitCode != 0:
			return nil, nil // it could not be started
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, status.Error(codes.Unavailable, "the Docker Engine was asked to start the command and has not: it may still do so")
		}
	}
}

// family is a command's process with its descendants, by the host's process
// ids.
type family struct {
	root      int
	container string // full id
}

// stopLooks is how often members are looked at, at most, for whether they have
// all stopped before they are killed as they are: one may be stuck in the kernel.
const stopLooks = 6

// kill ends all members, again until none is found. They are stopped first: a
// member that starts another while it is killed leaves an orphan, which can be
// known by its session only, and may have left that.
func (f *family) kill(ctx context.Context) error {
	looks, calm := 0, 0
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		members, err := f.members()
		if err != nil {
			return fmt.Errorf("find the command's processes: %w", err)
		}
		if len(members) == 0 {
			return nil
		}
		calm++
		if !allStopped(members) {
			calm = 0
		}
		// Twice: what one of them had started while the first look began is found
		// by the second.
		sig := unix.SIGKILL
		if looks++; looks <= stopLooks && calm < 2 {
			sig = unix.SIGSTOP
		}
		for _, m := range members {
			if err := m.signal(sig); err != nil {
				return fmt.Errorf("end process %d: %w", m.pid, err)
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("%d processes of the command do not end: %w", len(members), err)
		}
	}
}

// allStopped reports whether none of some processes could start another when it
// was looked at.
func allStopped(all []process) bool {
	return !slices.ContainsFunc(all, func(p process) bool { return !p.stopped })
}

// signalRoot signals the command itself, if it is still there.
func (f *family) signalRoot(sig unix.Signal) error {
	p, err := look(f.root)
	if err != nil || !p.in(f.container) {
		return nil // it has ended
	}
	return p.signal(sig)
}

// members returns the living processes of the family: the command, what it
// started and what those started, and what was orphaned of these, which is
// known by its session. A process that was orphaned and left the session, a
// daemon on purpose, is not found.
//
// Only processes of the container are members, so that a process id that has
// passed to another process does no harm.
func (f *family) members() ([]process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	in := map[int]bool{f.root: true}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if !in[p.pid] && (in[p.parent] || p.session == f.root) {
				in[p.pid], grown = true, true
			}
		}
	}
	var out []process
	for _, p := range all {
		if in[p.pid] && !p.dead && p.in(f.container) {
			out = append(out, p)
		}
	}
	return out, nil
}

// signal signals the process that was looked at, and not another that has its
// id now. A process that is gone is no error.
func (p process) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	now, err := look(p.pid)
	if err != nil || now.started != p.started {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}
