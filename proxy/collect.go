package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store"
)

const (
	// collectEvery lies between two collections of what networks left behind,
	// collectAgain between attempts at one that could not be made.
	collectEvery = time.Hour
	collectAgain = 10 * time.Second
	collectBound = 2 * time.Minute
)

// everyCreation is more creations of sandboxes than there can be at once.
const everyCreation = 1 << 30

// collector has network plugins give back what belongs to no sandbox. What
// belongs to one is only known while all backends answer and none of them is
// making one: a plugin that is not told of a sandbox takes its network away.
type collector struct {
	s *Server
	// creations is held in part by each operation that makes a sandbox, and
	// whole by a collection.
	creations *semaphore.Weighted
	// every and again are collectEvery and collectAgain.
	every, again time.Duration
}

func newCollector(s *Server) *collector {
	return &collector{s: s, creations: semaphore.NewWeighted(everyCreation), every: collectEvery, again: collectAgain}
}

// creating is called when a sandbox is about to be made; done when it is.
func (c *collector) creating(ctx context.Context) (done func(), err error) {
	if err := c.creations.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { c.creations.Release(1) }, nil
}

// configured are the backends that are to collect.
func (c *collector) configured() (all []backends.NetworkCollector) {
	for _, b := range c.s.config.Backends {
		m := c.s.set.Get(b.Name)
		if m == nil || !b.CNI.GC {
			continue
		}
		if n, ok := m.Backend.(backends.NetworkCollector); ok {
			all = append(all, n)
		}
	}
	return all
}

// run collects now and then until ctx is done.
func (c *collector) run(ctx context.Context) {
	all := c.configured()
	complained := ""
	for len(all) > 0 {
		pause := c.every
		if err := c.collect(ctx, all); err != nil {
			pause = c.again
			if text := err.Error(); text != complained && ctx.Err() == nil {
				complained = text
				c.s.logger.Warn("networks are not cleaned up", "error", err)
			}
		} else {
			complained = ""
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// collect makes sure that all sandboxes are known, and has the backends
// collect what is none's.
func (c *collector) collect(ctx context.Context, all []backends.NetworkCollector) error {
	ctx, cancel := context.WithTimeout(ctx, collectBound)
	defer cancel()
	for _, m := range c.s.set.All() {
		if !m.Health().Up || !c.s.lanes[m.Name()].isClear() {
			return fmt.Errorf("backend %q is away or not recovered yet: its sandboxes are not known", m.Name())
		}
	}
	if !c.creations.TryAcquire(everyCreation) {
		return errors.New("sandboxes are being made")
	}
	defer c.creations.Release(everyCreation)
	for _, m := range c.s.set.All() {
		if _, err := c.s.observe(ctx, m, "collect"); err != nil {
			return fmt.Errorf("backend %q: %w", m.Name(), err)
		}
	}
	var keep []string
	open := false
	c.s.log.View(func(st *store.State) {
		for sb := range st.Sandboxes() {
			keep = append(keep, sb.GetId())
		}
		for op := range st.Operations() {
			open = open || op.GetIntent().GetRoute() != nil
		}
	})
	if open {
		// One of a run before: looks leave its sandbox to its recovery.
		return errors.New("what came of a sandbox that was being made is not known yet")
	}
	for _, n := range all {
		if err := n.CollectNetworks(ctx, keep); err != nil {
			return err
		}
	}
	return nil
}
