package docker

import (
	"context"
	"crypto/rand"
	"maps"
	"sync"
	"time"

	"github.com/crimux/crimux/backends"
)

// keepUndone is how long it is remembered that an operation was undone: longer
// than anything of it can still be seen.
const keepUndone = time.Hour

// operations are the creations under way and those that are half undone: what
// decides whether an object is listed, and as what.
type operations struct {
	mu  sync.Mutex
	all map[string]operation
}

type operation struct {
	state opState
	ended time.Time
}

type opState int

const (
	opRunning    opState = iota
	opDone               // what it made is there: nothing to remember
	opUndone             // what it made is gone, or it made nothing
	opUnfinished         // something of it is left and must be cleaned
)

// visibility is how an object appears in a list.
type visibility int

const (
	visible visibility = iota
	// hidden: being made, or on its way out.
	hidden
	// broken: there, and never ready again.
	broken
)

func newOperations() *operations { return &operations{all: map[string]operation{}} }

// begin opens the operation that j belongs to and returns its id. A call that
// is not recorded gets an id of its own.
func (o *operations) begin(j backends.Journal) (op string) {
	op = j.Op()
	if op == "" {
		op = "unrecorded-" + rand.Text()
	}
	o.set(op, opRunning)
	return op
}

// set says how op stands.
func (o *operations) set(op string, state opState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(o.all, func(_ string, e operation) bool {
		return e.state == opUndone && now.Sub(e.ended) > keepUndone
	})
	if state == opDone {
		delete(o.all, op)
		return
	}
	o.all[op] = operation{state: state, ended: now}
}

// undone reports whether op was undone: nothing of it is to be there.
func (o *operations) undone(op string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, ok := o.all[op]
	return ok && e.state == opUndone
}

// look says how what op made is to be shown.
func (o *operations) look(op string) visibility {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, ok := o.all[op]
	switch {
	case !ok:
		return visible
	case e.state == opRunning, e.state == opUndone:
		return hidden
	case e.state == opUnfinished:
		return broken
	}
	return visible
}

// keyLocks are mutexes by key that a context can give up waiting for.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	sem     chan struct{}
	waiting int
}

func newKeyLocks() *keyLocks { return &keyLocks{held: map[string]*keyLock{}} }

// lock takes the lock of key and returns what gives it back.
func (l *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	k, ok := l.held[key]
	if !ok {
		k = &keyLock{sem: make(chan struct{}, 1)}
		l.held[key] = k
	}
	k.waiting++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.waiting--; k.waiting == 0 {
			delete(l.held, key)
		}
	}
	select {
	case k.sem <- struct{}{}:
		return func() { <-k.sem; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
