package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// capable is a list with a plugin of every capability.
const capable = `{"cniVersion":"1.1.0","name":"capable","plugins":[{"type":"bridge","capabilities":{
"portMappings":true,"bandwidth":true,"ipRanges":true,"dns":true,"cgroupPath":true,"io.kubernetes.cri.pod-annotations":true}}]}`

// pin returns a plan of the test list.
func pin(t *testing.T, a Attachment) (*Plan, error) {
	t.Helper()
	list, err := parseList([]byte(capable), "")
	if err != nil {
		t.Fatal(err)
	}
	return newPlan(list, a)
}

func TestPlanRoundTrip(t *testing.T) {
	netns := newNetns(t)
	p, err := pin(t, Attachment{
		ID: "box", Netns: netns, IfName: "net0", PodNamespace: "ns", PodName: "pod", PodUID: "uid",
		PortMappings: []PortMapping{{"UDP", 53, 5353, "::1"}, {"", 80, 8080, ""}},
		Annotations:  map[string]string{annotationIngress: "10M", annotationEgress: "1.5Gi", "secret": "hunter2"},
		DNS:          DNS{Servers: []string{"10.96.0.10", "fd00::a"}, Searches: []string{"svc.cluster.local"}, Options: []string{"ndots:5"}},
		CgroupPath:   "/kubepods/pod1",
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("hunter2")) {
		t.Errorf("an annotation that is not ours is stored: %s", b)
	}
	q, err := ParsePlan(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := q.Marshal()
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("stored again: %s, %v\nwant %s", again, err, b)
	}
	// What the pod's annotations say is for the plugins only.
	told := p.runtimeConf(netns)
	if notes, _ := told.CapabilityArgs[capabilityAnnotations].(json.RawMessage); !bytes.Contains(notes, []byte("hunter2")) {
		t.Errorf("annotations %s", notes)
	}
	delete(told.CapabilityArgs, capabilityAnnotations)
	if !reflect.DeepEqual(q.runtimeConf(netns), told) || q.inode == 0 || q.inode != p.inode {
		t.Errorf("read back %+v, want %+v", q, p)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"portMappings": []any{
			map[string]any{"hostPort": 5353.0, "containerPort": 53.0, "protocol": "udp", "hostIP": "::1"},
			map[string]any{"hostPort": 8080.0, "containerPort": 80.0, "protocol": "tcp"},
		},
		"bandwidth": map[string]any{
			"ingressRate": 1e7, "ingressBurst": float64(math.MaxInt32), "egressRate": 1.5 * (1 << 30), "egressBurst": float64(math.MaxInt32),
		},
		"dns": map[string]any{
			"servers": []any{"10.96.0.10", "fd00::a"}, "searches": []any{"svc.cluster.local"}, "options": []any{"ndots:5"},
		},
		"cgroupPath": "/kubepods/pod1",
	}
	if !reflect.DeepEqual(got["capabilityArgs"], want) {
		t.Errorf("capability arguments %v, want %v", got["capabilityArgs"], want)
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, a := range map[string]Attachment{
		"separator in a name":  {ID: "x", PodName: "a;IgnoreUnknown=0"},
		"separator in a uid":   {ID: "x", PodUID: "a=b"},
		"id of a path":         {ID: "../x"},
		"namespace without id": {Netns: "/proc/self/ns/net"},
		"no namespace":         {ID: "x", Netns: "/etc/passwd"},
		"missing namespace":    {ID: "x", Netns: "/nonexistent"},
		"interface name":       {ID: "x", IfName: "a/b"},
		"long interface name":  {ID: "x", IfName: "sixteen-letters-"},
		"protocol":             {ID: "x", PortMappings: []PortMapping{{"icmp", 1, 1, ""}}},
		"host port":            {ID: "x", PortMappings: []PortMapping{{"tcp", 1, 65536, ""}}},
		"negative host port":   {ID: "x", PortMappings: []PortMapping{{"tcp", 1, -1, ""}}},
		"container port":       {ID: "x", PortMappings: []PortMapping{{"tcp", 0, 1, ""}}},
		"host ip":              {ID: "x", PortMappings: []PortMapping{{"tcp", 1, 1, "localhost"}}},
		"bandwidth of words":   {ID: "x", Annotations: map[string]string{annotationIngress: "fast"}},
		"bandwidth too low":    {ID: "x", Annotations: map[string]string{annotationIngress: "999"}},
		"bandwidth too high":   {ID: "x", Annotations: map[string]string{annotationEgress: "2P"}},
		"bandwidth below 0":    {ID: "x", Annotations: map[string]string{annotationEgress: "-1M"}},
	} {
		if _, err := pin(t, a); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPlanIsPinnedLater(t *testing.T) {
	p, err := pin(t, Attachment{PodName: "pod"})
	if err != nil || p.ID() != "" {
		t.Fatalf("%v, %v", p, err)
	}
	n := newNode(t)
	if _, err := n.Add(context.Background(), p); !errors.Is(err, ErrInvalid) {
		t.Errorf("ADD of a plan without id: %v", err)
	}
	if err := n.Del(context.Background(), p, ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("DEL of a plan without id: %v", err)
	}
	q, err := p.For("box", "")
	if err != nil || q.ID() != "box" || p.ID() != "" {
		t.Errorf("For: %v, %v; the first plan has id %q", q, err, p.ID())
	}
	if _, err := n.Add(context.Background(), q); !errors.Is(err, ErrInvalid) {
		t.Errorf("ADD without namespace: %v", err)
	}
}

func TestQuantity(t *testing.T) {
	for text, want := range map[string]uint64{
		"1000": 1000, "1k": 1000, "1Ki": 1024, "10M": 1e7, "1.5G": 1.5e9, "0.5Ki": 512, "1e6": 1e6, "1E6": 1e6, "2T": 2e12,
		"1P": 1e15, "1E": 1e18, ".5k": 500, "1.0005k": 1001, "12E1": 120, "5.": 5,
	} {
		if got, ok := quantity(text); !ok || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "k", ".", "1m", "1K", "1 k", "1kk", "1e", "1e999999999", "1E+0000999", "-1", "+1", "1/2", "0x10", "1_0", "1e6k", "99999999999999999999", "20E", strings.Repeat("1", 100), "1..2"} {
		if got, ok := quantity(text); ok {
			t.Errorf("%q was taken as %d", text, got)
		}
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":"x","netns":"/n","netnsInode":4026531840,"ifName":"eth0","args":[["K","V"]],"capabilityArgs":{"a":{"b":1}},"list":` + good + `}`))
	f.Add([]byte(`{"version":1,"ifName":"eth0","list":null}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePlan(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error %v is not ErrInvalid", err)
			}
			return
		}
		first, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParsePlan(first)
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		second, err := q.Marshal()
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("not stable: %s\n%s, %v", first, second, err)
		}
	})
}

func FuzzQuantity(f *testing.F) {
	f.Add("1.5Gi")
	f.Add("1e10")
	f.Add("0.0000000001E")
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := quantity(s)
		if !ok {
			return
		}
		if again, ok := quantity(strconv.FormatUint(n, 10)); !ok && n < 1e19 || ok && again != n {
			t.Fatalf("%q is %d, which is read as %d, %v", s, n, again, ok)
		}
	})
}
