package cni

import (
	"context"
	"sync"
)

// keyedLock is one lock per key. The zero value is ready for use.
type keyedLock struct {
	mu   sync.Mutex
	held map[string]*waiters
}

// waiters is the lock of one key; it exists while someone holds or wants it.
type waiters struct {
	free chan struct{} // holds a token while the lock is free
	n    int           // who hold or want it; guarded by keyedLock.mu
}

// lock takes the lock of key, or returns ctx's error. The function returned
// gives it back.
func (k *keyedLock) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	w := k.held[key]
	if w == nil {
		if k.held == nil {
			k.held = map[string]*waiters{}
		}
		w = &waiters{free: make(chan struct{}, 1)}
		w.free <- struct{}{}
		k.held[key] = w
	}
	w.n++
	k.mu.Unlock()

	select {
	case <-w.free:
		return func() {
			w.free <- struct{}{}
			k.leave(key, w)
		}, nil
	case <-ctx.Done():
		k.leave(key, w)
		return nil, ctx.Err()
	}
}

// leave forgets the key's lock with its last user.
func (k *keyedLock) leave(key string, w *waiters) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.n--; w.n == 0 {
		delete(k.held, key)
	}
}
