package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// lockPatience is how long a lock is waited for: enough for a process
	// that is just ending, and for a command that is reading the file.
	lockPatience = 300 * time.Millisecond
	lockRetry    = 10 * time.Millisecond
)

// lock takes the advisory lock on f that bbolt takes too: on the same open
// file the two are one. It gives up with a *LockedError after lockPatience.
func lock(f *os.File, how int) error {
	for start := time.Now(); ; time.Sleep(lockRetry) {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		case time.Since(start) > lockPatience:
			return lockedError(f)
		}
	}
}

func lockedError(f *os.File) *LockedError {
	e := &LockedError{Path: f.Name()}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return e // Who holds it is not to be found: the fact remains.
	}
	info, err := f.Stat()
	if err != nil {
		return e
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return e
	}
	e.PID = holder(locks, st.Ino)
	if comm, err := os.ReadFile("/proc/" + strconv.Itoa(e.PID) + "/comm"); err == nil && e.PID != 0 {
		e.Command = string(bytes.TrimSpace(comm))
	}
	return e
}

// holder finds the process that holds a flock on the file with that inode
// number, 0 if none is listed. The device is not compared: that of /proc/locks
// is not the one that stat reports on overlayfs and btrfs.
//
//	1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234567 0 EOF
func holder(locks []byte, ino uint64) int {
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], ":"+strconv.FormatUint(ino, 10)) {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
