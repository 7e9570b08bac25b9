package proxy

import (
	"context"
	"time"

	"github.com/crimux/crimux/backends"
)

// Off the request path, every backend has a watcher: what a crash left open
// is recovered once the backend answers, then what happens on it without
// crimux is observed. It looks when the backend's own events say that
// something has happened, and now and then all the same; a backend without
// such events is looked at each second.
const (
	// lookEvery lies between two looks at a backend that does not tell of its
	// events, and at one where the last look failed.
	lookEvery = time.Second
	// lookSeldom lies between two looks at one that does and says nothing: an
	// event may be lost, too.
	lookSeldom = 10 * time.Second
	// lookSettle is how long a watcher that was woken waits for what comes
	// with it, lookGap the least between two looks: starting a pod is some ten
	// events.
	lookSettle = 50 * time.Millisecond
	lookGap    = 200 * time.Millisecond
	// recoverAgain lies between two attempts at an operation whose recovery
	// failed.
	recoverAgain = 5 * time.Second
)

// Causes of an observation, as the log has them.
const (
	causeStart     = "start"
	causeReconnect = "reconnect"
	causePoll      = "poll"
	causeEvent     = "event"
)

// watch follows one backend until ctx is done.
func (s *Server) watch(ctx context.Context, m *backends.Member) {
	w := &watcher{s: s, m: m, lane: s.lanes[m.Name()], feed: s.feeds[m.Name()], cause: causeStart}
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		w.step(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-w.lane.woken:
			w.woken = true
			if w.recovered { // calls wait for recovery
				w.settle(ctx)
			}
		}
	}
}

// watcher is the watching of one backend.
type watcher struct {
	s    *Server
	m    *backends.Member
	lane *lane
	feed *feed
	// cause is why the next observation is made.
	cause string
	// woken is set where there is reason to look now.
	woken bool
	// again is set where the last look has failed or left something open.
	again bool
	// looked is when the last look began.
	looked time.Time
	// recovered is set once nothing of earlier runs is open any more.
	recovered bool
	// retryAt is when a failed recovery is tried again.
	retryAt time.Time
	// complained is the last error that was logged, so that one that stays
	// is logged once.
	complained string
}

// settle waits until a look pays off.
func (w *watcher) settle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(max(lookSettle, lookGap-time.Since(w.looked))):
	}
}

func (w *watcher) step(ctx context.Context) {
	w.s.late.flush(w.s.log)
	w.s.endProbes()
	if !w.m.Health().Up {
		// One that nobody has asked yet is not away.
		if w.m.Check() != nil {
			w.cause = causeReconnect
		}
		return
	}
	if !w.recovered && time.Now().After(w.retryAt) {
		err := w.s.recover(ctx, w.m)
		w.complain("recovery is owed", err)
		w.recovered, w.retryAt = err == nil, time.Now().Add(recoverAgain)
		w.lane.clear()
	}
	if !w.due() {
		return
	}
	// What wakes the watcher from here on is not in this look.
	woken := w.woken
	w.woken = false
	cause := w.cause
	if cause == causePoll && woken {
		cause = causeEvent
	}
	w.looked = time.Now()
	var err error
	w.again, err = w.s.observe(ctx, w.m, cause)
	w.complain("observing failed", err)
	if err == nil {
		w.cause = causePoll
	}
}

// due tells whether it is time for a look.
func (w *watcher) due() bool {
	return w.woken || w.again || w.cause != causePoll || !w.feed.listening() || time.Since(w.looked) >= lookSeldom
}

// complain logs an error once for as long as it stays the same.
func (w *watcher) complain(what string, err error) {
	text := ""
	if err != nil {
		text = what + ": " + err.Error()
	}
	if text != "" && text != w.complained {
		w.s.logger.Warn(what, "backend", w.m.Name(), "error", err)
	}
	w.complained = text
}
