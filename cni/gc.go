package cni

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// gcBound is how long plugins may collect: new attachments wait for them.
const gcBound = 30 * time.Second

// attached are the attachments that this process made or is making, and the
// gate that new ones wait at while plugins collect garbage: a plugin would take
// away what an ADD that it was not told of has just reserved.
type attached struct {
	mu   sync.Mutex
	live map[types.GCAttachment]bool
	shut chan struct{} // closed when the gate opens; nil while it is open
}

// enter waits for the gate and notes an attachment.
func (a *attached) enter(ctx context.Context, one types.GCAttachment) error {
	for {
		a.mu.Lock()
		shut := a.shut
		if shut == nil {
			if a.live == nil {
				a.live = map[types.GCAttachment]bool{}
			}
			a.live[one] = true
			a.mu.Unlock()
			return nil
		}
		a.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
			return fmt.Errorf("wait for the plugins' garbage collection: %w", ctx.Err())
		}
	}
}

// leave forgets an attachment whose DEL has succeeded.
func (a *attached) leave(one types.GCAttachment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.live, one)
}

// now returns what has passed the gate and has had no DEL.
func (a *attached) now() map[types.GCAttachment]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.live)
}

// close shuts the gate, until open is called. One at a time may do so.
func (a *attached) close() (open func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.shut = make(chan struct{})
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		close(a.shut)
		a.shut = nil
	}
}

// GC has the plugins of the default network give back what belongs to no
// attachment. keep are the ids of all sandboxes of the node, whichever runtime
// they are on; attachments that this process is making are kept as well. It
// returns the ids of the attachments that it took away.
//
// Attachments in libcni's cache that are not to be kept get their DEL first,
// with the configuration of their ADD. Nothing is done for networks older than
// CNI 1.1, or with disableGC, and plugins that do not know GC are left out.
func (n *Networks) GC(ctx context.Context, keep []string) (removed []string, err error) {
	list, err := n.usable()
	if err != nil {
		return nil, err
	}
	if list.DisableGC || !knowsVerbs(list.CNIVersion) || !n.collecting.TryLock() {
		return nil, nil
	}
	defer n.collecting.Unlock()
	asked, err := n.withVerbs(ctx, list)
	if err != nil {
		return nil, fmt.Errorf("network %q: GC: %w", list.Name, err)
	}
	valid := map[types.GCAttachment]bool{}
	for _, id := range keep {
		valid[types.GCAttachment{ContainerID: id, IfName: defaultIfName}] = true
	}
	removed, owed, err := n.dropStale(ctx, list.Name, keep, valid)
	if err != nil {
		return nil, err
	}
	return removed, errors.Join(owed, n.askGC(ctx, asked, valid))
}

// askGC has plugins give back what is of no valid attachment, nor of one that
// this process has made or is making.
func (n *Networks) askGC(ctx context.Context, list *libcni.NetworkConfigList, valid map[types.GCAttachment]bool) error {
	ctx, cancel := context.WithTimeout(ctx, gcBound)
	defer cancel()
	defer n.attached.close()()
	maps.Copy(valid, n.attached.now())
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for one := range valid {
		args.ValidAttachments = append(args.ValidAttachments, one)
	}
	if err := n.plugin.GCNetworkList(ctx, list, args); err != nil {
		return fmt.Errorf("network %q: GC: %w", list.Name, err)
	}
	return nil
}

// dropStale takes away the cached attachments of a network that nobody has. To
// valid it adds those that stay: of sandboxes that are kept, and where the DEL
// failed, which is then still owed with the configuration of its ADD.
func (n *Networks) dropStale(ctx context.Context, network string, keep []string, valid map[types.GCAttachment]bool) (removed []string, owed, err error) {
	// The cache first: what is being made is live before it is in the cache.
	all, err := n.plugin.GetCachedAttachments("")
	if err != nil {
		return nil, nil, fmt.Errorf("read the CNI cache: %w", err)
	}
	live := n.attached.now()
	for _, a := range all {
		one := types.GCAttachment{ContainerID: a.ContainerID, IfName: a.IfName}
		switch {
		case a.Network != network:
			continue
		case slices.Contains(keep, a.ContainerID) || live[one]:
			valid[one] = true
			continue
		}
		if err := n.delCached(ctx, a); err != nil {
			valid[one] = true
			owed = errors.Join(owed, err)
			continue
		}
		removed = append(removed, a.ContainerID)
	}
	return removed, owed, nil
}

// delCached carries out the DEL of an attachment in the cache.
func (n *Networks) delCached(ctx context.Context, a *libcni.NetworkAttachment) error {
	p, err := cachedPlan(a)
	if err != nil {
		return err
	}
	netns := a.NetNS
	if strings.HasPrefix(netns, "/proc/") {
		// That process is gone, and its number may be another's by now.
		netns = ""
	}
	return n.Del(ctx, p, netns)
}
