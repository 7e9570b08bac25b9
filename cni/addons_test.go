package cni

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// addon is a network as a project installs it.
type addon struct {
	name, file, content string
	plugins             []string          // in the order of the list
	told                map[string]string // plugin → capabilities in its runtimeConfig
}

// addons are networks as their projects write them on a node, with what their
// installers substitute filled in.
var addons = []addon{
	{
		name: "flannel", file: "10-flannel.conflist", plugins: []string{"flannel", "portmap"},
		told: map[string]string{"portmap": "portMappings"},
		content: `{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
`,
	},
	{
		name: "calico", file: "10-calico.conflist", plugins: []string{"calico", "portmap"},
		told: map[string]string{"portmap": "portMappings"},
		content: `{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "calico",
      "log_level": "info",
      "log_file_path": "/var/log/calico/cni/cni.log",
      "datastore_type": "kubernetes",
      "nodename": "node-1",
      "mtu": 0,
      "ipam": {
          "type": "calico-ipam"
      },
      "policy": {
          "type": "k8s"
      },
      "kubernetes": {
          "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"
      }
    },
    {
      "type": "portmap",
      "snat": true,
      "capabilities": {"portMappings": true}
    }
  ]
}`,
	},
	{
		name: "calico with bandwidth", file: "10-calico.conflist", plugins: []string{"calico", "bandwidth", "portmap"},
		told: map[string]string{"portmap": "portMappings", "bandwidth": "bandwidth"},
		content: `{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {"container_settings": {"allow_ip_forwarding": false}, "datastore_type": "kubernetes",
     "ipam": {"subnet": "usePodCidr", "type": "host-local"},
     "kubernetes": {"k8s_api_root": "https://10.96.0.1:443", "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
     "log_file_max_age": 30, "log_file_max_count": 10, "log_file_max_size": 100,
     "log_file_path": "/var/log/calico/cni/cni.log", "log_level": "Info",
     "mtu": 0, "nodename_file_optional": false, "policy": {"type": "k8s"}, "type": "calico"},
    {"capabilities": {"bandwidth": true}, "type": "bandwidth"},
    {"capabilities": {"portMappings": true}, "snat": true, "type": "portmap"}
  ]
}`,
	},
	{
		name: "cilium", file: "05-cilium.conflist", plugins: []string{"cilium-cni"},
		content: `
{
  "cniVersion": "0.3.1",
  "name": "cilium",
  "plugins": [
    {
       "type": "cilium-cni",
       "enable-debug": false,
       "log-file": "/var/run/cilium/cilium-cni.log"
    }
  ]
}`,
	},
	{
		name: "cilium as it once was", file: "05-cilium.conf", plugins: []string{"cilium-cni"},
		content: `{
  "cniVersion": "0.3.1",
  "name": "cilium",
  "type": "cilium-cni",
  "enable-debug": false
}`,
	},
	{
		name: "a list with all capabilities", file: "10-aws.conflist", plugins: []string{"aws-cni", "ranged"},
		told: map[string]string{"aws-cni": capabilityAnnotations, "ranged": "cgroupPath dns ipRanges"},
		content: `{
  "cniVersion": "0.4.0",
  "name": "aws-cni",
  "disableCheck": true,
  "plugins": [
    {"name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "9001",
     "capabilities": {"io.kubernetes.cri.pod-annotations": true}},
    {"type": "ranged", "capabilities": {"ipRanges": true, "dns": true, "cgroupPath": true, "portMappings": false}}
  ]
}`,
	},
}

// TestAddons runs a pod's life on each of the networks: every plugin is called
// as the specification says, in order, and once; the DEL comes in reverse with
// the configuration of the ADD, though the plan went through the log and the
// file has been replaced meanwhile.
func TestAddons(t *testing.T) {
	for _, a := range addons {
		t.Run(a.name, func(t *testing.T) {
			n := newNode(t)
			n.logger(t, a.plugins...)
			n.write(t, a.file, a.content)
			if err := n.SetPodCIDR("10.1.0.0/24,fd00:1::/64"); err != nil {
				t.Fatal(err)
			}
			netns, id := newNetns(t), id()
			p, r := n.attach(t, Attachment{
				ID: id, Netns: netns, PodNamespace: "ns", PodName: "web-0", PodUID: "u-1",
				PortMappings: []PortMapping{{ContainerPort: 80, HostPort: 8080}},
				Annotations:  map[string]string{annotationIngress: "1M", "note": "hunter2"},
				DNS:          DNS{Servers: []string{"10.96.0.10"}}, CgroupPath: "/kubepods/pod1",
			})
			want := []netip.Addr{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd00:9::2")}
			if !reflect.DeepEqual(r.IPs, want) {
				t.Errorf("addresses %v, want %v", r.IPs, want)
			}
			n.write(t, a.file, `{"cniVersion":"0.4.0","name":"other","plugins":[{"type":"nowhere"}]}`)
			if err := n.Del(context.Background(), stored(t, p), netns); err != nil {
				t.Fatal(err)
			}
			checkCalls(t, a, n.calls(t), p, netns)
			n.mustBeGone(t, "", id)
		})
	}
}

// stored is the plan as it comes back from the log, without the annotations.
func stored(t *testing.T, p *Plan) *Plan {
	t.Helper()
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "hunter2") {
		t.Errorf("an annotation is in the log: %s", b)
	}
	q, err := ParsePlan(b)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// checkCalls looks at what the plugins were told.
func checkCalls(t *testing.T, a addon, calls []call, p *Plan, netns string) {
	t.Helper()
	last := len(a.plugins) - 1
	want := make([]string, 2*len(a.plugins))
	for i, name := range a.plugins {
		want[i], want[len(want)-1-i] = name+" ADD", name+" DEL"
	}
	if got := order(calls); !reflect.DeepEqual(got, want) {
		t.Fatalf("calls %v, want %v", got, want)
	}
	for i := range a.plugins {
		add, del := calls[i], calls[len(calls)-1-i]
		for _, c := range []call{add, del} {
			if c.ID != p.ID() || c.Netns != netns || c.IfName != "eth0" ||
				c.Args != "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0;K8S_POD_UID=u-1;K8S_POD_INFRA_CONTAINER_ID="+p.ID() {
				t.Errorf("%s %s: %+v", c.Plugin, c.Command, c)
			}
		}
		if _, chained := add.Stdin["prevResult"]; chained != (i > 0) {
			t.Errorf("plugin %d of %d: previous result %v", i, last, add.Stdin["prevResult"])
		}
		told, _ := add.Stdin["runtimeConfig"].(map[string]any)
		if got := strings.Join(sorted(maps.Keys(told)), " "); got != a.told[add.Plugin] {
			t.Errorf("%s was told of %q, want %q", add.Plugin, got, a.told[add.Plugin])
		}
		delete(add.Stdin, "prevResult")
		delete(del.Stdin, "prevResult")
		if !reflect.DeepEqual(add.Stdin, del.Stdin) {
			t.Errorf("DEL of %s with %v\nADD was with %v", add.Plugin, del.Stdin, add.Stdin)
		}
	}
	checkTold(t, calls)
}

// checkTold looks at the values of capabilities.
func checkTold(t *testing.T, calls []call) {
	t.Helper()
	want := map[string]string{
		"portMappings":        `[{"containerPort":80,"hostPort":8080,"protocol":"tcp"}]`,
		"bandwidth":           `{"ingressBurst":2147483647,"ingressRate":1000000}`,
		"ipRanges":            `[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00:1::/64"}]]`,
		"dns":                 `{"servers":["10.96.0.10"]}`,
		"cgroupPath":          `"/kubepods/pod1"`,
		capabilityAnnotations: `{"kubernetes.io/ingress-bandwidth":"1M","note":"hunter2"}`,
	}
	for _, c := range calls {
		told, _ := c.Stdin["runtimeConfig"].(map[string]any)
		for name, value := range told {
			if got, err := json.Marshal(value); err != nil || string(got) != want[name] {
				t.Errorf("%s of %s: %s is %s, want %s", c.Command, c.Plugin, name, got, want[name])
			}
		}
	}
}

// TestFlannelInstallsInPlace: flannel's installer copies the file over the one
// that is in use. While it does, the network is neither gone nor another.
func TestFlannelInstallsInPlace(t *testing.T) {
	n := newNode(t)
	n.logger(t, "flannel", "portmap")
	flannel := addons[0]
	n.write(t, flannel.file, flannel.content)
	n.write(t, "99-other.conflist", good)
	n.start(t)
	f, err := os.OpenFile(filepath.Join(n.conf, flannel.file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{flannel.content[:20], flannel.content[20:90], flannel.content[90:]} {
		for range 20 {
			if got := n.network(); got != "cbr0" {
				t.Fatalf("network %s while the file is written", got)
			}
			pause()
		}
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the whole file to count", func() bool { return len(n.Skipped()) == 0 && n.network() == "cbr0" })
	// Left damaged, it is passed over after all, and named.
	n.write(t, flannel.file, flannel.content[:20])
	eventually(t, "the damaged file to be passed over", func() bool {
		s := n.Skipped()
		return n.network() == "good" && len(s) == 1 && strings.Contains(s[0].Error(), flannel.file)
	})
}
