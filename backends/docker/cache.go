package docker

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
)

// keepGone is how long it is remembered that a container is gone: longer than
// any answer is under way that was asked for before. Ids do not come back, unless
// with all of an Engine's data.
const keepGone = 10 * time.Minute

// cache is what was last seen of the pods' containers. The feed keeps it equal
// to the Engine, and a call that changes something puts in what came of it
// before it answers. So it is as good as asking, and costs nothing.
//
// What was asked for later wins over what was asked for earlier, in whichever
// order the answers arrive.
type cache struct {
	mu    sync.RWMutex
	items map[string]*found
	gone  map[string]time.Time
	// sorted are the items by kind, newest first; nil after a change.
	sorted map[string][]*found

	feed feedState
	// changed is told of the id of what has changed, after it has.
	changed func(id string)
}

// feedState says whether the cache is equal to the Engine, and if not, how the
// attempt to make it so is going.
type feedState struct {
	whole bool
	// losses counts how often something may have changed unseen.
	losses int
	// tried is closed when the attempt under way has ended, well or not.
	tried chan struct{}
	err   error
	// kick asks for an attempt at once.
	kick chan struct{}
}

func newCache() *cache {
	return &cache{
		items: map[string]*found{}, gone: map[string]time.Time{}, sorted: map[string][]*found{},
		feed:    feedState{tried: make(chan struct{}), kick: make(chan struct{}, 1)},
		changed: func(string) {},
	}
}

// put takes in what the Engine has answered, unless something later is known.
func (c *cache) put(f *found) {
	if c.replace(f) {
		c.changed(f.ID)
	}
}

func (c *cache) replace(f *found) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, gone := c.gone[f.ID]; gone {
		return false
	}
	if old := c.items[f.ID]; old != nil && old.asked.After(f.asked) {
		return false
	}
	c.items[f.ID] = f
	delete(c.sorted, f.kind)
	return true
}

// drop takes out a container that is gone.
func (c *cache) drop(id string) {
	if c.remove(id) {
		c.changed(id)
	}
}

func (c *cache) remove(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(c.gone, func(_ string, at time.Time) bool { return now.Sub(at) > keepGone })
	c.gone[id] = now
	old := c.items[id]
	if old == nil {
		return false
	}
	delete(c.items, id)
	delete(c.sorted, old.kind)
	return true
}

// isGone reports whether a container was removed lately.
func (c *cache) isGone(id string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, gone := c.gone[id]
	return gone
}

// back takes note of what the Engine lists of that which was gone before it was
// asked: it has got its data back, of which it was without for a time.
func (c *cache) back(ids map[string]container.ContainerState, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.gone, func(id string, at time.Time) bool {
		_, there := ids[id]
		return there && at.Before(asked)
	})
}

// missing are the items that are not among ids, as the Engine answered to a
// question of the time asked.
func (c *cache) missing(ids map[string]container.ContainerState, asked time.Time) (gone []string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for id, f := range c.items {
		if _, ok := ids[id]; !ok && f.asked.Before(asked) {
			gone = append(gone, id)
		}
	}
	return gone
}

// peek returns what is known of an id, whether or not the cache is whole.
func (c *cache) peek(id string) *found {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.items[id]
}

// get returns the item with an id, or the only one whose id begins so.
func (c *cache) get(id string) *found {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if f := c.items[id]; f != nil || len(id) == containerIDLen {
		return f
	}
	var one *found
	for full, f := range c.items {
		if !strings.HasPrefix(full, id) {
			continue
		}
		if one != nil {
			return nil // it could be either
		}
		one = f
	}
	return one
}

// all returns the items of a kind, newest first. The slice is shared: it must
// not be changed.
func (c *cache) all(kind string) []*found {
	c.mu.RLock()
	list, ok := c.sorted[kind]
	c.mu.RUnlock()
	if ok {
		return list
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	list = make([]*found, 0, len(c.items))
	for _, f := range c.items {
		if f.kind == kind {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b *found) int {
		return cmp.Or(cmp.Compare(b.createdAtNanos(), a.createdAtNanos()), cmp.Compare(a.ID, b.ID))
	})
	c.sorted[kind] = list
	return list
}

// await returns once the cache is equal to the Engine. Where it is not, that
// is tried at once, and an attempt that fails is the answer.
func (c *cache) await(ctx context.Context) error {
	c.mu.RLock()
	whole, tried := c.feed.whole, c.feed.tried
	c.mu.RUnlock()
	if whole {
		return nil
	}
	poke(c.feed.kick)
	select {
	case <-tried:
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.feed.whole {
		return nil
	}
	return c.feed.err
}

// whole reports whether the cache is equal to the Engine.
func (c *cache) whole() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.feed.whole
}

// attempted says how an attempt to become equal to the Engine has ended.
func (c *cache) attempted(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle(err)
}

// settle ends an attempt. The caller holds the lock.
func (c *cache) settle(err error) {
	c.feed.whole, c.feed.err = err == nil, err
	close(c.feed.tried)
	c.feed.tried = make(chan struct{})
}

// losses is what synced takes, read before the Engine is.
func (c *cache) losses() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.feed.losses
}

// synced says that all of the Engine was read since there were so many losses.
// It reports whether the cache is equal to it: it is not where something may
// have changed unseen after it was read.
func (c *cache) synced(losses int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.feed.losses != losses {
		return false
	}
	c.settle(nil)
	return true
}

// lost says that the cache may differ from the Engine from now on.
func (c *cache) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.feed.whole = false
	c.feed.losses++
}
