package docker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// write puts the settings into a container's cgroup. What every kubelet sends
// unasked is left out where it cannot be written.
func (s cgroupSettings) write(c containerCgroup) error {
	for _, size := range slices.Sorted(maps.Keys(s.Hugepages)) {
		limit := s.Hugepages[size]
		if err := c.writeHugepages(size, limit); err != nil && limit != 0 {
			return c.explain(err, "hugepage limit of %d bytes for pages of %s", limit, size)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.Unified)) {
		v := s.Unified[k]
		if err := c.writeUnified(k, v); err != nil && stockUnified[k] != v {
			return c.explain(err, "unified[%q] = %q", k, v)
		}
	}
	return nil
}

// errNoTree says that the node has no cgroup tree for what is to be written.
var errNoTree = errors.New("the node has no such cgroup controller")

// writeHugepages limits the pages of a size: those in use, and with newer
// kernels those reserved as well.
func (c containerCgroup) writeHugepages(size string, limit uint64) error {
	dir, used, reserved := c.hugetlb, "limit_in_bytes", "rsvd.limit_in_bytes"
	if dir == "" {
		dir, used, reserved = c.v2, "max", "rsvd.max"
	}
	if dir == "" {
		return errNoTree
	}
	file, value := filepath.Join(dir, "hugetlb."+size+"."), strconv.FormatUint(limit, 10)
	if err := writeCgroupFile(file+used, value); err != nil {
		return err
	}
	if err := writeCgroupFile(file+reserved, value); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeUnified writes one file of cgroup v2. Some take one line at a time.
func (c containerCgroup) writeUnified(key, value string) error {
	if c.v2 == "" {
		return errNoTree
	}
	for line := range strings.Lines(value) {
		if err := writeCgroupFile(filepath.Join(c.v2, key), strings.TrimSuffix(line, "\n")); err != nil {
			return err
		}
	}
	return nil
}

// writeCgroupFile writes a file of a cgroup, in one go; it makes none.
func writeCgroupFile(name, value string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// explain says why a setting could not be made, or that its container has
// ended meanwhile.
func (c containerCgroup) explain(err error, format string, args ...any) error {
	if _, gone := os.Stat(c.any); errors.Is(gone, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return errEnded
	}
	what := fmt.Sprintf(format, args...)
	switch {
	case errors.Is(err, errNoTree), errors.Is(err, fs.ErrNotExist):
		return status.Errorf(codes.FailedPrecondition, "%s: the container's cgroup has no such file: check that the node has the controller and hands it down: %v", what, err)
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ERANGE):
		return status.Errorf(codes.InvalidArgument, "%s: the kernel refuses the value: %v", what, err)
	}
	return status.Errorf(codes.FailedPrecondition, "%s: cannot be written: %v", what, err)
}

// saved are files of a cgroup with their content.
type saved map[string]string

// save reads what was once set and is not about to be set again: an update by
// the Engine sets everything anew that its runtime knows of, swap for one.
func (s cgroupSettings) save(c containerCgroup, next cgroupSettings) (saved, error) {
	out := saved{}
	for k := range s.Unified {
		if _, again := next.Unified[k]; again || c.v2 == "" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(c.v2, k))
		switch {
		case gone(err), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENODEV):
			continue // not there, or cannot be read: nothing that could be put back
		case err != nil:
			return nil, err
		}
		out[k] = string(b)
	}
	return out, nil
}

// restore puts back what an update has changed in passing.
func (v saved) restore(c containerCgroup) error {
	for _, k := range slices.Sorted(maps.Keys(v)) {
		now, err := os.ReadFile(filepath.Join(c.v2, k))
		if err == nil && string(now) == v[k] {
			continue
		}
		if err == nil {
			err = c.writeUnified(k, v[k])
		}
		if err != nil {
			return c.explain(err, "unified[%q] = %q, as before the update", k, v[k])
		}
	}
	return nil
}

// setOOMScore gives all processes of a container another oom_score_adj: the
// Engine sets it once, at the container's start.
func (p procFS) setOOMScore(c containerCgroup, score int) error {
	value := strconv.Itoa(score)
	return filepath.WalkDir(c.any, func(dir string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		pids, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil && !gone(err) && !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.ENODEV) {
			return err
		}
		for pid := range bytes.FieldsSeq(pids) {
			file := p.file(string(pid), "oom_score_adj")
			if err := writeCgroupFile(file, value); err != nil && !gone(err) {
				return fmt.Errorf("oom_score_adj of process %s: %w", pid, err)
			}
		}
		return nil
	})
}
