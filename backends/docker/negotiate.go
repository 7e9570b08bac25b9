package docker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types"
)

// pinger is what negotiation needs of an engine.
type pinger interface {
	Ping(ctx context.Context) (types.Ping, error)
	NegotiateAPIVersionPing(types.Ping)
}

// negotiation settles the API version before the first call that depends on
// it. The client would do so by itself, but reads the version without a lock
// in some calls while it is still being settled by others.
type negotiation struct {
	engine pinger
	one    *keyLocks // one asks at a time, and the others can give up
	done   atomic.Bool
}

func newNegotiation(e pinger) *negotiation { return &negotiation{engine: e, one: newKeyLocks()} }

// ensure returns once the version is settled, and the Engine's error where
// that cannot be asked.
func (n *negotiation) ensure(ctx context.Context) error {
	if n.done.Load() {
		return nil
	}
	unlock, err := n.one.lock(ctx, "")
	if err != nil {
		return err
	}
	defer unlock()
	if n.done.Load() {
		return nil
	}
	ping, err := n.engine.Ping(ctx)
	if err != nil {
		return err
	}
	n.engine.NegotiateAPIVersionPing(ping)
	n.done.Store(true)
	return nil
}

// again settles the version anew, with an Engine that may be another one.
func (n *negotiation) again(ctx context.Context) error {
	n.done.Store(false)
	return n.ensure(ctx)
}

// await returns once the version is settled; false where ctx is done first.
func (n *negotiation) await(ctx context.Context) bool {
	for n.ensure(ctx) != nil {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(reconnectFirst):
		}
	}
	return true
}
