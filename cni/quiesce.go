package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// quiesceTick bounds how long a wait for a dying process goes without looking
// whether ctx has ended.
const quiesceTick = 100 * time.Millisecond

// quiesceGrace is how long orphaned plugins have to end by themselves. It is
// long for a plugin, and short for a recovery.
const quiesceGrace = 5 * time.Second

// Quiesce returns when no plugin process that a crashed daemon left behind
// works for the sandbox id any more. It is called in recovery, before a DEL: a
// plugin that finished its ADD after the DEL would leak what it reserved.
//
// Plugins are let finish first, and killed only after a grace: one that is
// killed in the middle of a DEL may have removed the pod's interface, by which
// the next DEL would have found the NAT rules that are still there.
//
// It knows them by CNI_CONTAINERID in their environment, which delegates such
// as host-local inherit. Operations of this process on the id are waited for
// and not killed.
func (n *Networks) Quiesce(ctx context.Context, id string) error {
	if id == "" {
		return fmt.Errorf("%w: no sandbox id", ErrInvalid)
	}
	unlock, err := n.locks.lock(ctx, id)
	if err != nil {
		return fmt.Errorf("end CNI plugins of %s: wait for an operation of our own: %w", id, err)
	}
	defer unlock()
	killAt := time.Now().Add(n.grace)
	// Again until nothing is found: a plugin may have started another between
	// the look and the kill.
	for {
		found, err := endWorkers(ctx, id, killAt)
		if err != nil {
			return fmt.Errorf("end CNI plugins of %s: %w", id, err)
		}
		if !found {
			return nil
		}
	}
}

// endWorkers waits for every process that works for id now, and kills those
// that still do so at killAt.
func endWorkers(ctx context.Context, id string, killAt time.Time) (found bool, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !worksFor(pid, id) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return found, err
		}
		found = true
		if err := end(ctx, pid, id, killAt); err != nil {
			return found, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return found, nil
}

// worksFor reports whether the process is a plugin run for id. A process that
// has ended, or is a zombie, has no environment.
func worksFor(pid int, id string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil || !bytes.Contains(b, []byte(id)) {
		return false
	}
	var container, command bool
	for _, kv := range bytes.Split(b, []byte{0}) {
		container = container || string(kv) == "CNI_CONTAINERID="+id
		command = command || bytes.HasPrefix(kv, []byte("CNI_COMMAND="))
	}
	return container && command
}

// end waits for one process, and kills it at killAt. The pid may have passed
// to another process since it was looked at, so it is looked at again when a
// pidfd holds it fast.
func end(ctx context.Context, pid int, id string, killAt time.Time) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pidfd: %w", err)
	}
	defer unix.Close(fd)
	if !worksFor(pid, id) {
		return nil
	}
	killed := false
	for {
		if !killed && !time.Now().Before(killAt) {
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill: %w", err)
			}
			killed = true
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(quiesceTick.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for its end: %w", err)
		}
		if n > 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("still there: %w", err)
		}
	}
}
