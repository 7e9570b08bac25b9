package crilog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// openTarget opens the file that the kubelet reads, or makes it, and cuts off
// what a crash left of a line. It follows no symbolic link in the last part of
// the path.
func openTarget(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("open log: %s is a symbolic link: remove it first: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := repair(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// repair cuts off what a crash left of a line: an end without newline. It
// refuses a file that is no log in the CRI's format rather than cut it.
func repair(f *os.File) error {
	s, err := segmentOf(f)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	b, err := newBackward([]*segment{s})
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	keep := b.end
	line, _, _, ok, err := b.prev()
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	if ok && stampOf(line) == nil || s.size-keep > maxLine {
		return fmt.Errorf("open log: %s does not end with a record in the format of the CRI: move it away", f.Name())
	}
	if keep == s.size {
		return nil
	}
	if err := f.Truncate(keep); err != nil {
		return fmt.Errorf("open log: cut off a torn line: %w", err)
	}
	return nil
}

// segmentOf returns an open file as a segment.
func segmentOf(f *os.File) (*segment, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", f.Name())
	}
	return &segment{f, fileID{st.Dev, st.Ino}, st.Size}, nil
}

// written is the end of what was written before: the lines with the last
// timestamp, and the line before these.
type written struct {
	stamp []byte   // nil if nothing was written
	lines [][]byte // with their newlines, the first first
	// before is nil if nothing was written before these lines, or it is not
	// known.
	before []byte
}

// lastWritten reads the end of a target, and of its rotated siblings as far
// as it takes.
func lastWritten(target *os.File) (w written, err error) {
	s, err := segmentOf(target)
	if err != nil {
		return w, err
	}
	all, err := siblings(target.Name())
	if err != nil {
		return w, err
	}
	defer closeAll(all)
	b, err := newBackward(append(slices.Clip(all), s))
	if err != nil {
		return w, err
	}
	for {
		line, _, _, ok, err := b.prev()
		if err != nil {
			return w, err
		}
		if !ok {
			break
		}
		stamp := stampOf(line)
		if w.stamp == nil {
			if stamp == nil {
				continue // torn, in a sibling
			}
			w.stamp = bytes.Clone(stamp)
		}
		if !bytes.Equal(stamp, w.stamp) {
			w.before = bytes.Clone(line)
			break
		}
		w.lines = append(w.lines, bytes.Clone(line))
	}
	slices.Reverse(w.lines)
	return w, nil
}

// siblings opens the files that the kubelet rotated a log into, the oldest
// first: 0.log.20060102-150405. Compressed ones are older than one that is
// not, and are left out.
func siblings(target string) ([]*segment, error) {
	entries, err := os.ReadDir(filepath.Dir(target))
	if err != nil {
		return nil, fmt.Errorf("rotated logs: %w", err)
	}
	var all []*segment
	for _, e := range entries { // by name, and so by time
		suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(target)+".")
		if !ok || !isKubeletTime(suffix) || !e.Type().IsRegular() {
			continue
		}
		s, err := openSegment(filepath.Join(filepath.Dir(target), e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the kubelet compressed or removed it
		}
		if err != nil {
			closeAll(all)
			return nil, fmt.Errorf("rotated logs: %w", err)
		}
		all = append(all, s)
	}
	return all, nil
}

// isKubeletTime reports whether a suffix is a time as the kubelet writes it.
func isKubeletTime(s string) bool {
	if len(s) != len("20060102-150405") || s[8] != '-' {
		return false
	}
	return strings.Trim(s[:8], "0123456789") == "" && strings.Trim(s[9:], "0123456789") == ""
}
