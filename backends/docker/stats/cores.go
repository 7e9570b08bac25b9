package stats

import (
	"strings"
	"sync"
	"time"
)

const (
	// coresMin is the shortest time that a rate is made of: the kernel counts
	// CPU time in ticks, and callers come at any time.
	coresMin = 500 * time.Millisecond
	// coresMax is the longest: what was going on before is of no interest.
	coresMax = 10 * time.Minute
)

// cores turn CPU time into a rate, by what was seen before.
type cores struct {
	mu   *sync.Mutex
	seen map[string]*timeline
}

// timeline holds the last sample and the one before. The two are never closer
// together than coresMin, however often somebody asks.
type timeline struct{ before, last sample }

type sample struct {
	at    time.Time
	usage uint64
}

func newCores() cores { return cores{mu: &sync.Mutex{}, seen: map[string]*timeline{}} }

// rate takes in the CPU time of now and returns nanoseconds per second since
// the newest sample that is old enough; nil if there is none.
func (c cores) rate(key string, now sample) *uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.seen[key]
	// A count that went back is another container's: one that was restarted.
	if t == nil || now.usage < t.last.usage || now.at.Sub(t.last.at) > coresMax {
		c.seen[key] = &timeline{last: now}
		return nil
	}
	if now.at.Sub(t.last.at) >= coresMin {
		t.before, t.last = t.last, now
	}
	if t.before.at.IsZero() {
		return nil
	}
	since := now.at.Sub(t.before.at)
	if since < coresMin {
		return nil
	}
	rate := uint64(float64(now.usage-t.before.usage) / since.Seconds())
	return &rate
}

func (c cores) keep(known func(id string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.seen {
		if !known(strings.TrimPrefix(key, podKey)) {
			delete(c.seen, key)
		}
	}
}
