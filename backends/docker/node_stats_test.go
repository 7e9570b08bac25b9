package docker

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/backends/docker/stats"
)

// statsBench is a bench with a running pod of two containers, and a recorded
// tree of cgroups that has them.
type statsBench struct {
	*bench
	t          *testing.T
	dir        string
	pod        string
	containers []string
}

func newStatsBench(t *testing.T) *statsBench {
	t.Helper()
	b := &statsBench{bench: newBench(t), t: t, dir: t.TempDir()}
	b.stats.reader = stats.NewReader(b.dir)
	b.write("proc/self/mountinfo", "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	cfg := podConfig()
	var err error
	if b.pod, err = b.runPod(backends.NoJournal, cfg); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		c, err := b.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: b.pod, SandboxConfig: cfg, Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: "busybox"}, Labels: map[string]string{"name": name},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
			t.Fatal(err)
		}
		b.containers = append(b.containers, c.ContainerId)
	}
	// The fake has one process for all.
	var all strings.Builder
	for _, id := range append(b.containers, b.pod) {
		fmt.Fprintf(&all, "0::/docker/%s\n", id)
		for name, content := range map[string]string{
			"cpu.stat": "usage_usec 1000000\n", "memory.current": "4096\n", "memory.stat": "inactive_file 1024\n", "pids.current": "1\n", "cgroup.procs": "1\n",
		} {
			b.write("sys/fs/cgroup/docker/"+id+"/"+name, content)
		}
	}
	proc := fmt.Sprintf("proc/%d/", os.Getpid())
	b.write(proc+"cgroup", all.String())
	b.write(proc+"net/dev", "eth1: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\neth0: 10 20 30 40 0 0 0 0 50 60 70 80 0 0 0 0\n")
	return b
}

func (b *statsBench) write(name, content string) {
	b.t.Helper()
	name = filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *statsBench) list() (map[string]*runtimeapi.ContainerStats, error) {
	all, err := b.ListContainerStats(b.t.Context(), &runtimeapi.ListContainerStatsRequest{})
	out := map[string]*runtimeapi.ContainerStats{}
	for _, s := range all.GetStats() {
		out[s.Attributes.Id] = s
	}
	return out, err
}

// TestStatsCostTheEngineNothing: not one call.
func TestStatsCostTheEngineNothing(t *testing.T) {
	b := newStatsBench(t)
	b.trace.mu.Lock()
	b.trace.calls = nil
	b.trace.mu.Unlock()
	for name, call := range map[string]func() error{
		"list": func() error { _, err := b.list(); return err },
		"one": func() error {
			_, err := b.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: b.containers[0]})
			return err
		},
		"pods": func() error {
			_, err := b.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{})
			return err
		},
		"pod": func() error {
			_, err := b.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: b.pod})
			return err
		},
		"descriptors": func() error {
			_, err := b.ListMetricDescriptors(t.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
			return err
		},
		"metrics": func() error {
			_, err := b.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b.trace.mu.Lock()
		if len(b.trace.calls) != 0 {
			t.Errorf("%s: calls %v", name, b.trace.calls)
		}
		b.trace.mu.Unlock()
	}
}

// TestPodIsTheSumOfItsContainers where it has no cgroup of its own.
func TestPodIsTheSumOfItsContainers(t *testing.T) {
	b := newStatsBench(t)
	r, err := b.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: b.pod})
	if err != nil {
		t.Fatal(err)
	}
	l := r.Stats.Linux
	if l.Cpu.UsageCoreNanoSeconds.Value != 3e9 || l.Cpu.UsageNanoCores != nil || l.Memory.WorkingSetBytes.Value != 3*3072 || l.Memory.AvailableBytes != nil ||
		l.Process.ProcessCount.Value != 3 || len(l.Containers) != 2 {
		t.Errorf("pod %v", l)
	}
	if n := l.Network; n.DefaultInterface.Name != "eth0" || n.DefaultInterface.TxErrors.Value != 70 || len(n.Interfaces) != 1 || n.Interfaces[0].Name != "eth1" {
		t.Errorf("network %v", n)
	}
}

// TestOneBadContainerIsNotAll: the others' numbers are there all the same.
func TestOneBadContainerIsNotAll(t *testing.T) {
	b := newStatsBench(t)
	bad, good := b.containers[0], b.containers[1]
	b.write("sys/fs/cgroup/docker/"+bad+"/memory.current", "not a number\n")
	all, err := b.list()
	if err != nil || len(all) != 2 || all[bad].Memory != nil || all[good].Memory == nil {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := b.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: bad}); err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("alone: %v", err)
	}
	// One that ended meanwhile is no failure at all.
	if err := os.RemoveAll(filepath.Join(b.dir, "sys/fs/cgroup/docker", bad)); err != nil {
		t.Fatal(err)
	}
	r, err := b.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: bad})
	if err != nil || r.Stats.Attributes.Id != bad || r.Stats.Cpu != nil {
		t.Errorf("ended: %v, %v", r, err)
	}
}

// TestNoCgroupsAtAll is a failure of the node's, and told.
func TestNoCgroupsAtAll(t *testing.T) {
	b := newStatsBench(t)
	b.write("proc/self/mountinfo", "")
	if _, err := b.list(); err == nil || !strings.Contains(err.Error(), "cgroup") {
		t.Errorf("error %v", err)
	}
}

// TestLayers: the folder is the one the Engine names, or the one that is
// mounted, as long as the container is there.
func TestLayers(t *testing.T) {
	b := newStatsBench(t)
	named, mounted := b.containers[0], b.containers[1]
	layer := filepath.Join(b.dir, "layer")
	b.write("layer/file", strings.Repeat("x", 5000))
	b.write(fmt.Sprintf("proc/%d/mountinfo", os.Getpid()), "1 0 0:60 / / rw - overlay overlay rw,upperdir="+layer+"\n")
	b.engine.mu.Lock()
	b.engine.containers[named].GraphDriver.Data = map[string]string{"UpperDir": layer}
	b.engine.mu.Unlock()
	b.resync(t)
	dirs := func() map[string]string {
		t.Helper()
		all, err := b.stats.subjects(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, s := range all {
			out[s.ID] = s.Dir
		}
		return out
	}
	want := map[string]string{named: layer, mounted: layer}
	if got := dirs(); !maps.Equal(got, want) {
		t.Errorf("layers %v", got)
	}
	// An Engine that is away is left in peace.
	b.cache.attempted(errInjected)
	if _, err := b.stats.subjects(t.Context()); err == nil || len(b.cache.feed.kick) != 0 {
		t.Errorf("while the engine is away: %v, %d attempts asked for", err, len(b.cache.feed.kick))
	}
	b.resync(t)
	// Once it has ended there is no mount to ask.
	if err := os.RemoveAll(filepath.Join(b.dir, "proc")); err != nil {
		t.Fatal(err)
	}
	if err := b.engine.ContainerKill(t.Context(), mounted, "KILL"); err != nil {
		t.Fatal(err)
	}
	b.resync(t)
	if got := dirs(); !maps.Equal(got, want) {
		t.Errorf("layers after the end %v", got)
	}
}

// TestMetricsWithoutTheDisk: where the Engine keeps its data need not be seen
// from here for the rest to be known.
func TestMetricsWithoutTheDisk(t *testing.T) {
	b := newStatsBench(t)
	b.stats.keep("/nowhere", nil)
	r, err := b.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil || len(r.PodMetrics) != 1 || len(r.PodMetrics[0].ContainerMetrics) != 2 || len(r.PodMetrics[0].Metrics) != 16 {
		t.Fatalf("metrics %v, %v", r, err)
	}
	for _, m := range r.PodMetrics[0].ContainerMetrics[0].Metrics {
		if strings.HasPrefix(m.Name, "container_fs_limit") {
			t.Errorf("metric %v", m)
		}
	}
}

// TestDescriptors: names are unique, and labels in containerd's order, with
// which they share a descriptor on a node that has both.
func TestDescriptors(t *testing.T) {
	b := newBench(t)
	r, err := b.ListMetricDescriptors(t.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string][]string{}
	for _, d := range r.Descriptors {
		if seen[d.Name] != nil || d.Help == "" {
			t.Errorf("descriptor %v", d)
		}
		seen[d.Name] = d.LabelKeys
	}
	for name, more := range map[string][]string{
		"container_cpu_usage_seconds_total": nil, "container_network_receive_bytes_total": {"interface"}, "container_fs_usage_bytes": {"device"},
		"container_memory_failures_total": {"failure_type", "scope"}, "container_blkio_device_usage_total": {"device", "major", "minor", "operation"},
		"container_ulimits_soft": {"ulimit"}, "container_spec_cpu_quota": nil, "container_hugetlb_usage_bytes": {"pagesize"},
	} {
		if want := append([]string{"pod", "namespace", "container", "id", "image"}, more...); !slices.Equal(seen[name], want) {
			t.Errorf("%s: labels %v, want %v", name, seen[name], want)
		}
	}
}

// TestPodStatsWithoutID: only Unimplemented would tell the kubelet that there
// are none.
func TestPodStatsWithoutID(t *testing.T) {
	b := newBench(t)
	if _, err := b.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("error %v", err)
	}
}
