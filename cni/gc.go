package cni

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

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

// close shuts the gate and returns what has passed it; nil if somebody else
// has shut it.
func (a *attached) close() (live map[types.GCAttachment]bool, open func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shut != nil {
		return nil, nil
	}
	a.shut = make(chan struct{})
	live = map[types.GCAttachment]bool{}
	for one := range a.live {
		live[one] = true
	}
	return live, func() {
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
	if list.DisableGC || !knowsVerbs(list.CNIVersion) {
		return nil, nil
	}
	asked, err := n.withVerbs(ctx, list)
	if err != nil {
		return nil, fmt.Errorf("network %q: GC: %w", list.Name, err)
	}
	valid, open := n.attached.close()
	if open == nil {
		return nil, nil // one is under way
	}
	defer open()
	cached, err := n.plugin.GetCachedAttachments("")
	if err != nil {
		return nil, fmt.Errorf("read the CNI cache: %w", err)
	}
	for _, id := range keep {
		valid[types.GCAttachment{ContainerID: id, IfName: defaultIfName}] = true
	}
	removed, owed := n.dropStale(ctx, list.Name, cached, valid, keep)
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for one := range valid {
		args.ValidAttachments = append(args.ValidAttachments, one)
	}
	if err := n.plugin.GCNetworkList(ctx, asked, args); err != nil {
		owed = errors.Join(owed, fmt.Errorf("network %q: GC: %w", list.Name, err))
	}
	return removed, owed
}

// dropStale takes away the cached attachments of a network that nobody has. To
// valid it adds those that stay: of sandboxes that are kept, and where the DEL
// failed, which is then still owed with the configuration of its ADD.
func (n *Networks) dropStale(ctx context.Context, network string, cached []*libcni.NetworkAttachment, valid map[types.GCAttachment]bool, keep []string) (removed []string, owed error) {
	kept := map[string]bool{}
	for _, id := range keep {
		kept[id] = true
	}
	for _, a := range cached {
		one := types.GCAttachment{ContainerID: a.ContainerID, IfName: a.IfName}
		if a.Network != network || valid[one] {
			continue
		}
		if kept[a.ContainerID] {
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
	return removed, owed
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
