package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker"
	"github.com/crimux/crimux/cni"
	"github.com/crimux/crimux/test/lab"
)

// podNetwork is a backend whose network a test configures. Its pods hang on the
// lab's bridge and have the lab's addresses, so that what is left of them shows
// in the footprint.
type podNetwork struct {
	cri
	conf, bin string
}

// newNetwork returns the backend, which runs until the end of the test. Plugins
// in its folder bin come before the real ones.
func newNetwork(t *testing.T, plugins ...map[string]any) podNetwork {
	t.Helper()
	dir := t.TempDir()
	n := podNetwork{conf: filepath.Join(dir, "net.d"), bin: filepath.Join(dir, "bin")}
	for _, d := range []string{n.conf, n.bin} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.write(t, "1.0.0", plugins...)
	n.cri = cri{t: t, Backend: n.daemon(t)}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// daemon is a backend that does not run yet.
func (n podNetwork) daemon(t *testing.T) *docker.Backend {
	t.Helper()
	l := node.lab
	b, err := docker.New(docker.Options{
		Name: "docker", Endpoint: "unix://" + l.DockerSocket, PodInfraImage: "registry.invalid/pause:3.10", NetworkGC: true,
		CNI:            cni.Config{ConfDir: n.conf, BinDirs: append([]string{n.bin}, l.CNIBinDirs...), CacheDir: l.CNICacheDir},
		CheckpointDirs: []string{filepath.Join(l.Dir, "cri-dockerd", "sandbox"), filepath.Join(l.Dir, "dockershim", "sandbox")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// write puts a list of plugins in place as an add-on does, whole.
func (n podNetwork) write(t *testing.T, version string, plugins ...map[string]any) {
	t.Helper()
	b, err := json.Marshal(map[string]any{"cniVersion": version, "name": node.lab.Bridge, "plugins": plugins})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(n.conf, "10-test.conflist")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// with puts a list in place that needs a plugin which is not there yet, and
// then that plugin, and returns when the list counts.
func (n podNetwork) with(t *testing.T, plugin, script, version string, plugins ...map[string]any) {
	t.Helper()
	n.write(t, version, plugins...)
	eventually(t, "the new list to be read", func() bool { return !n.ready().Status })
	n.fake(t, plugin, script)
	eventually(t, "its plugin to be found", func() bool { return n.ready().Status })
}

// fake installs a shell script as a plugin.
func (n podNetwork) fake(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.bin, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// bridge is the lab's bridge with more or other keys.
func bridge(more map[string]any) map[string]any {
	l := node.lab
	out := map[string]any{
		"type": "bridge", "bridge": l.Bridge, "isGateway": true, "ipMasq": true, "hairpinMode": true,
		"ipam": map[string]any{"type": "host-local", "dataDir": l.IPAMDir, "ranges": [][]any{{map[string]any{"subnet": l.Subnet}}},
			"routes": []any{map[string]any{"dst": "0.0.0.0/0"}}},
	}
	for k, v := range more {
		out[k] = v
	}
	return out
}

// ready is the NetworkReady condition.
func (n podNetwork) ready() *runtimeapi.RuntimeCondition {
	n.t.Helper()
	for _, c := range must[runtimeapi.StatusResponse](n.cri, runtimeService+"Status", &runtimeapi.StatusRequest{}).Status.Conditions {
		if c.Type == runtimeapi.NetworkReady {
			return c
		}
	}
	n.t.Fatal("no such condition")
	return nil
}

// TestNetworkReadyFollows the configuration: the node is not ready while there
// is none, with the reason, and again when there is one. Pods that run stay.
func TestNetworkReadyFollows(t *testing.T) {
	noLeak(t)
	n := newNetwork(t, bridge(nil))
	if c := n.ready(); !c.Status {
		t.Fatalf("condition %v", c)
	}
	id := n.run(pod(t))
	ip := n.podStatus(id).Network.Ip
	file := filepath.Join(n.conf, "10-test.conflist")
	for _, away := range []string{file, n.conf} {
		if err := os.Rename(away, away+".away"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "NetworkReady to be false", func() bool { c := n.ready(); return !c.Status && strings.Contains(c.Message, n.conf) })
		if err := n.try(runtimeService+"RunPodSandbox", &runtimeapi.RunPodSandboxRequest{Config: pod(t)}); err == nil || !strings.Contains(err.Error(), "install a network add-on") {
			t.Errorf("a pod without a network: %v", err)
		}
		if st := n.podStatus(id); st.State != runtimeapi.PodSandboxState_SANDBOX_READY || st.Network.Ip != ip {
			t.Errorf("the pod that runs: %v", st)
		}
		if err := os.Rename(away+".away", away); err != nil {
			t.Fatal(err)
		}
		eventually(t, "NetworkReady to be true again", func() bool { return n.ready().Status })
	}
	n.write(t, "1.0.0", bridge(nil), map[string]any{"type": "late"})
	eventually(t, "a missing plugin to be told", func() bool {
		c := n.ready()
		return !c.Status && strings.Contains(c.Message, `plugin "late" not found`)
	})
	n.fake(t, "late", "")
	eventually(t, "the plugin to be found", func() bool { return n.ready().Status })
}

// TestStatusOfPlugins: what a plugin of CNI 1.1 objects to is the node's state.
func TestStatusOfPlugins(t *testing.T) {
	n := newNetwork(t, bridge(nil))
	n.fake(t, "agent", `case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}';;
STATUS) test -e "$(dirname "$0")/up" || { echo '{"cniVersion":"1.1.0","code":50,"msg":"the agent does not run"}'; exit 1; };;
esac`)
	n.write(t, "1.1.0", map[string]any{"type": "agent"})
	eventually(t, "the plugin's objection", func() bool { c := n.ready(); return !c.Status && strings.Contains(c.Message, "the agent does not run") })
	if err := os.WriteFile(filepath.Join(n.bin, "up"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the objection to end", func() bool { return n.ready().Status })
}

// TestDualStackPod: the kubelet's two ranges give a pod two addresses, after a
// restart of the daemon too; both are told in order and work, and so does lo.
func TestDualStackPod(t *testing.T) {
	noLeak(t)
	six := "fd00:" + strings.ReplaceAll(strings.TrimSuffix(node.lab.Subnet, ".0/24"), ".", ":") + "::/64"
	told := newNetwork(t, bridge(nil))
	must[runtimeapi.UpdateRuntimeConfigResponse](told.cri, runtimeService+"UpdateRuntimeConfig", &runtimeapi.UpdateRuntimeConfigRequest{
		RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: node.lab.Subnet + "," + six}}})

	n := newNetwork(t, bridge(map[string]any{
		"capabilities": map[string]bool{"ipRanges": true},
		"ipam":         map[string]any{"type": "host-local", "dataDir": node.lab.IPAMDir},
	}))
	ref := n.pull("web")
	cfg := pod(t)
	id := n.run(cfg)
	st := n.podStatus(id).Network
	if len(st.AdditionalIps) != 1 {
		t.Fatalf("addresses %v", st)
	}
	for i, subnet := range []string{node.lab.Subnet, six} {
		ip := netip.MustParseAddr([]string{st.Ip, st.AdditionalIps[0].Ip}[i])
		if !netip.MustParsePrefix(subnet).Contains(ip) {
			t.Errorf("address %d is %s, not of %s", i, ip, subnet)
		}
	}
	ctr := n.create(id, cfg, ctrConfig(ref, `for at in 127.0.0.1 [::1]; do httpd -p $at:8000 -h /www; done
wget -q -O - http://127.0.0.1:8000/ && wget -q -O - http://[::1]:8000/ && ip -o link show lo
httpd -f -p [::]:8080 -h /www`))
	n.start(ctr)
	for _, ip := range []string{st.Ip, st.AdditionalIps[0].Ip} {
		eventually(t, ip+" to answer", func() bool {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(ip, "8080"), time.Second)
			return err == nil && c.Close() == nil
		})
	}
	eventually(t, "lo to answer on both families", func() bool {
		log, err := os.ReadFile(filepath.Join(cfg.LogDirectory, "main/0.log"))
		return err == nil && strings.Count(string(log), lab.WebBody) == 2 && strings.Contains(string(log), "LOOPBACK,UP")
	})
}

// TestBandwidth: the annotations limit the pod's traffic.
func TestBandwidth(t *testing.T) {
	noLeak(t)
	shaped := func() string {
		t.Helper()
		out, err := exec.Command("tc", "qdisc", "show").CombinedOutput()
		if err != nil {
			t.Fatalf("tc: %v: %s", err, out)
		}
		return string(out)
	}
	n := newNetwork(t, bridge(nil), map[string]any{"type": "bandwidth", "capabilities": map[string]bool{"bandwidth": true}})
	cfg := pod(t)
	cfg.Annotations["kubernetes.io/ingress-bandwidth"], cfg.Annotations["kubernetes.io/egress-bandwidth"] = "7M", "3M"
	id := n.run(cfg)
	for _, rate := range []string{"rate 7Mbit", "rate 3Mbit"} {
		if got := shaped(); !strings.Contains(got, rate) {
			t.Errorf("no %s: %s", rate, got)
		}
	}
	n.removePod(id)
	if got := shaped(); strings.Contains(got, "rate 7Mbit") || strings.Contains(got, "rate 3Mbit") {
		t.Errorf("limits are left: %s", got)
	}
}

// TestReplacedNetwork: a pod is taken off the network that it was put on, by a
// daemon that has only seen the one that came after.
func TestReplacedNetwork(t *testing.T) {
	noLeak(t)
	n := newNetwork(t, bridge(nil))
	// It passes on what the plugin before it gave, and notes what it is told.
	n.with(t, "note", `in="$(cat)"; dir="$(dirname "$0")"
echo "$in" >>"$dir/$CNI_COMMAND"
test $CNI_COMMAND != ADD || echo "$in" | sed 's/.*"prevResult":\({.*}\),"type".*/\1/'`, "1.0.0",
		bridge(nil), map[string]any{"type": "note", "mark": "old"},
		map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}})
	cfg := pod(t)
	cfg.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 8080, HostPort: 38097}}
	id := n.run(cfg)
	ctr := n.create(id, cfg, ctrConfig(n.pull("web"), "httpd -f -p 8080 -h /www"))
	n.start(ctr)
	eventually(t, "the host port to answer", func() bool {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(hostAddress(t), "38097"), time.Second)
		return err == nil && c.Close() == nil
	})
	n.write(t, "1.0.0", bridge(map[string]any{"bridge": "other0"}))
	after := cri{t: t, Backend: n.daemon(t)}
	defer after.Close()
	after.removePod(id)
	var seen []map[string]any
	for _, command := range []string{"ADD", "DEL"} {
		b, err := os.ReadFile(filepath.Join(n.bin, command))
		if err != nil {
			t.Fatal(err)
		}
		var in map[string]any
		if err := json.Unmarshal(b, &in); err != nil {
			t.Fatalf("%s: not one call: %v: %s", command, err, b)
		}
		delete(in, "prevResult")
		seen = append(seen, in)
	}
	if add, del := fmt.Sprint(seen[0]), fmt.Sprint(seen[1]); add != del || !strings.Contains(add, "mark:old") {
		t.Errorf("DEL with %s\nADD was with %s", del, add)
	}
}

// TestHairpin: a pod reaches itself by the node's address and its host port.
func TestHairpin(t *testing.T) {
	noLeak(t)
	n := newNetwork(t, bridge(nil), map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}})
	cfg := pod(t)
	cfg.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 8080, HostPort: 38098}}
	id := n.run(cfg)
	ctr := n.create(id, cfg, ctrConfig(n.pull("web"), "httpd -p 8080 -h /www; wget -q -O - http://"+hostAddress(t)+":38098/"))
	n.start(ctr)
	if end := n.exited(ctr); end.ExitCode != 0 {
		log, err := os.ReadFile(filepath.Join(cfg.LogDirectory, "main/0.log"))
		t.Errorf("exit code %d: %s, %v", end.ExitCode, log, err)
	}
}

// TestCollectNetworks: what a pod that somebody removed behind our back had is
// given back, and those that run keep theirs.
func TestCollectNetworks(t *testing.T) {
	noLeak(t)
	n := newNetwork(t, bridge(nil))
	// The bridge plugin behind it need not know CNI 1.1.
	n.with(t, "newer", `case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}';;
GC) cat >>"$(dirname "$0")/GC";;
STATUS) ;;
*) sed 's/"cniVersion":"1.1.0"/"cniVersion":"1.0.0"/g; s/"type":"newer"/"type":"bridge"/' | `+node.lab.CNIBinDirs[0]+`/bridge;;
esac`, "1.1.0", bridge(map[string]any{"type": "newer"}))
	stays, goes := n.run(pod(t)), n.run(pod(t))
	if err := node.lab.Docker().ContainerRemove(t.Context(), goes, container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	after := n.daemon(t)
	defer after.Close()
	if err := after.CollectNetworks(t.Context(), []string{"of-another-runtime"}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(n.bin, "GC"))
	if err != nil || !strings.Contains(string(b), stays) || !strings.Contains(string(b), "of-another-runtime") || strings.Contains(string(b), goes) {
		t.Errorf("the plugin was told %s, %v", b, err)
	}
	now, err := node.lab.Footprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for what, left := range map[string]map[string]string{"address": now.Addresses, "result": now.CNIResults, "namespace": now.Netns, "rule": now.Rules} {
		if strings.Contains(fmt.Sprint(left), goes) {
			t.Errorf("%s of the pod that is gone: %v", what, left)
		}
	}
	if ip := n.podStatus(stays).Network.GetIp(); ip == "" || !strings.Contains(fmt.Sprint(now.Addresses), stays) {
		t.Errorf("the pod that runs has the address %q, held are %v", ip, now.Addresses)
	}
}
