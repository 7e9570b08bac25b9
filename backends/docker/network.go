package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/crimux/crimux/cni"
)

// attachments are the sandboxes' networks: what the CNI cache on disk says,
// and what is known besides. A DEL is owed from before the ADD until it has
// succeeded.
type attachments struct {
	net  networks
	pins namespaces
	kept checkpoints

	// adopting keeps taking on a network apart from taking one down: a namespace
	// that is let go of must not be pinned again by a look that began before.
	adopting sync.Mutex

	mu    sync.Mutex
	known map[string]attachment
}

type attachment struct {
	state netState
	ips   []netip.Addr
	// plan is what a DEL is owed with, where the CNI cache may not have it.
	plan *cni.Plan
}

type netState int

const (
	netUnknown  netState = iota
	netAttached          // ADD succeeded
	netOwed              // ADD was tried, DEL has not succeeded yet
	netDetached          // DEL succeeded
)

func newAttachments(n networks, p namespaces, c checkpoints) *attachments {
	return &attachments{net: n, pins: p, kept: c, known: map[string]attachment{}}
}

// add attaches a sandbox. If it fails, a DEL is owed.
func (a *attachments) add(ctx context.Context, p *cni.Plan) error {
	a.owe(p)
	res, err := a.net.Add(ctx, p)
	if err != nil {
		return err
	}
	a.set(p.ID(), attachment{state: netAttached, ips: res.IPs, plan: p})
	return nil
}

// owe remembers the plan of an ADD that is being tried, or was.
func (a *attachments) owe(p *cni.Plan) { a.set(p.ID(), attachment{state: netOwed, plan: p}) }

// addresses returns the addresses of a sandbox; ok is false if it has no
// network.
func (a *attachments) addresses(id string) (ips []netip.Addr, ok bool, err error) {
	if at := a.get(id); at.state != netUnknown {
		return at.ips, at.state == netAttached, nil
	}
	plan, res, ok, err := a.net.Cached(id)
	if err != nil {
		return nil, false, fmt.Errorf("network of sandbox %s: %w", id, err)
	}
	if !ok {
		return nil, false, nil
	}
	a.setIfUnknown(id, attachment{state: netAttached, ips: res.IPs, plan: plan})
	return res.IPs, true, nil
}

// addressesText is the addresses of an attached sandbox in words.
func (a *attachments) addressesText(id string) string {
	var words []string
	for _, ip := range a.get(id).ips {
		words = append(words, ip.String())
	}
	return strings.Join(words, ",")
}

// detach carries out the DEL that is owed, and tells whether there was an ADD
// that it undoes. pid is the sandbox's process, 0 if it has none. pod describes
// the sandbox for the case that the ADD's own plan is not to be found anywhere.
func (a *attachments) detach(ctx context.Context, id string, pid int, pod cni.Attachment) (done bool, err error) {
	at := a.get(id)
	if at.state == netDetached {
		return false, nil
	}
	plan := at.plan
	if plan == nil {
		cached, _, ok, err := a.net.Cached(id)
		if err != nil {
			return false, fmt.Errorf("network of sandbox %s: %w", id, err)
		}
		if ok {
			plan = cached
		}
	}
	had := plan != nil
	if !had {
		today, err := a.today(id, pod)
		if errors.Is(err, cni.ErrNoNetwork) {
			// Nothing says that it ever had a network, and there is none to
			// detach it from: a pod must not be stuck on that.
			return false, a.letGo(id)
		}
		if err != nil {
			return false, fmt.Errorf("network of sandbox %s: %w", id, err)
		}
		plan = today
	}
	return had, a.del(ctx, plan, pid)
}

// today is a plan with today's configuration, for a sandbox without a trace of
// its ADD: a DEL that finds nothing does no harm. Its port mappings are in the
// sandbox's checkpoint, whoever made it.
func (a *attachments) today(id string, pod cni.Attachment) (*cni.Plan, error) {
	ports, err := a.portMappings(id)
	if err != nil {
		return nil, err
	}
	pod.PortMappings = ports
	plan, err := a.net.Plan(pod)
	if err != nil {
		return nil, err
	}
	return plan.For(id, "")
}

// del carries out a DEL and remembers that none is owed any more.
func (a *attachments) del(ctx context.Context, p *cni.Plan, pid int) error {
	netns := a.pins.find(p.ID())
	if netns == "" {
		netns = netnsOf(pid)
	}
	if err := a.net.Del(ctx, p, netns); err != nil {
		a.owe(p)
		return err
	}
	if err := a.letGo(p.ID()); err != nil {
		a.owe(p)
		return err
	}
	return nil
}

// letGo lets go of the namespace of a sandbox that has no network any more.
func (a *attachments) letGo(id string) error {
	a.adopting.Lock()
	defer a.adopting.Unlock()
	if err := a.pins.unpin(id); err != nil {
		return err
	}
	a.set(id, attachment{state: netDetached})
	return nil
}

// forget drops what is known of a sandbox that is gone.
func (a *attachments) forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.known, id)
}

func (a *attachments) get(id string) attachment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known[id]
}

func (a *attachments) set(id string, at attachment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[id] = at
}

// setIfUnknown is set for what was read from disk, which must not overwrite
// what was done meanwhile.
func (a *attachments) setIfUnknown(id string, at attachment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[id].state == netUnknown {
		a.known[id] = at
	}
}
