package crilog

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// retryFirst and retryMost are the pauses between attempts when something
	// fails.
	retryFirst = 50 * time.Millisecond
	retryMost  = 10 * time.Second
	// rest is how long a source is let alone when all of it was copied. The
	// Engine writes record by record: to look at each costs more than it does.
	rest = 10 * time.Millisecond
	// often is how soon after another change one must come to be worth a rest.
	often = 10 * rest
	// busyAfter is after how many rests in a row that had a change in them a
	// source is looked at after each rest and no longer watched: the kernel
	// tells of each record, and to hear of it costs more than to look.
	busyAfter = 3
	// calmAfter is after how many looks in vain it is watched again.
	calmAfter = 50
)

// follower keeps one container's log up to date, in a goroutine of its own, so
// that a slow or full disk delays no other container.
type follower struct {
	c       copier
	poll    time.Duration
	onError func(error)
	// watch begins to watch the source, or ends it. It reports whether the
	// source is watched now.
	watch func(on bool) bool

	wake     chan struct{} // something may have changed
	requests chan request
	stop     chan struct{} // closed: end now
	done     chan struct{} // closed: it has ended
	stopped  atomic.Bool

	waiting []request // for all to be copied
	ending  bool      // when all is copied
	failing bool

	last      time.Time // when something was copied
	busy      int       // rests with a change in them
	unwatched bool      // since it is busy
	calm      int       // looks in vain since then
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
	copied := false
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
			copied = true
			continue
		}
		for _, r := range f.waiting {
			r.reply <- nil
		}
		f.waiting = nil
		if f.ending {
			return
		}
		f.idle(copied)
		copied = false
	}
}

// idle waits until it is worth to look at the source again. copied tells
// whether the last look found something.
func (f *follower) idle(copied bool) {
	switch {
	case f.unwatched && copied:
		f.calm = 0
		f.wait(rest, nil)
	case f.unwatched && f.calm < calmAfter:
		f.calm++
		f.wait(rest, nil)
	case f.unwatched:
		// The next look finds what came before it was watched.
		f.unwatched, f.calm, f.busy = false, 0, 0
		f.watchAgain()
	case copied && f.oftenNow() && !f.wait(rest, nil):
		// Asked for something.
	case copied && f.woken():
		if f.busy++; f.busy == busyAfter {
			f.unwatched = true
			f.watch(false)
		}
	default:
		f.busy = 0
		f.wait(f.poll, f.wake)
	}
}

// oftenNow reports whether what was copied now came soon after what was copied
// before.
func (f *follower) oftenNow() bool {
	now := time.Now()
	soon := now.Sub(f.last) < often
	f.last = now
	return soon
}

// watchAgain watches the source, or has it looked at more often where that
// cannot be done.
func (f *follower) watchAgain() {
	if !f.watch(true) {
		f.poll = min(f.poll, blindPoll)
	}
}

// woken reports whether something has changed.
func (f *follower) woken() bool {
	select {
	case <-f.wake:
		return true
	default:
		return false
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

// wait waits for time, a change or a request, and reports whether it was the
// time.
func (f *follower) wait(d time.Duration, wake <-chan struct{}) (whole bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-wake:
	case <-f.stop:
	case r := <-f.requests:
		f.accept(r)
	}
	return false
}

// report tells of the first error of a row, and of its end.
func (f *follower) report(err error) {
	if failing := err != nil; failing != f.failing {
		f.failing = failing
		f.onError(err)
	}
}
