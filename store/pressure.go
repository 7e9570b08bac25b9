package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
)

// These errors say why an event could not be written. All wrap ErrUnwritable.
var (
	// ErrUnwritable says that a commit failed. The next one is tried all the
	// same: a full disk and a disk that comes back pass.
	ErrUnwritable = errors.New("the log cannot be written")
	// ErrFull says that there is no room: the disk is full, or the log has
	// reached its size and nothing could be taken out.
	ErrFull = errors.New("the log is full")
)

// writeError gives the error of a commit its names.
func writeError(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrUnwritable), errors.Is(err, ErrClosed), errors.Is(err, ErrRefused):
		return err
	case noRoom(err) && !errors.Is(err, ErrFull):
		return fmt.Errorf("%w: %w: %w", ErrUnwritable, ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrUnwritable, err)
}

func noRoom(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Pressure says why nothing new should be begun, or nil: the log is filled to
// three quarters, the disk is nearly full, or the last commit failed. The error
// wraps ErrFull or ErrUnwritable and tells what to do. It is a soft limit: what
// ends something is to be written all the same. It is cheap, for every call.
func (l *Log) Pressure() error {
	if p := l.trouble.Load(); p != nil {
		return *p
	}
	if limit := l.opts.MaxSize / 4 * 3; limit > 0 && l.used.Load() > limit {
		return fmt.Errorf("%w: %d MiB of %d MiB (log.maxSize) are in use, and creates stop at three quarters: "+
			"raise log.maxSize, or lower log.retention", ErrFull, l.used.Load()>>20, l.opts.MaxSize>>20)
	}
	if p := l.diskLow.Load(); p != nil {
		return *p
	}
	return nil
}

// lookAtDisk notes whether the disk is nearly full, and holds the ballast.
func (l *Log) lookAtDisk() {
	if l.opts.Ballast == 0 {
		return
	}
	err := l.keepBallast()
	if err != nil {
		err = fmt.Errorf("%w: the disk of %s is nearly full: %w: make room there", ErrFull, filepath.Dir(l.file.path), err)
		l.diskLow.Store(&err)
		return
	}
	l.diskLow.Store(nil)
}
