package cni

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// loopback is the name under which other shims attach a pod's lo.
const loopback = "cni-loopback"

// convert returns the addresses of the pod's interface.
func convert(r types.Result, ifName string) (Result, error) {
	full, err := current.NewResultFromResult(r)
	if err != nil {
		return Result{}, fmt.Errorf("read the plugins' result: %w", err)
	}
	var out Result
	// Addresses of the host's end of the link are not the pod's. Some plugins
	// do not say which end is in the sandbox: then the name has to do.
	for _, sandboxed := range []bool{true, false} {
		for _, ip := range full.IPs {
			if !ofPod(full.Interfaces, ip.Interface, ifName, sandboxed) {
				continue
			}
			if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
				out.IPs = append(out.IPs, a.Unmap())
			}
		}
		if len(out.IPs) > 0 {
			break
		}
	}
	if len(out.IPs) == 0 {
		return Result{}, fmt.Errorf("the plugins gave %s no address: give the network an ipam section", ifName)
	}
	return out, nil
}

// ofPod reports whether an address that is said to be on one of the interfaces,
// or not said on which, is on the pod's.
func ofPod(interfaces []*current.Interface, on *int, ifName string, sandboxed bool) bool {
	if on == nil || *on < 0 || *on >= len(interfaces) || interfaces[*on] == nil {
		return true
	}
	i := interfaces[*on]
	return i.Name == ifName && (i.Sandbox != "" || !sandboxed)
}

// Cached reads back from libcni's cache an attachment whose plan is in no log
// of ours: one that cri-dockerd, dockershim or a lost log of crimux made. ok
// is false when the cache knows none for the sandbox id. The plan is the very
// one of its ADD: list, interface, arguments, capability arguments.
//
// A sandbox may have more than one entry, when a plugin calls others through
// libcni: today's default network comes before others, and eth0 before other
// interfaces. Entries of the loopback are not networks and are left out.
func (n *Networks) Cached(id string) (p *Plan, r Result, ok bool, err error) {
	all, err := n.plugin.GetCachedAttachments(id)
	if err != nil {
		return nil, Result{}, false, fmt.Errorf("read the CNI cache for %s: %w", id, err)
	}
	a := n.choose(id, all)
	if a == nil {
		return nil, Result{}, false, nil
	}
	p, err = cachedPlan(a)
	if err != nil {
		return nil, Result{}, false, err
	}
	res, err := n.plugin.GetNetworkListCachedResult(p.list, p.runtimeConf(a.NetNS))
	if err != nil || res == nil {
		// The addresses are lost, the plan is not: a DEL can still be done.
		return p, Result{}, true, nil
	}
	r, err = convert(res, a.IfName)
	if err != nil {
		return p, Result{}, true, nil
	}
	return p, r, true, nil
}

// cachedPlan is the plan of a cache entry.
func cachedPlan(a *libcni.NetworkAttachment) (*Plan, error) {
	list, err := cachedList(a)
	if err != nil {
		return nil, fmt.Errorf("CNI cache: network %q of %s: %w", a.Network, a.ContainerID, err)
	}
	capabilities, err := rawArgs(a.CapabilityArgs)
	if err != nil {
		return nil, fmt.Errorf("CNI cache: network %q of %s: %w", a.Network, a.ContainerID, err)
	}
	return &Plan{list: list, id: a.ContainerID, netns: a.NetNS, ifName: a.IfName, args: a.CniArgs, capabilities: capabilities}, nil
}

// recall returns the plan with the pod's annotations, which a plan that comes
// from the log does not have, where a plugin is to get them. A DEL without them
// is better than none, so what cannot be read is left out.
func (n *Networks) recall(p *Plan) *Plan {
	if p.capabilities[capabilityAnnotations] != nil || !declares(p.list, capabilityAnnotations) {
		return p
	}
	all, err := n.plugin.GetCachedAttachments(p.id)
	if err != nil {
		return p
	}
	for _, a := range all {
		if a.ContainerID != p.id || a.Network != p.list.Name || a.IfName != p.ifName {
			continue
		}
		raw, err := rawArgs(a.CapabilityArgs)
		if err != nil || raw[capabilityAnnotations] == nil {
			continue
		}
		q := *p
		q.capabilities = maps.Clone(p.capabilities)
		if q.capabilities == nil {
			q.capabilities = map[string]json.RawMessage{}
		}
		q.capabilities[capabilityAnnotations] = raw[capabilityAnnotations]
		return &q
	}
	return p
}

// choose returns the attachment that gives the pod its address.
func (n *Networks) choose(id string, all []*libcni.NetworkAttachment) *libcni.NetworkAttachment {
	var today string
	if l := n.conf.load(); l.list != nil {
		today = l.list.Name
	}
	rank := func(a *libcni.NetworkAttachment) int {
		r := 0
		if a.IfName == defaultIfName {
			r += 2
		}
		if a.Network == today {
			r++
		}
		return r
	}
	var best *libcni.NetworkAttachment
	for _, a := range all {
		if a.ContainerID != id || a.Network == loopback {
			continue
		}
		if best == nil || rank(a) > rank(best) {
			best = a
		}
	}
	return best
}

// cachedList reads the list of a cache entry. An entry of a network that was
// attached without a list holds a single plugin.
func cachedList(a *libcni.NetworkAttachment) (*libcni.NetworkConfigList, error) {
	list, err := parseList(a.Config, "")
	if err != nil {
		if single, errSingle := parseSingle(a.Config); errSingle == nil {
			return single, nil
		}
		return nil, err
	}
	return list, nil
}

// dropLoopback removes the cache entry that other shims keep for lo, which
// goes with the namespace and needs no plugin.
func (n *Networks) dropLoopback(id, ifName string) error {
	path := filepath.Join(n.cache, "results", loopback+"-"+id+"-"+ifName)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("CNI cache: %w", err)
	}
	return nil
}
