package streaming

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// process is what the kernel says of a process (proc_pid_stat(5)).
type process struct {
	pid, parent, session int
	started              uint64 // in clock ticks since boot
	dead                 bool   // a zombie, or nearly gone
	stopped              bool   // by a signal or a tracer
}

// processes returns all processes of the node.
func processes() ([]process, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var out []process
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		// One that ended since the names were read is not there any more.
		if p, err := look(pid); err == nil {
			out = append(out, p)
		}
	}
	return out, nil
}

// look returns one process.
func look(pid int) (process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	return parseStat(pid, b)
}

// parseStat reads the content of /proc/PID/stat. The second field is the
// command's name in parentheses, and may hold anything, parentheses too.
func parseStat(pid int, b []byte) (process, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return process{}, fmt.Errorf("process %d: no name in %q", pid, b)
	}
	f := bytes.Fields(b[end+1:])
	// From state, the third field, to starttime, the 22nd.
	if len(f) < 20 {
		return process{}, fmt.Errorf("process %d: %d fields in %q", pid, len(f), b)
	}
	p := process{pid: pid, dead: f[0][0] == 'Z' || f[0][0] == 'X', stopped: f[0][0] == 'T' || f[0][0] == 't'}
	var errs [3]error
	p.parent, errs[0] = strconv.Atoi(string(f[1]))
	p.session, errs[1] = strconv.Atoi(string(f[3]))
	p.started, errs[2] = strconv.ParseUint(string(f[19]), 10, 64)
	for _, err := range errs {
		if err != nil {
			return process{}, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return p, nil
}

// in reports whether the process is in the container's control group, whose
// path holds the container's id under every cgroup driver of the Engine.
func (p process) in(containerID string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.pid))
	return err == nil && containerID != "" && bytes.Contains(b, []byte(containerID))
}
