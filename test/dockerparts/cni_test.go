package dockerparts

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/crimux/crimux/cni"
)

// TestPodNetwork gives a container without a network of the Engine's an
// address, reaches it, and takes the address back, from what the cache knows.
func TestPodNetwork(t *testing.T) {
	id := sleeper(t)
	n, err := cni.New(network)
	check(t, err)
	check(t, n.Status(t.Context()))
	pid := pidOf(t, id)
	p, err := n.Plan(cni.Attachment{ID: id, Netns: fmt.Sprintf("/proc/%d/ns/net", pid), PodNamespace: "ns", PodName: "pod", PodUID: "uid"})
	check(t, err)
	r, err := n.Add(t.Context(), p)
	check(t, err)
	listenIn(t, pid, net.JoinHostPort(r.IPs[0].String(), "8001"), echo)
	c, err := net.DialTimeout("tcp", net.JoinHostPort(r.IPs[0].String(), "8001"), 5*time.Second)
	check(t, err)
	check(t, c.Close())

	// Before the namespace goes: the bridge plugin takes its NAT rules away only
	// while the pod's interface is there.
	q, cached, ok, err := n.Cached(id)
	check(t, err)
	if !ok || len(cached.IPs) == 0 || cached.IPs[0] != r.IPs[0] {
		t.Errorf("cached %v, %v", cached, ok)
	}
	check(t, n.Del(t.Context(), q, fmt.Sprintf("/proc/%d/ns/net", pid)))
	if _, _, ok, err := n.Cached(id); ok || err != nil {
		t.Errorf("after the DEL: %v, %v", ok, err)
	}
}
