// Package socket opens the daemon's unix sockets: with their final mode from
// their first instant, never in place of one that somebody listens on, and
// from systemd where it passed them on.
package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

const (
	// dialTimeout bounds the question whether anybody listens on a socket.
	dialTimeout = 500 * time.Millisecond
	// lockPatience is how long the lock on a folder is waited for, which is held
	// for no longer than that question takes.
	lockPatience = 5 * time.Second
	lockRetry    = 5 * time.Millisecond
)

// InUseError says that somebody listens on the socket already.
type InUseError struct {
	Path string
	// PID is the listener's process id, 0 where it cannot be told.
	PID int
}

// Error implements error.
func (e *InUseError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is in use by another process", e.Path)
	}
	return fmt.Sprintf("%s is in use by process %d%s", e.Path, e.PID, comm(e.PID))
}

// Listen opens the socket at address: unix:///path, made with the given mode,
// or fd:// for the one socket that systemd passed on, or fd://NAME for the
// one of that name (FileDescriptorName=). A socket that is left over from a
// process that is gone is replaced; one that is alive gives an *InUseError.
func Listen(address string, mode fs.FileMode) (net.Listener, error) {
	if name, ok := strings.CutPrefix(address, "fd://"); ok {
		return activated(name)
	}
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok || !filepath.IsAbs(path) {
		return nil, fmt.Errorf("listen address %q is neither unix:///path nor fd://", address)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	var l net.Listener
	err := alone(path, func() (err error) {
		if err = vacate(path); err == nil {
			l, err = bind(path, mode)
		}
		return err
	})
	return l, err
}

// alone runs fn while no other daemon opens or closes a socket in the folder of
// path: one that has found a socket dead must not remove what another has put in
// its place meanwhile.
func alone(path string, fn func() error) (err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	// Closing it lets go of the lock.
	defer func() { err = errors.Join(err, dir.Close()) }()
	for began := time.Now(); ; time.Sleep(lockRetry) {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return fn()
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock %s: %w", dir.Name(), err)
		case time.Since(began) > lockPatience:
			return fmt.Errorf("lock %s: another process has had it locked for %s", dir.Name(), lockPatience)
		}
	}
}

// bind makes the socket under a name of its own in a folder that nobody else
// can enter, gives it its mode, and only then puts it in its place.
func bind(path string, mode fs.FileMode) (net.Listener, error) {
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the new socket: %w", err)
	}
	defer os.RemoveAll(tmp)
	born := filepath.Join(tmp, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: born, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(born, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	// A link, unlike a rename, does not replace what another program may have
	// put there meanwhile.
	if err := os.Link(born, path); errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(&InUseError{Path: path}, l.Close())
	} else if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &listener{l, path}, nil
}

// listener removes its socket when it is closed.
type listener struct {
	*net.UnixListener
	path string
}

func (l *listener) Close() error {
	if err := l.UnixListener.Close(); err != nil {
		return err
	}
	return l.remove()
}

// remove takes the socket away, unless another daemon has put its own there since
// this one was closed.
func (l *listener) remove() error {
	err := alone(l.path, func() error { return vacate(l.path) })
	var used *InUseError
	if errors.As(err, &used) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// vacate makes sure that nobody listens at path, and removes a dead socket.
func vacate(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket: move it away or listen elsewhere", path)
	}
	c, err := net.DialTimeout("unix", path, dialTimeout)
	if err == nil {
		pid := peer(c.(*net.UnixConn))
		return errors.Join(&InUseError{path, pid}, c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		// A listener whose queue is full does not refuse: it is alive.
		return &InUseError{Path: path}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a dead socket: %w", err)
	}
	return nil
}

// peer returns the process id of the other end, 0 where it cannot be told.
func peer(c *net.UnixConn) (pid int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// comm returns the name of a process in brackets, "" where it is not known.
func comm(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return " (" + strings.TrimSpace(string(b)) + ")"
}

// activated returns the socket that systemd passed on: the one of that name,
// or with "" the only one there is.
func activated(name string) (net.Listener, error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("sockets passed on by systemd: %w", err)
	}
	var all []net.Listener
	for n, ls := range byName {
		if name == "" || n == name {
			all = append(all, ls...)
		}
	}
	if len(all) != 1 || all[0] == nil {
		return nil, fmt.Errorf("fd://%s: systemd passed on %d such sockets, where one is needed", name, len(all))
	}
	return all[0], nil
}
