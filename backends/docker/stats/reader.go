package stats

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crimux/crimux/backends/docker/cgroups"
)

// ErrGone says that a container does not run: its process has ended, or is
// somebody else's by now, or its cgroup is gone.
var ErrGone = errors.New("the container does not run")

// Reader finds and reads cgroups. It remembers where a container's are, and
// the CPU time that was last seen, from which rates are made.
type Reader struct {
	root  string
	cores cores

	mu     sync.Mutex
	trees  *cgroups.Trees
	homes  map[string]home
	blocks map[string]string // names of block devices by "major:minor"
}

// NewReader returns a reader of the tree below root: "/", and a recorded one
// in tests.
func NewReader(root string) *Reader {
	return &Reader{root: root, cores: newCores(), homes: map[string]home{}, blocks: map[string]string{}}
}

// Keep forgets all containers and pods but those for which known is true.
func (r *Reader) Keep(known func(id string) bool) {
	r.mu.Lock()
	for id := range r.homes {
		if !known(id) {
			delete(r.homes, id)
		}
	}
	r.mu.Unlock()
	r.cores.keep(known)
}

// Pass is one reading of the node. It is for one goroutine.
type Pass struct {
	r   *Reader
	buf []byte
	now func() time.Time
}

// Begin starts a pass.
func (r *Reader) Begin() *Pass {
	return &Pass{r: r, buf: make([]byte, 8<<10), now: time.Now}
}

// fileMax is more than any file of the kernel's that is read here has.
const fileMax = 16 << 20

// read returns the content of a file of the kernel's, which is valid until the
// next read.
func (p *Pass) read(elem ...string) ([]byte, error) {
	name := filepath.Join(elem...)
	fd, err := retry(func() (int, error) { return unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	n := 0
	for {
		if n == len(p.buf) {
			if n >= fileMax {
				return nil, errors.Join(fmt.Errorf("read %s: more than %d bytes", name, fileMax), unix.Close(fd))
			}
			p.buf = append(p.buf, make([]byte, n)...)
		}
		m, err := retry(func() (int, error) { return unix.Read(fd, p.buf[n:]) })
		if err != nil {
			return nil, errors.Join(&fs.PathError{Op: "read", Path: name, Err: err}, unix.Close(fd))
		}
		if m == 0 {
			break
		}
		n += m
	}
	if err := unix.Close(fd); err != nil {
		return nil, &fs.PathError{Op: "close", Path: name, Err: err}
	}
	return p.buf[:n], nil
}

// retry repeats a system call that a signal has interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// gone reports whether an error means that what was read has ended: a removed
// cgroup's open files say ENODEV, an ended process's say ESRCH.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH)
}

// number reads a file with one number. It is nil where there is no such file,
// and for "max".
func (p *Pass) number(elem ...string) (*uint64, error) {
	b, err := p.optional(elem...)
	if err != nil || b == nil {
		return nil, err
	}
	return parseLimit(b)
}

// optional reads a file that not every kernel has, or has switched on.
func (p *Pass) optional(elem ...string) ([]byte, error) {
	b, err := p.read(elem...)
	if gone(err) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	return b, err
}
