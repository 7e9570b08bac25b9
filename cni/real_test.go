package cni

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The tests of this file run Debian's CNI plugins on network namespaces.

func TestAddCachedDel(t *testing.T) {
	ctx := context.Background()
	n := newNode(t)
	n.real(t, "10-pods.conflist", "pods")
	netns, id := newNetns(t), id()
	p, r := n.attach(t, Attachment{
		ID: id, Netns: netns, PodNamespace: "ns", PodName: "pod", PodUID: "uid",
		PortMappings: []PortMapping{{Protocol: "TCP", ContainerPort: 80, HostPort: 18080}, {ContainerPort: 9}},
	})
	if len(r.IPs) != 2 || !r.IPs[0].Is4() || !r.IPs[1].Is6() {
		t.Fatalf("addresses %v, want an IPv4 and then an IPv6 one", r.IPs)
	}
	for _, ip := range r.IPs {
		if seen := links(t, netns); !strings.Contains(seen, ip.String()) {
			t.Errorf("%s is not on the pod's interface: %s", ip, seen)
		}
	}
	if got := n.reservations(t, "pods"); len(got) != 2 {
		t.Errorf("reservations %v", got)
	}
	if nat := iptables(t); !strings.Contains(nat, "18080") || !strings.Contains(nat, r.IPs[0].String()) {
		t.Errorf("host port is not mapped: %s", nat)
	}

	q, cached, ok, err := n.Cached(id)
	if err != nil || !ok || !reflect.DeepEqual(cached, r) {
		t.Fatalf("cached %v %v %v, want %v", cached, ok, err, r)
	}
	want, got := p.runtimeConf(netns), q.runtimeConf(q.netns)
	if !reflect.DeepEqual(want.Args, got.Args) || got.IfName != "eth0" || string(q.list.Bytes) != string(p.list.Bytes) {
		t.Errorf("cached plan %+v %s\nwant %+v %s", got, q.list.Bytes, want, p.list.Bytes)
	}
	if string(q.capabilities["portMappings"]) == "" {
		t.Error("the cached plan has lost the port mappings")
	}

	for range 2 { // DEL may be repeated
		if err := n.Del(ctx, p, netns); err != nil {
			t.Fatal(err)
		}
		n.mustBeGone(t, "pods", id)
		if seen := links(t, netns); strings.Contains(seen, "eth0") {
			t.Errorf("the interface is still there: %s", seen)
		}
	}
}

// iptables returns the rules of the nat table.
func iptables(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("iptables", "-t", "nat", "-S").CombinedOutput()
	if err != nil {
		t.Fatalf("iptables: %v: %s", err, out)
	}
	return string(out)
}

// mustBeGone checks that nothing of an attachment is left on the node.
func (n *node) mustBeGone(t *testing.T, network, id string) {
	t.Helper()
	if got := n.reservations(t, network); len(got) != 0 {
		t.Errorf("reservations left: %v", got)
	}
	if got := n.cached(t); len(got) != 0 {
		t.Errorf("cache files left: %v", got)
	}
	if _, _, ok, err := n.Cached(id); ok || err != nil {
		t.Errorf("Cached: %v, %v", ok, err)
	}
	if nat := iptables(t); strings.Contains(nat, id) {
		t.Errorf("rules left: %s", nat)
	}
}

func TestDelWhenTheNamespaceIsGone(t *testing.T) {
	for _, how := range []string{"empty path", "dead path", "path of another namespace", "the host's"} {
		t.Run(how, func(t *testing.T) {
			n := newNode(t)
			n.real(t, "10-pods.conflist", "pods")
			netns, id := newNetns(t), id()
			p, _ := n.attach(t, Attachment{ID: id, Netns: netns, PortMappings: []PortMapping{{ContainerPort: 80, HostPort: 18081}}})
			if err := exec.Command("ip", "netns", "del", filepath.Base(netns)).Run(); err != nil {
				t.Fatal(err)
			}
			path, other := "", ""
			switch how {
			case "dead path":
				path = netns
			case "path of another namespace":
				other = newNetns(t)
				path = other
				if out, err := exec.Command("ip", "-n", filepath.Base(other), "link", "add", "eth0", "type", "bridge").CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			case "the host's":
				path = "/proc/self/ns/net"
			}
			if err := n.Del(context.Background(), p, path); err != nil {
				t.Fatal(err)
			}
			n.mustBeGone(t, "pods", id)
			if other != "" && !strings.Contains(func() string {
				out, _ := exec.Command("ip", "-n", filepath.Base(other), "link").Output()
				return string(out)
			}(), "eth0") {
				t.Error("DEL took the interface of another namespace")
			}
		})
	}
}

// TestDelUsesTheConfigurationOfItsAdd: the plan survives a trip through the
// log, and the file it came from is changed and then removed.
func TestDelUsesTheConfigurationOfItsAdd(t *testing.T) {
	n := newNode(t)
	n.real(t, "10-pods.conflist", "pods")
	netns, id := newNetns(t), id()
	p, _ := n.attach(t, Attachment{ID: id, Netns: netns})
	stored, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	n.write(t, "10-pods.conflist", `{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"bridge","bridge":"other0","ipam":{"type":"host-local","dataDir":"/nonexistent","subnet":"10.9.9.0/24"}}]}`)
	if today, err := n.Plan(Attachment{ID: id, Netns: netns}); err != nil || strings.Contains(string(today.list.Bytes), n.bridge) {
		t.Fatalf("the change was not seen: %v", err)
	}
	if err := os.Remove(filepath.Join(n.conf, "10-pods.conflist")); err != nil {
		t.Fatal(err)
	}
	back, err := ParsePlan(stored)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Del(context.Background(), back, netns); err != nil {
		t.Fatal(err)
	}
	n.mustBeGone(t, "pods", id)
}

// TestAdoptCriDockerd: the cache as cri-dockerd leaves it, with its entry for
// the loopback, and a second process that knows nothing else.
func TestAdoptCriDockerd(t *testing.T) {
	n := newNode(t)
	n.real(t, "10-pods.conflist", "pods")
	netns, id := newNetns(t), id()
	_, r := n.attach(t, Attachment{ID: id, Netns: netns})
	results := filepath.Join(n.cache, "results")
	lo := `{"kind":"cniCacheV1","containerId":"` + id + `","config":"e30=","ifName":"eth0","networkName":"cni-loopback","result":{}}`
	if err := os.WriteFile(filepath.Join(results, "cni-loopback-"+id+"-eth0"), []byte(lo), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(results, "unrelated-"+id+"-net1"), []byte(strings.ReplaceAll(strings.ReplaceAll(lo, "cni-loopback", "unrelated"), "eth0", "net1")), 0o600); err != nil {
		t.Fatal(err)
	}

	again, err := New(Config{ConfDir: n.conf, BinDirs: []string{pluginDir}, CacheDir: n.cache})
	if err != nil {
		t.Fatal(err)
	}
	p, got, ok, err := again.Cached(id)
	if err != nil || !ok || !reflect.DeepEqual(got.IPs, r.IPs) || p.Network() != "pods" || p.ID() != id {
		t.Fatalf("Cached: %v %v %v", got, ok, err)
	}
	if err := again.Del(context.Background(), p, netns); err != nil {
		t.Fatal(err)
	}
	if got := n.reservations(t, "pods"); len(got) != 0 {
		t.Errorf("reservations left: %v", got)
	}
	if got := n.cached(t); len(got) != 1 || !strings.HasPrefix(got[0], "unrelated-") {
		t.Errorf("cache files left: %v, want only the one that is not ours", got)
	}
}

// TestCachedWithDamage: an entry that cannot be read is no attachment; one
// whose result is damaged still gives its plan.
func TestCachedWithDamage(t *testing.T) {
	n := newNode(t)
	n.real(t, "10-pods.conflist", "pods")
	netns, id := newNetns(t), id()
	p, r := n.attach(t, Attachment{ID: id, Netns: netns})
	defer func() {
		if err := n.Del(context.Background(), p, netns); err != nil {
			t.Error(err)
		}
	}()
	file := filepath.Join(n.cache, "results", "pods-"+id+"-eth0")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, ok, err := n.Cached(id); ok || err != nil {
		t.Errorf("half an entry: %v, %v", ok, err)
	}
	noIPs := strings.ReplaceAll(string(whole), `"ips"`, `"was"`)
	if err := os.WriteFile(file, []byte(noIPs), 0o600); err != nil {
		t.Fatal(err)
	}
	if q, got, ok, err := n.Cached(id); !ok || err != nil || len(got.IPs) != 0 || q == nil {
		t.Errorf("entry without addresses: %v %v %v", got, ok, err)
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, got, ok, err := n.Cached(id); !ok || err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("whole entry: %v %v %v", got, ok, err)
	}
	if _, _, ok, err := n.Cached("nobody"); ok || err != nil {
		t.Errorf("unknown id: %v, %v", ok, err)
	}
}

func TestAddFailsWithItsReason(t *testing.T) {
	n := newNode(t)
	n.real(t, "10-pods.conflist", "pods")
	p, err := n.Plan(Attachment{ID: id(), Netns: newNetns(t), IfName: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	p.netns = "/var/run/netns/not-there"
	_, err = n.Add(context.Background(), p)
	if err == nil {
		t.Fatal("ADD to a namespace that is not there")
	}
	for _, part := range []string{`network "pods"`, pluginDir + "/bridge", "ADD", "not-there"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not name %s", err, part)
		}
	}
	if err := n.Del(context.Background(), p, ""); err != nil {
		t.Fatal(err)
	}
	n.mustBeGone(t, "pods", p.ID())
}

func TestResultIsOfThePodsInterface(t *testing.T) {
	n := newNode(t)
	n.fake(t, "fake", `cat >/dev/null; cat <<X
{"cniVersion":"1.0.0",
 "interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"x"},{"name":"eth1","sandbox":"x"}],
 "ips":[{"address":"10.0.0.1/24","interface":0},{"address":"fd00::2/64","interface":1},{"address":"10.0.0.2/24","interface":1},{"address":"10.0.0.3/24","interface":2}]}
X
`)
	n.write(t, "a.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"fake"}]}`)
	_, r := n.attach(t, Attachment{ID: id(), Netns: newNetns(t)})
	want := []netip.Addr{netip.MustParseAddr("fd00::2"), netip.MustParseAddr("10.0.0.2")}
	if !reflect.DeepEqual(r.IPs, want) {
		t.Errorf("addresses %v, want %v", r.IPs, want)
	}
	n.fake(t, "fake", `cat >/dev/null; echo '{"cniVersion":"1.0.0"}'`)
	p, err := n.Plan(Attachment{ID: id(), Netns: newNetns(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Add(context.Background(), p); err == nil || !strings.Contains(err.Error(), "ipam") {
		t.Errorf("ADD without an address: %v", err)
	}
}
