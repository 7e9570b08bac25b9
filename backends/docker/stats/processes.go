package stats

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Processes are those of a container.
type Processes struct {
	Count, Threads uint64
	// MaxThreads is nil without a limit.
	MaxThreads *uint64
	// Descriptors and Sockets are those that all of them have open.
	Descriptors, Sockets uint64
	// MaxFiles is the first process's soft limit of open files.
	MaxFiles *uint64
}

// depthMax is how deep a container's own cgroups are looked through.
const depthMax = 32

// processes counts what only the processes themselves show. Those that end
// meanwhile are left out.
func (p *Pass) processes(h *home, pid int) (*Processes, error) {
	dir, _ := h.dir(pids)
	if dir == "" {
		return nil, nil
	}
	all, err := p.members(dir, 0)
	if err != nil {
		return nil, err
	}
	out := &Processes{Count: uint64(len(all))}
	current, err := p.number(dir, "pids.current")
	if err != nil {
		return nil, err
	}
	// Without that controller there are at least the processes.
	out.Threads = out.Count
	if current != nil {
		out.Threads = *current
	}
	if out.MaxThreads, err = p.number(dir, "pids.max"); err != nil {
		return nil, err
	}
	for _, pid := range all {
		if err := p.descriptors(pid, out); err != nil {
			return nil, err
		}
	}
	out.MaxFiles, err = p.maxFiles(pid)
	return out, err
}

// members are the processes of a cgroup and of those below it.
func (p *Pass) members(dir string, depth int) ([]string, error) {
	b, err := p.read(dir, "cgroup.procs")
	if errors.Is(err, unix.EOPNOTSUPP) {
		b, err = nil, nil // a threaded cgroup: its processes are in the one above
	}
	if err != nil {
		return nil, err
	}
	all := strings.Fields(string(b))
	if depth == depthMax {
		return all, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		below, err := p.members(filepath.Join(dir, e.Name()), depth+1)
		if err != nil && !gone(err) {
			return nil, err
		}
		all = append(all, below...)
	}
	return all, nil
}

// descriptors counts the open files of a process. It reads links and follows
// none.
func (p *Pass) descriptors(pid string, out *Processes) error {
	dir := filepath.Join(p.r.root, "proc", pid, "fd")
	fds, err := names(dir)
	if gone(err) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return err
	}
	out.Descriptors += uint64(len(fds))
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join(dir, fd))
		if err == nil && strings.HasPrefix(to, "socket:") {
			out.Sockets++
		}
	}
	return nil
}

// maxFiles is nil for a process that is gone, and without a limit.
func (p *Pass) maxFiles(pid int) (*uint64, error) {
	b, err := p.optional(p.r.root, "proc", strconv.Itoa(pid), "limits")
	if err != nil {
		return nil, fmt.Errorf("limits of process %d: %w", pid, err)
	}
	return parseMaxFiles(b), nil
}

// parseMaxFiles finds the line "Max open files  SOFT  HARD  files".
func parseMaxFiles(b []byte) *uint64 {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("Max open files"))
		f := bytes.Fields(rest)
		if !ok || len(f) == 0 {
			continue
		}
		if n, ok := digits(f[0]); ok {
			return &n
		}
	}
	return nil
}

// names lists a folder, in no order.
func names(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	all, err := f.Readdirnames(-1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return all, errors.Join(err, f.Close())
}
