package docker

import (
	"context"
	"errors"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker/stats"
)

// ListMetricDescriptors implements the RuntimeService.
func (s *server) ListMetricDescriptors(context.Context, *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	out := &runtimeapi.ListMetricDescriptorsResponse{}
	for _, m := range containerMetrics {
		out.Descriptors = append(out.Descriptors, m.descriptor())
	}
	for _, m := range networkMetrics {
		out.Descriptors = append(out.Descriptors, m.descriptor())
	}
	return out, nil
}

// ListPodSandboxMetrics implements the RuntimeService: one pass over the
// running pods and containers.
func (s *server) ListPodSandboxMetrics(ctx context.Context, _ *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	all, err := s.all(ctx, typeSandbox)
	if err != nil {
		return nil, err
	}
	byPod, err := s.containersByPod(ctx)
	if err != nil {
		return nil, err
	}
	p := &pass{Pass: s.stats.reader.Begin()}
	space, err := s.stats.disk(p.Pass)
	p.note(false, err)
	out := &runtimeapi.ListPodSandboxMetricsResponse{}
	for _, f := range all {
		if !f.running() {
			continue
		}
		if ctx.Err() != nil {
			return nil, s.fail(ctx.Err(), "metrics of sandboxes")
		}
		pod := &runtimeapi.PodSandboxMetrics{PodSandboxId: f.ID}
		for _, i := range p.network(f) {
			for _, m := range networkMetrics {
				pod.Metrics = append(pod.Metrics, m.of(podLabels(f), i)...)
			}
		}
		for _, c := range byPod[f.ID] {
			if m := s.stats.metrics(p, f, c, space); m != nil {
				pod.ContainerMetrics = append(pod.ContainerMetrics, m)
			}
		}
		out.PodMetrics = append(out.PodMetrics, pod)
	}
	if err := p.failure(); err != nil {
		return nil, s.fail(err, "metrics of sandboxes")
	}
	return out, nil
}

// facets is all that a container's metrics are made of.
type facets struct {
	*found
	now    time.Time
	usage  *stats.Usage
	detail *stats.Detail
	layer  *layerSize
	disk   *disk
}

// layerSize is the size of a writable layer and the device that it is on.
type layerSize struct {
	stats.Layer
	device string
}

// metrics are a running container's; nil for one that does not run.
func (n *nodeStats) metrics(p *pass, pod, f *found, space *disk) *runtimeapi.ContainerMetrics {
	u := p.usage(f)
	if u == nil {
		return nil
	}
	d, err := p.Detail(f.ID, f.State.Pid)
	if errors.Is(err, stats.ErrGone) {
		return nil
	}
	p.note(err == nil, err)
	if err != nil {
		d = &stats.Detail{}
	}
	all := &facets{found: f, now: u.Time, usage: u, detail: d, disk: space}
	if l, ok := n.layers.Layer(f.ID); ok {
		name, err := p.DeviceName(l.Device)
		p.note(err == nil, err)
		all.layer = &layerSize{Layer: l, device: name}
	}
	out := &runtimeapi.ContainerMetrics{ContainerId: f.ID}
	labels := containerLabels(pod, f)
	for _, m := range containerMetrics {
		out.Metrics = append(out.Metrics, m.of(labels, all)...)
	}
	return out
}

// baseLabels are the keys that every metric has, in containerd's order: a node
// that runs both has one descriptor for both.
var baseLabels = []string{"pod", "namespace", "container", "id", "image"}

func podLabels(f *found) []string {
	return []string{f.identity.pod, f.identity.namespace, "", f.ID, ""}
}

func containerLabels(pod, f *found) []string {
	return []string{pod.identity.pod, pod.identity.namespace, f.container, f.ID, f.imageSpec(f.Config.Image).GetImage()}
}

// metric is one metric of something.
type metric[T any] struct {
	name, help string
	// more are the keys of its own labels.
	more []string
	kind runtimeapi.MetricType
	// values are as many as there are; none for what is not known.
	values func(T) []value
}

// value is one value of a metric, with one label for each of the metric's own
// keys.
type value struct {
	n      uint64
	labels []string
	// at is when it was taken; zero for now.
	at time.Time
}

func (m metric[T]) descriptor() *runtimeapi.MetricDescriptor {
	return &runtimeapi.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: append(baseLabels[:len(baseLabels):len(baseLabels)], m.more...)}
}

func (m metric[T]) of(labels []string, what T) []*runtimeapi.Metric {
	var out []*runtimeapi.Metric
	for _, v := range m.values(what) {
		one := &runtimeapi.Metric{
			Name: m.name, MetricType: m.kind, Value: number(v.n), LabelValues: append(labels[:len(labels):len(labels)], v.labels...),
		}
		// A time is for what was not taken for this answer.
		if !v.at.IsZero() {
			one.Timestamp = v.at.UnixNano()
		}
		out = append(out, one)
	}
	return out
}
