package proxy

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// descriptors maps a metric's name to its label keys.
func descriptors(of map[string]string) *runtimeapi.ListMetricDescriptorsResponse {
	r := new(runtimeapi.ListMetricDescriptorsResponse)
	for _, name := range slices.Sorted(maps.Keys(of)) {
		r.Descriptors = append(r.Descriptors, &runtimeapi.MetricDescriptor{Name: name, Help: "help", LabelKeys: strings.Fields(of[name])})
	}
	return r
}

// metrics is a pod with a metric of its own and one of a container, with
// these label values.
func metrics(pod, values string) *runtimeapi.ListPodSandboxMetricsResponse {
	m := func(name string) *runtimeapi.Metric {
		return &runtimeapi.Metric{Name: name, Timestamp: 7, LabelValues: strings.Fields(values), Value: &runtimeapi.UInt64Value{Value: 42}}
	}
	return &runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: []*runtimeapi.PodSandboxMetrics{{
		PodSandboxId: pod, Metrics: []*runtimeapi.Metric{m("net")},
		ContainerMetrics: []*runtimeapi.ContainerMetrics{{ContainerId: pod + "-c", Metrics: []*runtimeapi.Metric{m("cpu"), m("unannounced")}}},
	}}}
}

// TestMetricsHaveTheLabelsThatAreAnnounced, whichever runtime they are of.
func TestMetricsHaveTheLabelsThatAreAnnounced(t *testing.T) {
	var newer atomic.Bool
	n := answeringNode(t, "",
		answers{
			"ListMetricDescriptors": says(descriptors(map[string]string{"cpu": "id name", "net": "id name", "only-a": "id"})),
			"ListPodSandboxMetrics": says(metrics("pa", "ID NAME")),
		},
		answers{
			"ListMetricDescriptors": func() (proto.Message, error) {
				if newer.Load() {
					return descriptors(map[string]string{"cpu": "extra pod name id", "net": "id name"}), nil
				}
				return descriptors(map[string]string{"cpu": "name id pod", "net": "id name"}), nil
			},
			"ListPodSandboxMetrics": func() (proto.Message, error) {
				r := metrics("pb", "NAME ID POD")
				if newer.Load() {
					r = metrics("pb", "EXTRA POD NAME ID")
				}
				r.PodMetrics[0].Metrics[0].LabelValues = []string{"ID", "NAME"}
				return r, nil
			},
		})
	show := func() string {
		t.Helper()
		r, err := n.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, p := range r.PodMetrics {
			for _, m := range append(p.Metrics, p.ContainerMetrics[0].Metrics[0]) {
				out = append(out, fmt.Sprintf("%s %s%q", p.PodSandboxId, m.Name, m.LabelValues))
				if m.Value.GetValue() != 42 || m.Timestamp != 7 {
					t.Errorf("the metric is %v", m)
				}
			}
		}
		return strings.Join(out, ", ")
	}
	want := `pa net["ID" "NAME"], pa cpu["ID" "NAME" ""], pb net["ID" "NAME"], pb cpu["ID" "NAME" "POD"]`
	if got := show(); got != want {
		t.Errorf("before anything was announced: %s", got)
	}
	d, err := n.ListMetricDescriptors(t.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]string)
	for _, m := range d.Descriptors {
		if _, twice := keys[m.Name]; twice || m.Help != "help" {
			t.Errorf("descriptor %v", m)
		}
		keys[m.Name] = strings.Join(m.LabelKeys, " ")
	}
	if len(keys) != 3 || keys["cpu"] != "id name pod" || keys["net"] != "id name" || keys["only-a"] != "id" {
		t.Errorf("announced are %v", keys)
	}
	if got := show(); got != want {
		t.Errorf("afterwards: %s", got)
	}
	// A runtime that is upgraded is asked again; who was told of the old
	// labels keeps getting those.
	newer.Store(true)
	if got := show(); got != want {
		t.Errorf("from a newer runtime: %s", got)
	}
}

// TestMetricsThatLieRight are the runtime's own bytes.
func TestMetricsThatLieRight(t *testing.T) {
	b, err := proto.Marshal(metrics("p", "ID NAME"))
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]string{"cpu": {"id", "name"}, "net": {"id", "name"}}
	f := backends.NewFrame(b)
	if out, ok := laidOut(f, keys, keys); !ok || out != f {
		t.Error("they were copied")
	}
	if out, ok := laidOut(f, map[string][]string{"cpu": {"only one"}}, keys); ok || out != f {
		t.Error("a metric that has not the labels it was said to have was laid out")
	}
}

// TestMetricsWhileOneIsAway: its labels stay announced.
func TestMetricsWhileOneIsAway(t *testing.T) {
	down := atomic.Bool{}
	n := answeringNode(t, "",
		answers{"ListMetricDescriptors": says(descriptors(map[string]string{"cpu": "id"})), "ListPodSandboxMetrics": says(metrics("pa", "ID"))},
		answers{"ListMetricDescriptors": func() (proto.Message, error) {
			if down.Load() {
				return fails(codes.Unavailable)()
			}
			return descriptors(map[string]string{"cpu": "id pod", "only-b": "id"}), nil
		}})
	for _, state := range []bool{false, true} {
		down.Store(state)
		d, err := n.ListMetricDescriptors(t.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
		if err != nil || len(d.Descriptors) != 2 || len(d.Descriptors[0].LabelKeys) != 2 {
			t.Errorf("away %v: announced are %v, %v", state, d, err)
		}
	}
}

// TestLabelsOfWhatCannotBeRead are left alone: nothing after them is lost.
func TestLabelsOfWhatCannotBeRead(t *testing.T) {
	m := append(wire.AppendItem(nil, descriptorLabels, []byte("id")), "\x0a\xff and more"...)
	if got := withTexts(m, descriptorLabels, []string{"id", "name"}); !bytes.Equal(got, m) {
		t.Errorf("%q became %q", m, got)
	}
	// A name that is announced twice has the labels of both.
	both := labelKeys([]wire.Message{
		wire.AppendItem(wire.AppendItem(nil, descriptorName, []byte("cpu")), descriptorLabels, []byte("id")),
		wire.AppendItem(wire.AppendItem(nil, descriptorName, []byte("cpu")), descriptorLabels, []byte("name")),
	})
	if !slices.Equal(both["cpu"], []string{"id", "name"}) {
		t.Errorf("the labels are %q", both)
	}
}

// FuzzLaidOut: no bytes of a runtime make it panic, and what needs no other
// layout stays as it is.
func FuzzLaidOut(f *testing.F) {
	b, err := proto.Marshal(metrics("p", "ID NAME"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{10, 3, 18, 1, 10})
	own := map[string][]string{"cpu": {"id", "name"}, "net": {"id", "name"}}
	want := map[string][]string{"cpu": {"name", "x", "id"}, "net": {"id", "name"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		out, ok := laidOut(backends.NewFrame(b), own, want)
		if !ok && string(out.Bytes()) != string(b) {
			t.Error("what could not be laid out was changed")
		}
	})
}
