package crilog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// chunk is how much is read at once.
	chunk = 256 << 10
	// maxLine bounds a line of a source: the Engine's are below 100 KiB, and a
	// damaged one must not fill the memory.
	maxLine = 1 << 20
	// maxSiblings bounds the search for rotated sources.
	maxSiblings = 1000
)

// errLongLine is in the chain of the error about a file without newlines.
var errLongLine = errors.New("line is too long")

// segment is one open file of a rotated log.
type segment struct {
	*os.File
	id   fileID
	size int64 // when it was opened
}

// fileID names a file while it is open.
type fileID struct{ dev, ino uint64 }

// openSegment opens a file that is part of a log.
func openSegment(path string) (*segment, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	s, err := segmentOf(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// rotated returns the path of a source's n-th predecessor; the 0th is itself.
func rotated(source string, n int) string {
	if n == 0 {
		return source
	}
	return source + "." + strconv.Itoa(n)
}

// survey opens all files of a source, the oldest first. The Engine may rotate
// meanwhile: then it looks again, until what it saw belongs together.
func survey(source string) ([]*segment, error) {
	for {
		all, err := surveyOnce(source)
		if err != nil || len(all) == 0 {
			return all, err
		}
		now, err := identify(source)
		if err == nil && now == all[len(all)-1].id || errors.Is(err, fs.ErrNotExist) {
			return all, nil
		}
		closeAll(all)
		if err != nil {
			return nil, err
		}
	}
}

// surveyOnce opens what is there.
func surveyOnce(source string) ([]*segment, error) {
	var all []*segment
	for n := range maxSiblings {
		s, err := openSegment(rotated(source, n))
		if errors.Is(err, fs.ErrNotExist) {
			if n == 0 {
				continue // just renamed, and not made anew yet
			}
			break
		}
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append([]*segment{s}, all...)
	}
	return all, nil
}

// identify returns which file a path leads to.
func identify(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileID{st.Dev, st.Ino}, nil
}

// closeAll closes files that were only read.
func closeAll(all []*segment) {
	for _, s := range all {
		_ = s.Close()
	}
}

// backward reads the lines of a log from the last to the first. An end without
// newline is no line.
type backward struct {
	all  []*segment // the oldest first
	at   int        // index in all; -1 at the start of the log
	end  int64      // where what was not returned yet ends
	buf  []byte     // bytes of all[at] from base on
	base int64
}

// newBackward starts at the end of a log.
func newBackward(all []*segment) (*backward, error) {
	b := &backward{all: all, at: len(all)}
	return b, b.step()
}

// step goes to the end of the segment before.
func (b *backward) step() error {
	b.at--
	b.buf = nil
	if b.at < 0 {
		return nil
	}
	b.end = b.all[b.at].size
	b.base = b.end
	start, err := b.lineStart(b.end)
	b.end = start
	return err
}

// prev returns the line before, with its newline, and where it starts. ok is
// false at the start of the log. The line is valid until the next call.
func (b *backward) prev() (line []byte, at int, off int64, ok bool, err error) {
	for b.at >= 0 && b.end == 0 {
		if err := b.step(); err != nil {
			return nil, 0, 0, false, err
		}
	}
	if b.at < 0 {
		return nil, 0, 0, false, nil
	}
	start, err := b.lineStart(b.end - 1)
	if err != nil {
		return nil, 0, 0, false, err
	}
	line = b.buf[start-b.base : b.end-b.base]
	b.end = start
	return line, b.at, start, true, nil
}

// lineStart returns where the line starts that holds the byte before end: just
// behind the newline before it, or at the start of the file.
func (b *backward) lineStart(end int64) (int64, error) {
	for want := int64(chunk); ; want *= 2 {
		if end >= b.base && b.buf != nil {
			if i := bytes.LastIndexByte(b.buf[:end-b.base], '\n'); i >= 0 {
				return b.base + int64(i) + 1, nil
			}
			if b.base == 0 {
				return 0, nil
			}
			if end-b.base > 2*maxLine {
				return 0, fmt.Errorf("%s: %w at byte %d", b.all[b.at].Name(), errLongLine, b.base)
			}
		}
		if err := b.load(max(0, b.base-want)); err != nil {
			return 0, err
		}
	}
}

// load makes buf begin at base and reach as far as it is still needed.
func (b *backward) load(base int64) error {
	buf := make([]byte, b.end-base)
	if _, err := b.all[b.at].ReadAt(buf, base); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", b.all[b.at].Name(), err)
	}
	b.buf, b.base = buf, base
	return nil
}
