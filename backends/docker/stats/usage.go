package stats

import (
	"fmt"
	"time"
)

// Usage is what a container or a pod uses. What is not known is nil.
type Usage struct {
	CPU       *CPU
	Memory    *Memory
	Swap      *Swap
	IO        *Pressure
	Processes *uint64
	// Time is when it was read.
	Time time.Time
}

// CPU is in nanoseconds of one core.
type CPU struct {
	// Total is since the cgroup was made, Cores per second of now.
	Total    uint64
	Cores    *uint64
	Pressure *Pressure
}

// Memory is in bytes.
type Memory struct {
	Usage, WorkingSet, RSS uint64
	Faults, MajorFaults    uint64
	// Available is up to the limit; nil without one.
	Available *uint64
	Pressure  *Pressure
}

// Swap is in bytes.
type Swap struct {
	Usage     uint64
	Available *uint64
}

// Container returns what the container id uses, whose process is pid.
func (p *Pass) Container(id string, pid int) (*Usage, error) {
	h, err := p.home(id, pid)
	if err != nil {
		return nil, err
	}
	u, err := p.usage(id, &h)
	if err != nil {
		return nil, p.lost(id, err)
	}
	return u, nil
}

// Pod returns what the pod uses whose first container, the infra container,
// has the id and the pid. It is nil if the pod has no cgroup of its own.
func (p *Pass) Pod(id string, pid int, uid string) (*Usage, error) {
	h, err := p.home(id, pid)
	if err != nil {
		return nil, err
	}
	pod, ok := h.parent(uid)
	if !ok {
		return nil, nil
	}
	// The infra container has a rate of its own, under its id.
	u, err := p.usage(podKey+id, &pod)
	if err != nil {
		return nil, p.lost(id, err)
	}
	return u, nil
}

// podKey sets a pod's rate apart from its infra container's.
const podKey = "pod/"

// usage reads a cgroup.
func (p *Pass) usage(key string, h *home) (*Usage, error) {
	u := &Usage{Time: p.now()}
	var err error
	if u.CPU, err = p.cpu(h); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	if u.CPU != nil {
		u.CPU.Cores = p.r.cores.rate(key, sample{at: u.Time, usage: u.CPU.Total})
	}
	if u.Memory, u.Swap, err = p.memory(h); err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	if u.IO, err = p.pressure(h, "io.pressure"); err != nil {
		return nil, fmt.Errorf("io: %w", err)
	}
	if dir, _ := h.dir(pids); dir != "" {
		if u.Processes, err = p.number(dir, "pids.current"); err != nil {
			return nil, fmt.Errorf("processes: %w", err)
		}
	}
	return u, nil
}

func (p *Pass) cpu(h *home) (*CPU, error) {
	dir, v2 := h.dir(cpuacct)
	if dir == "" {
		return nil, nil
	}
	total, err := p.cpuTime(dir, v2)
	if err != nil {
		return nil, err
	}
	pressure, err := p.pressure(h, "cpu.pressure")
	return &CPU{Total: total, Pressure: pressure}, err
}

// cpuTime is in nanoseconds.
func (p *Pass) cpuTime(dir string, v2 bool) (uint64, error) {
	if !v2 {
		b, err := p.read(dir, "cpuacct.usage")
		if err != nil {
			return 0, err
		}
		return parseNumber(b)
	}
	b, err := p.read(dir, "cpu.stat")
	if err != nil {
		return 0, err
	}
	var total uint64
	eachField(b, func(name []byte, value uint64) {
		if string(name) == "usage_usec" {
			total = multiply(value, uint64(time.Microsecond))
		}
	})
	return total, nil
}

// memoryFiles are the names of the same things in both formats.
type memoryFiles struct{ usage, limit, swapLimit string }

var (
	memoryV1 = memoryFiles{usage: "memory.usage_in_bytes", limit: "memory.limit_in_bytes", swapLimit: "memory.memsw.limit_in_bytes"}
	memoryV2 = memoryFiles{usage: "memory.current", limit: "memory.max", swapLimit: "memory.swap.max"}
)

func (p *Pass) memory(h *home) (*Memory, *Swap, error) {
	dir, v2 := h.dir(memory)
	if dir == "" {
		return nil, nil, nil
	}
	files := memoryV1
	if v2 {
		files = memoryV2
	}
	b, err := p.optional(dir, files.usage)
	if b == nil || err != nil {
		// Some nodes do not count memory at all.
		return nil, nil, err
	}
	m := &Memory{}
	if m.Usage, err = parseNumber(b); err != nil {
		return nil, nil, err
	}
	if b, err = p.read(dir, "memory.stat"); err != nil {
		return nil, nil, err
	}
	st := parseMemoryStat(b, v2)
	m.RSS, m.Faults, m.MajorFaults = st.rss, st.faults, st.majorFaults
	// Pages that were only read or written once are the first to go.
	m.WorkingSet = less(m.Usage, st.inactiveFile)
	limit, err := p.number(dir, files.limit)
	if err != nil {
		return nil, nil, err
	}
	if limit != nil {
		left := less(*limit, m.WorkingSet)
		m.Available = &left
	}
	swap, err := p.swap(dir, files, v2, &st, limit)
	if err != nil {
		return nil, nil, err
	}
	m.Pressure, err = p.pressure(h, "memory.pressure")
	return m, swap, err
}

// swap is nil where the kernel does not count it.
func (p *Pass) swap(dir string, files memoryFiles, v2 bool, st *memoryStat, memoryLimit *uint64) (*Swap, error) {
	used := st.swap
	if v2 {
		var err error
		if used, err = p.number(dir, "memory.swap.current"); err != nil {
			return nil, err
		}
	}
	if used == nil {
		return nil, nil
	}
	limit, err := p.number(dir, files.swapLimit)
	if err != nil {
		return nil, err
	}
	s := &Swap{Usage: *used}
	// In v1 it is a limit of memory and swap together.
	if limit != nil && !v2 {
		if memoryLimit == nil {
			return s, nil
		}
		*limit = less(*limit, *memoryLimit)
	}
	if limit != nil {
		left := less(*limit, *used)
		s.Available = &left
	}
	return s, nil
}

// memoryStat is what is taken from memory.stat. In v1 the numbers of a cgroup
// and all below it are the ones called total.
type memoryStat struct {
	rss, cache, mapped, inactiveFile, activeFile uint64
	faults, majorFaults                          uint64
	ownFaults, ownMajorFaults                    uint64
	kernel                                       uint64
	swap                                         *uint64
}

func parseMemoryStat(b []byte, v2 bool) memoryStat {
	var s memoryStat
	if v2 {
		s.readV2(b)
	} else {
		s.readV1(b)
	}
	return s
}

func (s *memoryStat) readV1(b []byte) {
	eachField(b, func(name []byte, value uint64) {
		switch string(name) {
		case "total_rss":
			s.rss = value
		case "total_cache":
			s.cache = value
		case "total_mapped_file":
			s.mapped = value
		case "total_inactive_file":
			s.inactiveFile = value
		case "total_active_file":
			s.activeFile = value
		case "total_pgfault":
			s.faults = value
		case "total_pgmajfault":
			s.majorFaults = value
		case "pgfault":
			s.ownFaults = value
		case "pgmajfault":
			s.ownMajorFaults = value
		case "total_swap":
			s.swap = &value
		}
	})
}

func (s *memoryStat) readV2(b []byte) {
	// Newer kernels sum it up themselves.
	var parts uint64
	eachField(b, func(name []byte, value uint64) {
		switch string(name) {
		case "anon":
			s.rss = value
		case "file":
			s.cache = value
		case "file_mapped":
			s.mapped = value
		case "inactive_file":
			s.inactiveFile = value
		case "active_file":
			s.activeFile = value
		case "pgfault":
			s.faults, s.ownFaults = value, value
		case "pgmajfault":
			s.majorFaults, s.ownMajorFaults = value, value
		case "kernel":
			s.kernel = value
		case "kernel_stack", "pagetables", "percpu", "sock", "slab":
			parts += value
		}
	})
	if s.kernel == 0 {
		s.kernel = parts
	}
}

// Busy returns the CPU time of the container id, whose process is pid: a
// number that grows with whatever it does.
func (p *Pass) Busy(id string, pid int) (uint64, bool) {
	h, err := p.home(id, pid)
	if err != nil {
		return 0, false
	}
	dir, v2 := h.dir(cpuacct)
	if dir == "" {
		return 0, false
	}
	total, err := p.cpuTime(dir, v2)
	return total, err == nil
}
