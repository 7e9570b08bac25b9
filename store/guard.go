package store

import (
	"errors"
	"fmt"
	"runtime/debug"

	berrors "go.etcd.io/bbolt/errors"
)

// guard runs fn, which reads memory that a file is mapped to. A page that
// cannot be read is a fault (SIGBUS) there, and what bbolt finds to be
// impossible is a panic: both become ErrDamaged. fn must run no code but
// bbolt's and ours, and no other goroutine.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &faultError{cause: r}
		}
	}()
	return fn()
}

// faultError is ErrDamaged as a fault or panic told of it.
type faultError struct{ cause any }

func (e *faultError) Error() string {
	return fmt.Sprintf("%v: reading it failed: %v", ErrDamaged, e.cause)
}

func (e *faultError) Unwrap() error { return ErrDamaged }

// boltError turns what bbolt says of a file into the errors of this package.
func boltError(err error) error {
	switch {
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return ErrClosed
	}
	return err
}
