package crilog

import (
	"context"
	"sync/atomic"
	"time"
)

// Pauses between attempts when something fails.
const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 10 * time.Second
)

// follower keeps one container's log up to date, in a goroutine of its own, so
// that a slow or full disk delays no other container.
type follower struct {
	c       copier
	poll    time.Duration
	onError func(error)

	wake     chan struct{} // something may have changed
	requests chan request
	stop     chan struct{} // closed: end now
	done     chan struct{} // closed: it has ended
	stopped  atomic.Bool

	waiting []request // for all to be copied
	ending  bool      // when all is copied
	failing bool
}

// request is what somebody waits for.
type request struct {
	kind  kind
	reply chan error // takes one answer without blocking
}

// kind of a request.
type kind int

const (
	drain  kind = iota // all is copied
	reopen             // the target is a new file
	finish             // all is copied and no more will come
)

// end makes the follower end without copying more.
func (f *follower) end() {
	if f.stopped.CompareAndSwap(false, true) {
		close(f.stop)
	}
}

// nudge makes the follower look.
func (f *follower) nudge() {
	select {
	case f.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// ask hands in a request and waits for its answer.
func (f *follower) ask(ctx context.Context, k kind) error {
	r := request{k, make(chan error, 1)}
	select {
	case f.requests <- r:
	case <-f.done:
		return ErrNotFollowed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-f.done:
		select {
		case err := <-r.reply:
			return err
		default:
			return ErrNotFollowed
		}
	}
}

// run copies until the follower is ended or the container's log is complete.
// Who calls it closes done.
func (f *follower) run() {
	defer func() { f.report(f.c.close()) }()
	for pause := retryFirst; !f.stopped.Load(); {
		f.take()
		more, err := f.c.batch()
		if f.report(err); err != nil {
			f.wait(pause, nil)
			pause = min(2*pause, retryMost)
			continue
		}
		pause = retryFirst
		if more {
			continue
		}
		for _, r := range f.waiting {
			r.reply <- nil
		}
		f.waiting = nil
		if f.ending {
			return
		}
		f.wait(f.poll, f.wake)
	}
}

// take takes up the requests that are there.
func (f *follower) take() {
	for {
		select {
		case r := <-f.requests:
			f.accept(r)
		default:
			return
		}
	}
}

// accept takes up one request.
func (f *follower) accept(r request) {
	if r.kind == reopen {
		r.reply <- f.c.reopen()
		return
	}
	f.waiting = append(f.waiting, r)
	f.ending = f.ending || r.kind == finish
}

// wait waits for time, a change or a request.
func (f *follower) wait(d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-f.stop:
	case r := <-f.requests:
		f.accept(r)
	}
}

// report tells of the first error of a row, and of its end.
func (f *follower) report(err error) {
	if failing := err != nil; failing != f.failing {
		f.failing = failing
		f.onError(err)
	}
}
