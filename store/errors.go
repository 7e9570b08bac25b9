package store

import (
	"errors"
	"fmt"
)

// These errors come from opening and reading the log, with detail around them.
var (
	// ErrDamaged says that the file is not what was written: cut short,
	// overwritten, or altered by a failing disk.
	ErrDamaged = errors.New("the log is damaged")
	// ErrNewer says that the file or a record in it needs a newer crimux.
	ErrNewer = errors.New("the log was written by a newer crimux")
	// ErrLocked says that another process has the file open. It is always
	// found inside a [*LockedError].
	ErrLocked = errors.New("the log is in use")
)

// These errors come from appending to the log.
var (
	// ErrClosed says that the log or reader was closed.
	ErrClosed = errors.New("the log is closed")
	// ErrRefused says that the events of one Append cannot be part of the
	// log as it stands, such as an intent whose operation is open already.
	// None of them was written.
	ErrRefused = errors.New("event refused")
)

// LockedError says who holds the log.
type LockedError struct {
	// Path of the file.
	Path string
	// PID of the holder and its command name; 0 and "" where they could not
	// be found, as for a holder in another PID namespace.
	PID     int
	Command string
}

// Error implements error.
func (e *LockedError) Error() string {
	switch {
	case e.PID == 0:
		return fmt.Sprintf("%s is in use by another process", e.Path)
	case e.Command == "":
		return fmt.Sprintf("%s is in use by process %d", e.Path, e.PID)
	}
	return fmt.Sprintf("%s is in use by %s (process %d)", e.Path, e.Command, e.PID)
}

// Unwrap makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Unwrap() error { return ErrLocked }
