package docker

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/backends/docker/crilog"
)

// gapEvery is how often gaps in one container's log are told of. One that
// writes faster than its log can be copied makes many.
const gapEvery = 10 * time.Second

// logGaps tells of holes in container logs.
type logGaps struct {
	log *slog.Logger

	mu      sync.Mutex
	tell    func(backends.Notice)
	pending map[string]*gaps
}

// gaps are those of one container that are not told of yet.
type gaps struct {
	count         uint64
	after, before time.Time
}

func newLogGaps(log *slog.Logger) *logGaps {
	return &logGaps{log: log, tell: func(backends.Notice) {}, pending: map[string]*gaps{}}
}

// OnNotice implements [backends.Noticer].
func (b *Backend) OnNotice(tell func(backends.Notice)) {
	b.srv.gaps.mu.Lock()
	defer b.srv.gaps.mu.Unlock()
	b.srv.gaps.tell = tell
}

// note takes in a gap. The first is told of at once, more of them together.
func (l *logGaps) note(id string, g crilog.Gap) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pending[id]; p != nil {
		if p.count == 0 {
			p.after = g.After
		}
		p.count, p.before = p.count+1, g.Before
		return
	}
	l.say(id, &gaps{count: 1, after: g.After, before: g.Before})
	l.pending[id] = &gaps{}
	time.AfterFunc(gapEvery, func() { l.flush(id) })
}

// flush tells of what has come together, and waits for more.
func (l *logGaps) flush(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pending[id]
	if p.count == 0 {
		delete(l.pending, id)
		return
	}
	l.say(id, p)
	l.pending[id] = &gaps{}
	time.AfterFunc(gapEvery, func() { l.flush(id) })
}

// say tells of gaps. The caller holds the lock.
func (l *logGaps) say(id string, g *gaps) {
	message := fmt.Sprintf("the engine rotated away what was logged between %s and %s before it was copied: raise logs.maxSize or logs.maxFiles",
		instant(g.after), instant(g.before))
	l.log.Warn("container log has a gap", "container", id, "gaps", g.count, "reason", message)
	l.tell(backends.Notice{Name: backends.NoticeLogGap, ContainerID: id, Message: message, Count: g.count})
}

func instant(t time.Time) string {
	if t.IsZero() {
		return "the start"
	}
	return t.UTC().Format(time.RFC3339Nano)
}
