package stats

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Detail is what there is to tell beyond [Usage], for metrics. What is not
// known is nil.
type Detail struct {
	User, System time.Duration
	Throttling   *Throttling
	Memory       *MemoryDetail
	IO           []DeviceIO
	HugePages    []HugePages
	Processes    *Processes
}

// Throttling is how a CPU quota was felt.
type Throttling struct {
	Periods, ThrottledPeriods uint64
	Throttled                 time.Duration
}

// MemoryDetail is in bytes and numbers of events.
type MemoryDetail struct {
	Cache, Mapped            uint64
	ActiveFile, InactiveFile uint64
	// OwnFaults are without those of cgroups below.
	OwnFaults, OwnMajorFaults uint64
	Kernel                    *uint64
	// Peak is the most that was ever in use, LimitHits how often the limit was
	// run into, OOMKills how many processes that has cost.
	Peak, LimitHits, OOMKills *uint64
}

// HugePages are those of one size, in bytes.
type HugePages struct {
	Size  string
	Usage uint64
	Peak  *uint64
}

// Detail returns the details of the container id, whose process is pid.
func (p *Pass) Detail(id string, pid int) (*Detail, error) {
	h, err := p.home(id, pid)
	if err != nil {
		return nil, err
	}
	d := &Detail{}
	for _, part := range []struct {
		name string
		read func(*home, *Detail) error
	}{
		{"cpu", p.cpuDetail}, {"memory", p.memoryDetail}, {"io", p.ioDetail}, {"huge pages", p.hugePages},
	} {
		if err := part.read(&h, d); err != nil {
			return nil, p.lost(id, fmt.Errorf("%s: %w", part.name, err))
		}
	}
	if d.Processes, err = p.processes(&h, pid); err != nil {
		return nil, p.lost(id, fmt.Errorf("processes: %w", err))
	}
	return d, nil
}

// tick is the unit of cpuacct.stat: the kernel's USER_HZ is 100 on all that
// Linux runs containers on.
const tick = 10 * time.Millisecond

func (p *Pass) cpuDetail(h *home, d *Detail) error {
	dir, v2 := h.dir(cpuacct)
	if dir != "" && !v2 {
		b, err := p.read(dir, "cpuacct.stat")
		if err != nil {
			return err
		}
		eachField(b, func(name []byte, value uint64) {
			switch string(name) {
			case "user":
				d.User = duration(value, tick)
			case "system":
				d.System = duration(value, tick)
			}
		})
	}
	if dir, _ = h.dir(cpu); dir == "" {
		return nil
	}
	b, err := p.optional(dir, "cpu.stat")
	if b == nil || err != nil {
		return err
	}
	t := &Throttling{}
	eachField(b, func(name []byte, value uint64) {
		switch string(name) {
		case "nr_periods":
			t.Periods = value
		case "nr_throttled":
			t.ThrottledPeriods = value
		case "throttled_time":
			t.Throttled = duration(value, time.Nanosecond)
		case "throttled_usec":
			t.Throttled = duration(value, time.Microsecond)
		case "user_usec":
			d.User = duration(value, time.Microsecond)
		case "system_usec":
			d.System = duration(value, time.Microsecond)
		}
	})
	d.Throttling = t
	return nil
}

// duration is n units, or the longest there is.
func duration(n uint64, unit time.Duration) time.Duration {
	return time.Duration(min(multiply(n, uint64(unit)), 1<<63-1))
}

func (p *Pass) memoryDetail(h *home, d *Detail) error {
	dir, v2 := h.dir(memory)
	if dir == "" {
		return nil
	}
	b, err := p.optional(dir, "memory.stat")
	if b == nil || err != nil {
		return err
	}
	st := parseMemoryStat(b, v2)
	m := &MemoryDetail{
		Cache: st.cache, Mapped: st.mapped, ActiveFile: st.activeFile, InactiveFile: st.inactiveFile,
		OwnFaults: st.ownFaults, OwnMajorFaults: st.ownMajorFaults,
	}
	d.Memory = m
	if v2 {
		m.Kernel = &st.kernel
		return p.memoryEvents(dir, "memory.peak", "memory.events", m)
	}
	if m.Kernel, err = p.number(dir, "memory.kmem.usage_in_bytes"); err != nil {
		return err
	}
	if m.LimitHits, err = p.number(dir, "memory.failcnt"); err != nil {
		return err
	}
	return p.memoryEvents(dir, "memory.max_usage_in_bytes", "memory.oom_control", m)
}

func (p *Pass) memoryEvents(dir, peak, events string, m *MemoryDetail) error {
	var err error
	if m.Peak, err = p.number(dir, peak); err != nil {
		return err
	}
	b, err := p.optional(dir, events)
	if err != nil {
		return err
	}
	eachField(b, func(name []byte, value uint64) {
		switch string(name) {
		case "oom_kill":
			m.OOMKills = &value
		case "max":
			m.LimitHits = &value
		}
	})
	return nil
}

// hugePages reads what the node has sizes for.
func (p *Pass) hugePages(h *home, d *Detail) error {
	dir, v2 := h.dir(hugetlb)
	if dir == "" {
		return nil
	}
	usage, peak := "usage_in_bytes", "max_usage_in_bytes"
	if v2 {
		// There is no peak in v2.
		usage, peak = "current", ""
	}
	sizes, err := names(filepath.Join(p.r.root, "sys/kernel/mm/hugepages"))
	if err != nil && !gone(err) {
		return err
	}
	for _, s := range sizes {
		size, ok := hugePageSize(s)
		if !ok {
			continue
		}
		used, err := p.number(dir, "hugetlb."+size+"."+usage)
		if err != nil {
			return err
		}
		if used == nil {
			continue
		}
		pages := HugePages{Size: size, Usage: *used}
		if peak != "" {
			if pages.Peak, err = p.number(dir, "hugetlb."+size+"."+peak); err != nil {
				return err
			}
		}
		d.HugePages = append(d.HugePages, pages)
	}
	return nil
}

// hugePageSize makes 2MB of hugepages-2048kB, as cgroups call it.
func hugePageSize(name string) (string, bool) {
	kb, ok := strings.CutPrefix(name, "hugepages-")
	if !ok {
		return "", false
	}
	if kb, ok = strings.CutSuffix(kb, "kB"); !ok {
		return "", false
	}
	n, err := strconv.ParseUint(kb, 10, 64)
	if err != nil || n == 0 {
		return "", false
	}
	unit := 0
	for n%1024 == 0 && unit < 2 {
		n /= 1024
		unit++
	}
	return strconv.FormatUint(n, 10) + [...]string{"KB", "MB", "GB"}[unit], true
}

// DeviceIO is what went to and from a block device.
type DeviceIO struct {
	// Device is /dev/NAME, or MAJOR:MINOR where it has none.
	Device, Major, Minor string
	// Bytes and Ops by operation: Read, Write, Discard and others.
	Bytes, Ops []Operation
}

// Operation is a count of one kind.
type Operation struct {
	Name  string
	Count uint64
}

func (p *Pass) ioDetail(h *home, d *Detail) error {
	dir, v2 := h.dir(blkio)
	if dir == "" {
		return nil
	}
	var all ioCounts
	if v2 {
		b, err := p.optional(dir, "io.stat")
		if err != nil {
			return err
		}
		all.addV2(b)
	} else {
		for file, ops := range map[string]bool{"blkio.throttle.io_service_bytes": false, "blkio.throttle.io_serviced": true} {
			// Older kernels do not sum up what is below.
			b, err := p.optional(dir, file+"_recursive")
			if b == nil && err == nil {
				b, err = p.optional(dir, file)
			}
			if err != nil {
				return err
			}
			all.addV1(b, ops)
		}
	}
	for _, io := range all {
		if err := p.nameDevice(io); err != nil {
			return err
		}
		d.IO = append(d.IO, *io)
	}
	return nil
}

type ioCounts []*DeviceIO

// of returns the counts of a device, MAJOR:MINOR.
func (c *ioCounts) of(device []byte) *DeviceIO {
	major, minor, ok := bytes.Cut(device, []byte(":"))
	if _, number := digits(major); !ok || !number {
		return nil
	}
	if _, number := digits(minor); !number {
		return nil
	}
	for _, io := range *c {
		if io.Device == string(device) {
			return io
		}
	}
	io := &DeviceIO{Device: string(device), Major: string(major), Minor: string(minor)}
	*c = append(*c, io)
	return io
}

// addV1 takes in lines such as "8:0 Read 4096"; the sum at the end has no
// device.
func (c *ioCounts) addV1(b []byte, ops bool) {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) != 3 {
			continue
		}
		n, ok := digits(f[2])
		io := c.of(f[0])
		if io == nil || !ok {
			continue
		}
		to := &io.Bytes
		if ops {
			to = &io.Ops
		}
		*to = append(*to, Operation{Name: string(f[1]), Count: n})
	}
}

// operationsV2 are the keys of io.stat, by what v1 calls the operation.
var operationsV2 = []struct{ name, bytes, ops string }{
	{"Read", "rbytes", "rios"}, {"Write", "wbytes", "wios"}, {"Discard", "dbytes", "dios"},
}

// addV2 takes in lines such as "8:0 rbytes=4096 wbytes=0 rios=1 wios=0".
func (c *ioCounts) addV2(b []byte) {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) < 2 {
			continue
		}
		io := c.of(f[0])
		if io == nil {
			continue
		}
		for _, field := range f[1:] {
			key, value, _ := bytes.Cut(field, []byte("="))
			n, ok := digits(value)
			if !ok {
				continue
			}
			for _, o := range operationsV2 {
				switch string(key) {
				case o.bytes:
					io.Bytes = append(io.Bytes, Operation{Name: o.name, Count: n})
				case o.ops:
					io.Ops = append(io.Ops, Operation{Name: o.name, Count: n})
				}
			}
		}
	}
}

// nameDevice looks the name of a device up, once.
func (p *Pass) nameDevice(io *DeviceIO) error {
	name, err := p.device(io.Device)
	io.Device = name
	return err
}

// device is the path of a block device that is known by its numbers.
func (p *Pass) device(numbers string) (string, error) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if name, ok := p.r.blocks[numbers]; ok {
		return name, nil
	}
	b, err := p.optional(p.r.root, "sys/dev/block", numbers, "uevent")
	if err != nil {
		return numbers, err
	}
	name := numbers
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("DEVNAME=")); ok {
			name = "/dev/" + string(bytes.TrimSpace(v))
		}
	}
	p.r.blocks[numbers] = name
	return name, nil
}
