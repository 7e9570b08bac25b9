package docker

import (
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (c cri) containerStats(id string) *runtimeapi.ContainerStats {
	c.t.Helper()
	return must[runtimeapi.ContainerStatsResponse](c, runtimeService+"ContainerStats", &runtimeapi.ContainerStatsRequest{ContainerId: id}).Stats
}

// listStats lists containers' statistics by id.
func (c cri) listStats(filter *runtimeapi.ContainerStatsFilter) map[string]*runtimeapi.ContainerStats {
	c.t.Helper()
	all := map[string]*runtimeapi.ContainerStats{}
	for _, s := range must[runtimeapi.ListContainerStatsResponse](c, runtimeService+"ListContainerStats", &runtimeapi.ListContainerStatsRequest{Filter: filter}).Stats {
		all[s.Attributes.Id] = s
	}
	return all
}

func (c cri) podStats(id string) *runtimeapi.PodSandboxStats {
	c.t.Helper()
	return must[runtimeapi.PodSandboxStatsResponse](c, runtimeService+"PodSandboxStats", &runtimeapi.PodSandboxStatsRequest{PodSandboxId: id}).Stats
}

// listPodStats lists pods' statistics by id.
func (c cri) listPodStats(filter *runtimeapi.PodSandboxStatsFilter) map[string]*runtimeapi.PodSandboxStats {
	c.t.Helper()
	all := map[string]*runtimeapi.PodSandboxStats{}
	for _, s := range must[runtimeapi.ListPodSandboxStatsResponse](c, runtimeService+"ListPodSandboxStats", &runtimeapi.ListPodSandboxStatsRequest{Filter: filter}).Stats {
		all[s.Attributes.Id] = s
	}
	return all
}

const (
	memoryLimit = 96 << 20
	written     = 8 << 20
)

// busyConfig is a container that has written a file, and computes on.
func busyConfig(image, name string) *runtimeapi.ContainerConfig {
	cfg := ctrConfig(image, "dd if=/dev/zero of=/file bs=1048576 count=8 2>/dev/null; touch /a /b; while :; do :; done")
	cfg.Metadata.Name, cfg.LogPath = name, ""
	cfg.Linux.Resources.MemoryLimitInBytes = memoryLimit
	cfg.Linux.Resources.CpuPeriod, cfg.Linux.Resources.CpuQuota = 100000, 20000
	return cfg
}

// kubeletPod is a pod with a cgroup of its own, as the kubelet makes it.
func kubeletPod(t *testing.T) *runtimeapi.PodSandboxConfig {
	cfg := pod(t)
	cfg.Linux.CgroupParent = "/crimux-test/pod" + cfg.Metadata.Uid
	t.Cleanup(func() {
		trees, err := filepath.Glob("/sys/fs/cgroup/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, tree := range append(trees, "/sys/fs/cgroup") {
			for _, dir := range []string{cfg.Linux.CgroupParent, filepath.Dir(cfg.Linux.CgroupParent)} {
				if err := unix.Rmdir(filepath.Join(tree, dir)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
					t.Errorf("remove the pod's cgroup: %v", err)
				}
			}
		}
	})
	return cfg
}

func TestContainerStats(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	ref := c.pull("busybox")
	cfg := pod(t)
	sandbox := c.run(cfg)
	id := c.create(sandbox, cfg, busyConfig(ref, "busy"))

	created := c.containerStats(id)
	if created.Cpu != nil || created.Memory != nil || created.Attributes.GetId() != id {
		t.Errorf("of a container that was not started: %v", created)
	}
	c.start(id)
	first := c.containerStats(id)
	if a := first.Attributes; a.Id != id || a.Metadata.GetName() != "busy" || a.Labels["io.kubernetes.container.name"] != "main" || a.Annotations["io.kubernetes.container.hash"] != "abc" || len(a.Annotations) != 1 {
		t.Errorf("attributes %v", a)
	}
	if first.Cpu.GetTimestamp() == 0 || first.Cpu.UsageCoreNanoSeconds == nil || first.Memory.GetTimestamp() == 0 || first.Cpu.UsageNanoCores != nil {
		t.Errorf("first statistics %v", first)
	}
	var last *runtimeapi.ContainerStats
	eventually(t, "the rate of a busy container is known", func() bool {
		last = c.containerStats(id)
		return last.Cpu.UsageNanoCores.GetValue() > 0
	})
	if last.Cpu.UsageCoreNanoSeconds.Value <= first.Cpu.UsageCoreNanoSeconds.Value || last.Cpu.Timestamp <= first.Cpu.Timestamp {
		t.Errorf("CPU time does not rise: %v, %v", first.Cpu, last.Cpu)
	}
	// 20% of a core are allowed; a rate is of a window, and windows are not the quota's.
	if r := last.Cpu.UsageNanoCores.Value; r > 1e9 {
		t.Errorf("%d ns/s of a container that is held to 20%% of a core", r)
	}
	eventually(t, "the file is in the page cache and not in the working set", func() bool {
		m := c.containerStats(id).Memory
		return m.UsageBytes.Value >= written && m.WorkingSetBytes.Value < m.UsageBytes.Value-written/2
	})
	m := c.containerStats(id).Memory
	if m.UsageBytes.Value > memoryLimit || m.AvailableBytes.GetValue() > memoryLimit || m.AvailableBytes.GetValue()+m.WorkingSetBytes.Value != memoryLimit ||
		m.RssBytes.Value == 0 || m.PageFaults.Value == 0 {
		t.Errorf("memory %v", m)
	}
	eventually(t, "the written files are in the writable layer", func() bool {
		w := c.containerStats(id).WritableLayer
		return w.GetUsedBytes().GetValue() >= written && w.InodesUsed.Value >= 4
	})
	w := c.containerStats(id).WritableLayer
	info := must[runtimeapi.ImageFsInfoResponse](c, imageService+"ImageFsInfo", &runtimeapi.ImageFsInfoRequest{})
	if w.UsedBytes.Value > 2*written || w.Timestamp == 0 || w.FsId.GetMountpoint() != info.ContainerFilesystems[0].FsId.Mountpoint {
		t.Errorf("writable layer %v", w)
	}
	if sum := info.ContainerFilesystems[0].UsedBytes.GetValue(); sum < w.UsedBytes.Value {
		t.Errorf("all containers have written %d bytes, and this one alone %d", sum, w.UsedBytes.Value)
	}
	exitedStats(c, id)
}

// exitedStats ends a container and removes it.
func exitedStats(c cri, id string) {
	t := c.t
	t.Helper()
	must[runtimeapi.StopContainerResponse](c, runtimeService+"StopContainer", &runtimeapi.StopContainerRequest{ContainerId: id})
	eventually(t, "an ended container's layer is known", func() bool {
		return c.containerStats(id).WritableLayer.GetUsedBytes().GetValue() >= written
	})
	for _, s := range []*runtimeapi.ContainerStats{c.containerStats(id), c.listStats(nil)[id]} {
		if s.GetAttributes().GetId() != id || s.Cpu != nil || s.Memory != nil || s.WritableLayer == nil {
			t.Errorf("of an ended container: %v", s)
		}
	}
	must[runtimeapi.RemoveContainerResponse](c, runtimeService+"RemoveContainer", &runtimeapi.RemoveContainerRequest{ContainerId: id})
	if err := c.try(runtimeService+"ContainerStats", &runtimeapi.ContainerStatsRequest{ContainerId: id}); status.Code(err) != codes.NotFound {
		t.Errorf("of a removed container: %v", err)
	}
	if _, ok := c.listStats(nil)[id]; ok {
		t.Error("a removed container is listed")
	}
}

func TestStatsFilters(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	ref := c.pull("busybox")
	var sandboxes, containers []string
	for _, name := range []string{"one", "two"} {
		cfg := pod(t)
		cfg.Labels["which"] = name
		sandbox := c.run(cfg)
		ctr := ctrConfig(ref, "sleep 1000")
		ctr.LogPath, ctr.Labels["which"] = "", name
		id := c.create(sandbox, cfg, ctr)
		c.start(id)
		sandboxes, containers = append(sandboxes, sandbox), append(containers, id)
	}
	one := map[string]string{"which": "one"}
	for name, f := range map[string]*runtimeapi.ContainerStatsFilter{
		"id": {Id: containers[0]}, "prefix": {Id: containers[0][:12]}, "sandbox": {PodSandboxId: sandboxes[0]},
		"label": {LabelSelector: one}, "all": {Id: containers[0], PodSandboxId: sandboxes[0], LabelSelector: one},
	} {
		if got := c.listStats(f); len(got) != 1 || got[containers[0]].GetMemory() == nil {
			t.Errorf("containers by %s: %v", name, got)
		}
	}
	for name, f := range map[string]*runtimeapi.ContainerStatsFilter{
		"another's sandbox": {Id: containers[0], PodSandboxId: sandboxes[1]}, "another label": {LabelSelector: map[string]string{"which": "three"}}, "no id": {Id: sandboxes[0]},
	} {
		if got := c.listStats(f); len(got) != 0 {
			t.Errorf("containers by %s: %v", name, got)
		}
	}
	for name, f := range map[string]*runtimeapi.PodSandboxStatsFilter{
		"id": {Id: sandboxes[0]}, "prefix": {Id: sandboxes[0][:12]}, "label": {LabelSelector: one},
	} {
		if got := c.listPodStats(f); len(got) != 1 || got[sandboxes[0]] == nil {
			t.Errorf("pods by %s: %v", name, got)
		}
	}
	if got := c.listPodStats(nil); got[sandboxes[0]] == nil || got[sandboxes[1]] == nil {
		t.Errorf("all pods: %v", got)
	}
	if got := c.listStats(nil); got[containers[0]] == nil || got[containers[1]] == nil || got[sandboxes[0]] != nil {
		t.Errorf("all containers: %v", got)
	}
}

// TestPodStats is about pods with and without a cgroup of their own.
func TestPodStats(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	ref := c.pull("busybox")
	for name, cfg := range map[string]*runtimeapi.PodSandboxConfig{"own cgroup": kubeletPod(t), "shared cgroup": pod(t)} {
		t.Run(name, func(t *testing.T) {
			c := kubelet(t)
			id := c.run(cfg)
			ctr := c.create(id, cfg, busyConfig(ref, "busy"))
			c.start(ctr)
			var s *runtimeapi.PodSandboxStats
			eventually(t, "the pod's rate is known", func() bool {
				s = c.podStats(id)
				return s.Linux.Cpu.GetUsageNanoCores().GetValue() > 0
			})
			if len(s.Linux.Containers) != 1 || s.Linux.Containers[0].Attributes.Id != ctr || s.Linux.Containers[0].Cpu == nil {
				t.Fatalf("containers %v", s.Linux.Containers)
			}
			if s.Attributes.Id != id || s.Attributes.Metadata.GetUid() != cfg.Metadata.Uid || s.Attributes.Labels["app"] != "test" || s.Attributes.Annotations["note"] != "x=y:z" {
				t.Errorf("attributes %v", s.Attributes)
			}
			of := s.Linux.Containers[0]
			if s.Linux.Cpu.UsageCoreNanoSeconds.Value < of.Cpu.UsageCoreNanoSeconds.Value || s.Linux.Memory.UsageBytes.Value < written || s.Linux.Process.ProcessCount.Value < 2 {
				t.Errorf("pod %v %v %v, its container %v", s.Linux.Cpu, s.Linux.Memory, s.Linux.Process, of)
			}
			podTraffic(c, id)
			must[runtimeapi.StopContainerResponse](c, runtimeService+"StopContainer", &runtimeapi.StopContainerRequest{ContainerId: ctr})
			if now := c.podStats(id).Linux.Cpu; cfg.Linux.CgroupParent != "" && now.UsageCoreNanoSeconds.Value < s.Linux.Cpu.UsageCoreNanoSeconds.Value {
				t.Errorf("the pod's own count has lost what an ended container has used: %v, was %v", now, s.Linux.Cpu)
			}
			must[runtimeapi.StopPodSandboxResponse](c, runtimeService+"StopPodSandbox", &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
			if s := c.podStats(id); s.Attributes.Id != id || s.Linux.Cpu != nil || s.Linux.Network != nil || len(s.Linux.Containers) != 1 {
				t.Errorf("of a stopped pod: %v", s)
			}
			if s := c.listPodStats(nil)[id]; s != nil {
				t.Errorf("a stopped pod is listed: %v", s)
			}
		})
	}
	// The kubelet asks this to find out whether there are any.
	if err := c.try(runtimeService+"PodSandboxStats", &runtimeapi.PodSandboxStatsRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no id: %v", err)
	}
	if err := c.try(runtimeService+"PodSandboxStats", &runtimeapi.PodSandboxStatsRequest{PodSandboxId: strings.Repeat("0", 64)}); status.Code(err) != codes.NotFound {
		t.Errorf("unknown id: %v", err)
	}
}

// podTraffic sends something to the pod and finds it in the pod's statistics.
func podTraffic(c cri, id string) {
	t := c.t
	t.Helper()
	before := c.podStats(id).Linux.Network
	if before.GetDefaultInterface().GetName() != "eth0" || len(before.Interfaces) != 0 {
		t.Fatalf("network %v", before)
	}
	conn, err := net.Dial("udp", net.JoinHostPort(c.podStatus(id).Network.Ip, "9"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	const packets, size = 10, 1000
	for range packets {
		// That nobody listens comes back with the next one.
		if _, err := conn.Write(make([]byte, size)); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	eventually(t, "what was sent has arrived", func() bool {
		now := c.podStats(id).Linux.Network.DefaultInterface
		return now.RxBytes.Value >= before.DefaultInterface.RxBytes.Value+packets*size/2
	})
}

func TestHostNetworkStats(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	cfg := pod(t)
	cfg.Hostname = ""
	cfg.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	id := c.run(cfg)
	if s := c.podStats(id); s.Linux.Cpu == nil || s.Linux.Network != nil {
		t.Errorf("of a pod on the host's network: %v", s)
	}
}

// optionalMetrics are those that not every kernel and not every container has.
var optionalMetrics = []string{
	"container_hugetlb_", "container_pressure_", "container_blkio_device_usage_total", "container_fs_reads_", "container_fs_writes_",
}

func TestPodMetrics(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	ref := c.pull("busybox")
	cfg := pod(t)
	sandbox := c.run(cfg)
	ctr := busyConfig(ref, "busy")
	ctr.Linux.Resources.MemorySwapLimitInBytes = memoryLimit
	id := c.create(sandbox, cfg, ctr)
	c.start(id)
	eventually(t, "the layer is measured, and nothing but the loop is left", func() bool {
		return c.containerStats(id).WritableLayer.GetInodesUsed().GetValue() >= 4
	})

	keys := map[string]int{}
	for _, d := range must[runtimeapi.ListMetricDescriptorsResponse](c, runtimeService+"ListMetricDescriptors", &runtimeapi.ListMetricDescriptorsRequest{}).Descriptors {
		if keys[d.Name] != 0 || d.Help == "" || !slices.Equal(d.LabelKeys[:5], []string{"pod", "namespace", "container", "id", "image"}) {
			t.Errorf("descriptor %v", d)
		}
		keys[d.Name] = len(d.LabelKeys)
	}
	var metrics *runtimeapi.PodSandboxMetrics
	for _, m := range must[runtimeapi.ListPodSandboxMetricsResponse](c, runtimeService+"ListPodSandboxMetrics", &runtimeapi.ListPodSandboxMetricsRequest{}).PodMetrics {
		if m.PodSandboxId == sandbox {
			metrics = m
		}
	}
	if len(metrics.GetContainerMetrics()) != 1 || metrics.ContainerMetrics[0].ContainerId != id {
		t.Fatalf("metrics %v", metrics)
	}
	values := map[string]uint64{}
	check := func(m *runtimeapi.Metric, labels []string) {
		t.Helper()
		if n, ok := keys[m.Name]; !ok || n != len(m.LabelValues) {
			t.Errorf("%v has %d labels, its descriptor %d", m, len(m.LabelValues), n)
			return
		}
		if !slices.Equal(m.LabelValues[:5], labels) || (m.Timestamp != 0) != (m.Name == "container_fs_usage_bytes") {
			t.Errorf("metric %v", m)
		}
		values[m.Name] = m.Value.Value
	}
	for _, m := range metrics.Metrics {
		check(m, []string{cfg.Metadata.Name, "default", "", sandbox, ""})
	}
	for _, m := range metrics.ContainerMetrics[0].Metrics {
		check(m, []string{cfg.Metadata.Name, "default", "busy", id, ref})
	}
	for name := range keys {
		optional := slices.ContainsFunc(optionalMetrics, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if _, ok := values[name]; !ok && !optional {
			t.Errorf("%s has no value", name)
		}
	}
	for name, want := range map[string]uint64{
		"container_spec_memory_limit_bytes": memoryLimit, "container_spec_memory_swap_limit_bytes": memoryLimit, "container_spec_cpu_quota": 20000,
		"container_spec_cpu_period": 100000, "container_spec_cpu_shares": 102, "container_processes": 1, "container_threads": 1, "container_oom_events_total": 0,
	} {
		if values[name] != want {
			t.Errorf("%s: %d, want %d", name, values[name], want)
		}
	}
	if now := uint64(time.Now().Unix()); values["container_start_time_seconds"] < now-300 || values["container_last_seen"] < now-60 || values["container_file_descriptors"] == 0 {
		t.Errorf("values %v", values)
	}
	inUse(t, values)
}

// inUse compares a value with the file system that it is of.
func inUse(t *testing.T, values map[string]uint64) {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(node.lab.Dir, &fs); err != nil {
		t.Fatal(err)
	}
	if values["container_fs_limit_bytes"] != fs.Blocks*uint64(fs.Bsize) || values["container_fs_inodes_total"] != fs.Files {
		t.Errorf("file system of %d bytes, %d inodes: %v", fs.Blocks*uint64(fs.Bsize), fs.Files, values)
	}
}
