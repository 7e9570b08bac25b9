package proxy

import (
	"context"
	"time"

	"github.com/crimux/crimux/backends"
)

// Off the request path, every backend has a watcher: what a crash left open
// is recovered once the backend answers, then what happens on it without
// crimux is observed.
const (
	// observeEvery lies between two looks at a backend.
	observeEvery = time.Second
	// recoverAgain lies between two attempts at an operation whose recovery
	// failed.
	recoverAgain = 5 * time.Second
)

// watch follows one backend until ctx is done.
func (s *Server) watch(ctx context.Context, m *backends.Member) {
	w := &watcher{s: s, m: m, lane: s.lanes[m.Name()], cause: "start"}
	t := time.NewTicker(observeEvery)
	defer t.Stop()
	for {
		w.step(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-w.lane.woken:
		}
	}
}

// watcher is the watching of one backend.
type watcher struct {
	s    *Server
	m    *backends.Member
	lane *lane
	// cause is why the next observation is made.
	cause string
	// recovered is set once nothing of earlier runs is open any more.
	recovered bool
	// retryAt is when a failed recovery is tried again.
	retryAt time.Time
	// complained is the last error that was logged, so that one that stays
	// is logged once.
	complained string
}

func (w *watcher) step(ctx context.Context) {
	w.s.late.flush(w.s.log)
	w.s.endProbes()
	if !w.m.Health().Up {
		w.cause = "reconnect"
		return
	}
	if !w.recovered && time.Now().After(w.retryAt) {
		err := w.s.recover(ctx, w.m)
		w.complain("recovery is owed", err)
		w.recovered, w.retryAt = err == nil, time.Now().Add(recoverAgain)
		w.lane.clear()
	}
	err := w.s.observe(ctx, w.m, w.cause)
	w.complain("observing failed", err)
	if err == nil {
		w.cause = "poll"
	}
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
