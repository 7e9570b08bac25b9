package docker

import (
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker/stats"
)

const (
	counter = runtimeapi.MetricType_COUNTER
	gauge   = runtimeapi.MetricType_GAUGE
)

// The metrics have the names and labels that containerd, CRI-O and cAdvisor
// give them: dashboards go on working.
type (
	containerMetric = metric[*facets]
	networkMetric   = metric[stats.Interface]
)

var containerMetrics = func() (all []containerMetric) {
	for _, part := range [][]containerMetric{
		cpuMetrics, memoryMetrics, swapMetrics, ioMetrics, diskMetrics, hugePageMetrics, processMetrics, pressureMetrics, specMetrics, timeMetrics,
	} {
		all = append(all, part...)
	}
	return all
}()

// one is the only value of a metric without labels of its own.
func one(n uint64) []value { return []value{{n: n}} }

// known is one value, or none.
func known(n *uint64) []value {
	if n == nil {
		return nil
	}
	return one(*n)
}

// seconds are whole ones: the CRI knows no fractions.
func seconds(d time.Duration) []value { return one(uint64(d / time.Second)) }

var cpuMetrics = []containerMetric{
	{name: "container_cpu_usage_seconds_total", kind: counter, help: "CPU time that the container has used, in seconds.",
		values: ofCPU(func(c *stats.CPU, _ *stats.Detail) []value { return one(c.Total / uint64(time.Second)) })},
	{name: "container_cpu_user_seconds_total", kind: counter, help: "CPU time that the container has used in user mode, in seconds.",
		values: ofCPU(func(_ *stats.CPU, d *stats.Detail) []value { return seconds(d.User) })},
	{name: "container_cpu_system_seconds_total", kind: counter, help: "CPU time that the container has used in the kernel, in seconds.",
		values: ofCPU(func(_ *stats.CPU, d *stats.Detail) []value { return seconds(d.System) })},
	{name: "container_cpu_cfs_periods_total", kind: counter, help: "Periods of the CPU quota that have gone by.",
		values: ofThrottling(func(t *stats.Throttling) []value { return one(t.Periods) })},
	{name: "container_cpu_cfs_throttled_periods_total", kind: counter, help: "Periods in which the CPU quota held the container up.",
		values: ofThrottling(func(t *stats.Throttling) []value { return one(t.ThrottledPeriods) })},
	{name: "container_cpu_cfs_throttled_seconds_total", kind: counter, help: "For how long the CPU quota held the container up, in seconds.",
		values: ofThrottling(func(t *stats.Throttling) []value { return seconds(t.Throttled) })},
}

func ofCPU(get func(*stats.CPU, *stats.Detail) []value) func(*facets) []value {
	return func(f *facets) []value {
		if f.usage.CPU == nil {
			return nil
		}
		return get(f.usage.CPU, f.detail)
	}
}

func ofThrottling(get func(*stats.Throttling) []value) func(*facets) []value {
	return func(f *facets) []value {
		if f.detail.Throttling == nil {
			return nil
		}
		return get(f.detail.Throttling)
	}
}

var memoryMetrics = []containerMetric{
	{name: "container_memory_usage_bytes", kind: gauge, help: "Memory in use, page cache included, in bytes.",
		values: ofMemory(func(m *stats.Memory, _ *stats.MemoryDetail) []value { return one(m.Usage) })},
	{name: "container_memory_working_set_bytes", kind: gauge, help: "Memory in use without the page cache that would go first, in bytes.",
		values: ofMemory(func(m *stats.Memory, _ *stats.MemoryDetail) []value { return one(m.WorkingSet) })},
	{name: "container_memory_rss", kind: gauge, help: "Anonymous memory, in bytes.",
		values: ofMemory(func(m *stats.Memory, _ *stats.MemoryDetail) []value { return one(m.RSS) })},
	{name: "container_memory_cache", kind: gauge, help: "Page cache, in bytes.",
		values: ofMemory(func(_ *stats.Memory, d *stats.MemoryDetail) []value { return one(d.Cache) })},
	{name: "container_memory_mapped_file", kind: gauge, help: "Files that are mapped into memory, in bytes.",
		values: ofMemory(func(_ *stats.Memory, d *stats.MemoryDetail) []value { return one(d.Mapped) })},
	{name: "container_memory_total_active_file_bytes", kind: gauge, help: "Page cache that was used more than once lately, in bytes.",
		values: ofMemory(func(_ *stats.Memory, d *stats.MemoryDetail) []value { return one(d.ActiveFile) })},
	{name: "container_memory_total_inactive_file_bytes", kind: gauge, help: "Page cache that would go first, in bytes.",
		values: ofMemory(func(_ *stats.Memory, d *stats.MemoryDetail) []value { return one(d.InactiveFile) })},
	{name: "container_memory_kernel_usage", kind: gauge, help: "Memory that the kernel uses for the container, in bytes.",
		values: ofMemory(func(_ *stats.Memory, d *stats.MemoryDetail) []value { return known(d.Kernel) })},
	{name: "container_memory_max_usage_bytes", kind: gauge, help: "The most memory that was ever in use, in bytes.",
		values: ofMemory(func(_ *stats.Memory, d *stats.MemoryDetail) []value { return known(d.Peak) })},
	{name: "container_memory_failcnt", kind: counter, help: "How often the memory limit was run into.",
		values: ofMemory(func(_ *stats.Memory, d *stats.MemoryDetail) []value { return known(d.LimitHits) })},
	{name: "container_oom_events_total", kind: counter, help: "Processes of the container that were killed for want of memory.",
		values: ofMemory(func(_ *stats.Memory, d *stats.MemoryDetail) []value { return known(d.OOMKills) })},
	{name: "container_memory_failures_total", kind: counter, help: "Page faults, by kind, of the container itself and with all cgroups below its own.",
		more: []string{"failure_type", "scope"}, values: ofMemory(pageFaults)},
}

func pageFaults(m *stats.Memory, d *stats.MemoryDetail) []value {
	return []value{
		{n: d.OwnFaults, labels: []string{"pgfault", "container"}}, {n: m.Faults, labels: []string{"pgfault", "hierarchy"}},
		{n: d.OwnMajorFaults, labels: []string{"pgmajfault", "container"}}, {n: m.MajorFaults, labels: []string{"pgmajfault", "hierarchy"}},
	}
}

func ofMemory(get func(*stats.Memory, *stats.MemoryDetail) []value) func(*facets) []value {
	return func(f *facets) []value {
		if f.usage.Memory == nil || f.detail.Memory == nil {
			return nil
		}
		return get(f.usage.Memory, f.detail.Memory)
	}
}

var swapMetrics = []containerMetric{
	{name: "container_memory_swap", kind: gauge, help: "Swap in use, in bytes.",
		values: func(f *facets) []value {
			if f.usage.Swap == nil {
				return nil
			}
			return one(f.usage.Swap.Usage)
		}},
}

var ioMetrics = []containerMetric{
	{name: "container_fs_reads_bytes_total", kind: counter, help: "Bytes that were read from a device.",
		more: []string{"device"}, values: ofDevices("Read", bytesOf)},
	{name: "container_fs_writes_bytes_total", kind: counter, help: "Bytes that were written to a device.",
		more: []string{"device"}, values: ofDevices("Write", bytesOf)},
	{name: "container_fs_reads_total", kind: counter, help: "Reads from a device.",
		more: []string{"device"}, values: ofDevices("Read", opsOf)},
	{name: "container_fs_writes_total", kind: counter, help: "Writes to a device.",
		more: []string{"device"}, values: ofDevices("Write", opsOf)},
	{name: "container_blkio_device_usage_total", kind: counter, help: "Bytes to and from a device, by operation.",
		more: []string{"device", "major", "minor", "operation"}, values: func(f *facets) (all []value) {
			for _, io := range f.detail.IO {
				for _, o := range io.Bytes {
					all = append(all, value{n: o.Count, labels: []string{io.Device, io.Major, io.Minor, o.Name}})
				}
			}
			return all
		}},
}

func bytesOf(io *stats.DeviceIO) []stats.Operation { return io.Bytes }

func opsOf(io *stats.DeviceIO) []stats.Operation { return io.Ops }

func ofDevices(operation string, get func(*stats.DeviceIO) []stats.Operation) func(*facets) []value {
	return func(f *facets) (all []value) {
		for i := range f.detail.IO {
			io := &f.detail.IO[i]
			for _, o := range get(io) {
				if o.Name == operation {
					all = append(all, value{n: o.Count, labels: []string{io.Device}})
				}
			}
		}
		return all
	}
}

var diskMetrics = []containerMetric{
	{name: "container_fs_usage_bytes", kind: gauge, help: "Bytes that the container has written to its own layer.",
		more: []string{"device"}, values: func(f *facets) []value {
			if f.layer == nil {
				return nil
			}
			return []value{{n: f.layer.Bytes, labels: []string{f.layer.device}, at: f.layer.Measured}}
		}},
	{name: "container_fs_limit_bytes", kind: gauge, help: "Size of the file system that containers write to, in bytes.",
		more: []string{"device"}, values: ofDisk(func(d *disk) uint64 { return d.bytes })},
	{name: "container_fs_inodes_total", kind: gauge, help: "Inodes of the file system that containers write to.",
		more: []string{"device"}, values: ofDisk(func(d *disk) uint64 { return d.inodes })},
	{name: "container_fs_inodes_free", kind: gauge, help: "Free inodes of the file system that containers write to.",
		more: []string{"device"}, values: ofDisk(func(d *disk) uint64 { return d.inodesFree })},
}

func ofDisk(get func(*disk) uint64) func(*facets) []value {
	return func(f *facets) []value {
		if f.disk == nil {
			return nil
		}
		return []value{{n: get(f.disk), labels: []string{f.disk.device}}}
	}
}

var hugePageMetrics = []containerMetric{
	{name: "container_hugetlb_usage_bytes", kind: gauge, help: "Huge pages in use, by size, in bytes.",
		more: []string{"pagesize"}, values: func(f *facets) (all []value) {
			for _, h := range f.detail.HugePages {
				all = append(all, value{n: h.Usage, labels: []string{h.Size}})
			}
			return all
		}},
	{name: "container_hugetlb_max_usage_bytes", kind: gauge, help: "The most huge pages that were ever in use, by size, in bytes.",
		more: []string{"pagesize"}, values: func(f *facets) (all []value) {
			for _, h := range f.detail.HugePages {
				if h.Peak != nil {
					all = append(all, value{n: *h.Peak, labels: []string{h.Size}})
				}
			}
			return all
		}},
}

var processMetrics = []containerMetric{
	{name: "container_processes", kind: gauge, help: "Processes of the container.",
		values: ofProcesses(func(p *stats.Processes) []value { return one(p.Count) })},
	{name: "container_threads", kind: gauge, help: "Threads of the container.",
		values: ofProcesses(func(p *stats.Processes) []value { return one(p.Threads) })},
	{name: "container_threads_max", kind: gauge, help: "The most threads that the container may have; 0 for any number.",
		values: ofProcesses(func(p *stats.Processes) []value {
			if p.MaxThreads == nil {
				return one(0)
			}
			return one(*p.MaxThreads)
		})},
	{name: "container_file_descriptors", kind: gauge, help: "Open files of all processes of the container.",
		values: ofProcesses(func(p *stats.Processes) []value { return one(p.Descriptors) })},
	{name: "container_sockets", kind: gauge, help: "Open sockets of all processes of the container.",
		values: ofProcesses(func(p *stats.Processes) []value { return one(p.Sockets) })},
	{name: "container_ulimits_soft", kind: gauge, help: "Soft limits of the container's first process.",
		more: []string{"ulimit"}, values: ofProcesses(func(p *stats.Processes) []value {
			if p.MaxFiles == nil {
				return nil
			}
			return []value{{n: *p.MaxFiles, labels: []string{"max_open_files"}}}
		})},
}

func ofProcesses(get func(*stats.Processes) []value) func(*facets) []value {
	return func(f *facets) []value {
		if f.detail.Processes == nil {
			return nil
		}
		return get(f.detail.Processes)
	}
}

var pressureMetrics = []containerMetric{
	{name: "container_pressure_cpu_waiting_seconds_total", kind: counter, help: "For how long some tasks of the container waited for CPU, in seconds.",
		values: ofPressure(cpuPressure, someStall)},
	{name: "container_pressure_cpu_stalled_seconds_total", kind: counter, help: "For how long all tasks of the container waited for CPU, in seconds.",
		values: ofPressure(cpuPressure, fullStall)},
	{name: "container_pressure_memory_waiting_seconds_total", kind: counter, help: "For how long some tasks of the container waited for memory, in seconds.",
		values: ofPressure(memoryPressure, someStall)},
	{name: "container_pressure_memory_stalled_seconds_total", kind: counter, help: "For how long all tasks of the container waited for memory, in seconds.",
		values: ofPressure(memoryPressure, fullStall)},
	{name: "container_pressure_io_waiting_seconds_total", kind: counter, help: "For how long some tasks of the container waited for I/O, in seconds.",
		values: ofPressure(ioPressure, someStall)},
	{name: "container_pressure_io_stalled_seconds_total", kind: counter, help: "For how long all tasks of the container waited for I/O, in seconds.",
		values: ofPressure(ioPressure, fullStall)},
}

func cpuPressure(u *stats.Usage) *stats.Pressure {
	if u.CPU == nil {
		return nil
	}
	return u.CPU.Pressure
}

func memoryPressure(u *stats.Usage) *stats.Pressure {
	if u.Memory == nil {
		return nil
	}
	return u.Memory.Pressure
}

func ioPressure(u *stats.Usage) *stats.Pressure { return u.IO }

func someStall(p *stats.Pressure) *stats.Stall { return p.Some }

func fullStall(p *stats.Pressure) *stats.Stall { return p.Full }

func ofPressure(of func(*stats.Usage) *stats.Pressure, which func(*stats.Pressure) *stats.Stall) func(*facets) []value {
	return func(f *facets) []value {
		p := of(f.usage)
		if p == nil || which(p) == nil {
			return nil
		}
		return one(which(p).Total / uint64(time.Second))
	}
}

const (
	// defaultPeriod and defaultShares are the kernel's, which a container has
	// that asked for none.
	defaultPeriod = 100000
	defaultShares = 1024
)

var specMetrics = []containerMetric{
	{name: "container_spec_cpu_period", kind: gauge, help: "Period of the CPU quota, in microseconds.",
		values: func(f *facets) []value { return setting(f.HostConfig.CPUPeriod, defaultPeriod) }},
	{name: "container_spec_cpu_quota", kind: gauge, help: "CPU quota, in microseconds for each period.",
		values: func(f *facets) []value {
			if f.HostConfig.CPUQuota <= 0 {
				return nil
			}
			return one(uint64(f.HostConfig.CPUQuota))
		}},
	{name: "container_spec_cpu_shares", kind: gauge, help: "Share of the CPU against other containers.",
		values: func(f *facets) []value { return setting(f.HostConfig.CPUShares, defaultShares) }},
	{name: "container_spec_memory_limit_bytes", kind: gauge, help: "Memory limit, in bytes; 0 for none.",
		values: func(f *facets) []value { return setting(f.HostConfig.Memory, 0) }},
	{name: "container_spec_memory_reservation_limit_bytes", kind: gauge, help: "Memory that is left to the container when it gets scarce, in bytes; 0 for none.",
		values: func(f *facets) []value { return setting(f.HostConfig.MemoryReservation, 0) }},
	{name: "container_spec_memory_swap_limit_bytes", kind: gauge, help: "Limit of memory and swap together, in bytes; 0 for none.",
		values: func(f *facets) []value { return setting(f.HostConfig.MemorySwap, 0) }},
}

// setting is n, or what stands for one that was not made.
func setting(n int64, unset uint64) []value {
	if n <= 0 {
		return one(unset)
	}
	return one(uint64(n))
}

var timeMetrics = []containerMetric{
	{name: "container_start_time_seconds", kind: gauge, help: "When the container was started, in seconds since 1970.",
		values: func(f *facets) []value { return one(uint64(max(engineTime(f.State.StartedAt).Unix(), 0))) }},
	{name: "container_last_seen", kind: gauge, help: "When the container was last seen, in seconds since 1970.",
		values: func(f *facets) []value { return one(uint64(f.now.Unix())) }},
}

var networkMetrics = []networkMetric{
	traffic("container_network_receive_bytes_total", "Bytes that the pod has received.", func(i stats.Interface) uint64 { return i.Rx.Bytes }),
	traffic("container_network_receive_packets_total", "Packets that the pod has received.", func(i stats.Interface) uint64 { return i.Rx.Packets }),
	traffic("container_network_receive_packets_dropped_total", "Packets to the pod that were dropped.", func(i stats.Interface) uint64 { return i.Rx.Dropped }),
	traffic("container_network_receive_errors_total", "Errors on packets to the pod.", func(i stats.Interface) uint64 { return i.Rx.Errors }),
	traffic("container_network_transmit_bytes_total", "Bytes that the pod has sent.", func(i stats.Interface) uint64 { return i.Tx.Bytes }),
	traffic("container_network_transmit_packets_total", "Packets that the pod has sent.", func(i stats.Interface) uint64 { return i.Tx.Packets }),
	traffic("container_network_transmit_packets_dropped_total", "Packets from the pod that were dropped.", func(i stats.Interface) uint64 { return i.Tx.Dropped }),
	traffic("container_network_transmit_errors_total", "Errors on packets from the pod.", func(i stats.Interface) uint64 { return i.Tx.Errors }),
}

func traffic(name, help string, get func(stats.Interface) uint64) networkMetric {
	return networkMetric{name: name, help: help, kind: counter, more: []string{"interface"}, values: func(i stats.Interface) []value {
		return []value{{n: get(i), labels: []string{i.Name}}}
	}}
}
