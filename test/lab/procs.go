package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
)

// killWait is how long killed processes may take to go.
const killWait = 30 * time.Second

// process is one entry of /proc, as far as the lab needs it.
type process struct {
	pid, parent int
	args        []string
}

// String says what a leak report needs to know about a process.
func (p process) String() string {
	line := strings.Join(p.args, " ")
	if len(line) > 160 {
		line = line[:160] + "…"
	}
	return fmt.Sprintf("process %d (%s)", p.pid, line)
}

func (p process) program() string {
	if len(p.args) == 0 {
		return ""
	}
	return filepath.Base(p.args[0])
}

func (p process) isShim() bool { return strings.HasPrefix(p.program(), "containerd-shim") }

// isEngine tells the programs that the lab starts, or that those start, from a user's "tail -f" in the folder.
func (p process) isEngine() bool {
	return p.isShim() || slices.Contains([]string{"dockerd", "containerd", "runc", "docker-proxy"}, p.program())
}

// flag is the value that follows a flag, "" without one.
func (p process) flag(name string) string {
	if i := slices.Index(p.args, name); i >= 0 && i+1 < len(p.args) {
		return p.args[i+1]
	}
	return ""
}

// processes lists /proc without kernel threads and zombies.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A process that ends between the listing and the look is no longer of interest.
		if p, ok := readProcess(pid); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

func readProcess(pid int) (process, bool) {
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || len(cmdline) == 0 {
		return process{}, false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, false
	}
	_, rest, _ := cutLast(string(stat), ")")
	f := strings.Fields(rest)
	if len(f) < 2 || f[0] == "Z" {
		return process{}, false
	}
	parent, err := strconv.Atoi(f[1])
	if err != nil {
		return process{}, false
	}
	return process{pid, parent, strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")}, true
}

// mentions tells whether a command line names something below the lab's folder.
func (s site) mentions(p process) bool {
	for _, a := range p.args {
		if strings.Contains(a, s.dir+"/") {
			return true
		}
	}
	return false
}

// shims are the lab's containerd shims.
func (s site) shims() ([]process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(p process) bool { return !p.isShim() || !s.mentions(p) }), nil
}

// own splits the lab's processes into its engines with their shims, and what runs in its containers: children
// of a shim, and processes whose root is a mount of the lab's in case their shim is dead.
func (s site) own() (engines, contained []process, err error) {
	all, err := processes()
	if err != nil {
		return nil, nil, err
	}
	children := map[int][]process{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	inside := map[int]process{}
	var add func(p process)
	add = func(p process) {
		for _, c := range children[p.pid] {
			inside[c.pid] = c
			add(c)
		}
	}
	for _, p := range all {
		switch {
		case p.isEngine() && s.mentions(p):
			engines = append(engines, p)
			if p.isShim() {
				add(p)
			}
		case s.rootOf(p.pid):
			inside[p.pid] = p
		}
	}
	for _, p := range engines {
		delete(inside, p.pid)
	}
	for _, p := range inside {
		contained = append(contained, p)
	}
	slices.SortFunc(contained, func(a, b process) int { return a.pid - b.pid })
	return engines, contained, nil
}

// rootOf tells whether a process stands in a root file system that the lab's engines made.
func (s site) rootOf(pid int) bool {
	ns, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns/mnt"))
	if err != nil {
		return false
	}
	mine, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil || ns == mine {
		return false
	}
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "mountinfo"))
	if err != nil {
		return false
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, mountinfo.SingleEntryFilter("/"))
	if err != nil {
		return false
	}
	mark := "/" + s.name + "/"
	return slices.ContainsFunc(mounts, func(m *mountinfo.Info) bool {
		return strings.Contains(m.Root, mark) || strings.Contains(m.VFSOptions, mark)
	})
}

// killAll kills processes one by one and waits until they are gone.
func killAll(ps []process) error {
	var errs []error
	for _, p := range ps {
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("kill %v: %w", p, err))
		}
	}
	deadline := time.Now().Add(killWait)
	for _, p := range ps {
		for alive(p) {
			if time.Now().After(deadline) {
				errs = append(errs, fmt.Errorf("%v does not end", p))
				break
			}
			time.Sleep(pollInterval)
		}
	}
	return errors.Join(errs...)
}

func alive(p process) bool {
	_, ok := readProcess(p.pid)
	return ok
}
