package stats

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// lookInterval is how often a measurer looks for new containers.
	lookInterval = time.Second
	// costFactor is how much longer than a measurement takes it is to be of
	// use: a large layer is measured more rarely.
	costFactor = 200
	// idleFactor is how many intervals go by before a container is measured
	// again that has used no CPU: nothing in it can have written, but
	// somebody may have from outside.
	idleFactor = 10
)

// Subject is a container with a writable layer.
type Subject struct {
	ID string
	// Dir is where what it has written is; empty where that is not known.
	Dir string
	// Ended containers are measured once more.
	Ended bool
	// Activity returns a number that grows when the container does anything.
	// It is called only when somebody has to decide. Nil is for unknown.
	Activity func() (uint64, bool)
}

// Measurer keeps the sizes of writable layers, measuring one after the other
// for a small part of the time: new ones first, then those that were active,
// then the rest.
type Measurer struct {
	interval time.Duration
	subjects func(context.Context) ([]Subject, error)
	failed   func(id string, err error)
	woken    chan struct{}

	mu   sync.RWMutex
	seen map[string]*measured
}

// NewMeasurer returns a measurer of the subjects, each at most every interval.
// failed is told of a layer that cannot be measured.
func NewMeasurer(interval time.Duration, subjects func(context.Context) ([]Subject, error), failed func(id string, err error)) *Measurer {
	return &Measurer{interval: interval, subjects: subjects, failed: failed, woken: make(chan struct{}, 1), seen: map[string]*measured{}}
}

// Wake has the measurer look for new containers now.
func (m *Measurer) Wake() {
	select {
	case m.woken <- struct{}{}:
	default:
	}
}

// measured is what is known of a subject.
type measured struct {
	layer Layer
	ok    bool
	tried time.Time
	// idle is when it was last seen to have done nothing since.
	idle     time.Time
	ended    bool
	activity uint64
	// cost is how long it took, without the rests.
	cost time.Duration
}

// Layer returns a container's size as it was last measured.
func (m *Measurer) Layer(id string) (Layer, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := m.seen[id]
	if s == nil {
		return Layer{}, false
	}
	return s.layer, s.ok
}

// Run measures until ctx is done.
func (m *Measurer) Run(ctx context.Context) error {
	pace := newPacer()
	for ctx.Err() == nil {
		looked := time.Now()
		// Whoever serves the list tells why it cannot be had; the last
		// numbers stand.
		subjects, err := m.subjects(ctx)
		if err == nil {
			m.keep(subjects)
			for _, s := range m.due(subjects, time.Now()) {
				m.measure(ctx, s, pace)
				// A new container must not wait until all others are done.
				if ctx.Err() != nil || time.Since(looked) > lookInterval {
					break
				}
			}
		}
		if pace.rest(ctx) != nil {
			break
		}
		m.idle(ctx, lookInterval-time.Since(looked))
		pace.began = time.Now()
	}
	return nil
}

// idle waits for d, or until it is woken, or the end.
func (m *Measurer) idle(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-m.woken:
	case <-t.C:
	}
}

// keep forgets what is gone.
func (m *Measurer) keep(subjects []Subject) {
	ids := make(map[string]struct{}, len(subjects))
	for _, s := range subjects {
		ids[s.ID] = struct{}{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.seen {
		if _, ok := ids[id]; !ok {
			delete(m.seen, id)
		}
	}
}

// due returns the subjects that are to be measured now, most urgent first.
func (m *Measurer) due(subjects []Subject, now time.Time) []Subject {
	type turn struct {
		Subject
		rank  int
		since time.Duration
	}
	var turns []turn
	for _, s := range subjects {
		if s.Dir == "" {
			continue
		}
		m.mu.RLock()
		old := m.seen[s.ID]
		m.mu.RUnlock()
		t := turn{Subject: s}
		if old != nil {
			t.since = now.Sub(old.tried)
			if t.rank = old.rank(s, now, m.interval); t.rank < 0 {
				continue
			}
		}
		turns = append(turns, t)
	}
	slices.SortStableFunc(turns, func(a, b turn) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(b.since, a.since))
	})
	out := make([]Subject, len(turns))
	for i, t := range turns {
		out[i] = t.Subject
	}
	return out
}

// rank is how soon a subject's turn is that was measured before: 1 is before
// 2, and -1 is not now.
func (old *measured) rank(s Subject, now time.Time, interval time.Duration) int {
	since := now.Sub(old.tried)
	interval = max(interval, costFactor*old.cost)
	switch {
	case s.Ended != old.ended:
		return 1
	case since < interval, s.Ended && old.ok, now.Sub(old.idle) < interval:
		return -1
	case since >= idleFactor*interval:
		return 2
	case s.Activity == nil:
		return 1
	}
	if a, ok := s.Activity(); ok && a == old.activity {
		old.idle = now
		return -1
	}
	return 1
}

// measure measures one subject. A layer that cannot be measured has no size
// rather than an old one, and gets its next turn as others do.
func (m *Measurer) measure(ctx context.Context, s Subject, pace *pacer) {
	next := &measured{ended: s.Ended}
	if s.Activity != nil {
		// Before it is measured, so that what is written meanwhile counts as
		// a change.
		next.activity, _ = s.Activity()
	}
	before := pace.worked()
	layer, err := measure(ctx, s.Dir, pace)
	if ctx.Err() != nil {
		return
	}
	next.layer, next.ok, next.tried, next.cost = layer, err == nil, time.Now(), pace.worked()-before
	m.mu.Lock()
	old := m.seen[s.ID]
	m.seen[s.ID] = next
	m.mu.Unlock()
	if err != nil && !gone(err) && (old == nil || old.ok) && !errors.Is(err, context.Canceled) {
		m.failed(s.ID, err)
	}
}
