package crilog

import (
	"bytes"
	"errors"
	"io"
)

// forward reads the whole lines of a file that may be growing.
type forward struct {
	file io.ReaderAt
	// off is where the line starts that next returns next.
	off  int64
	buf  []byte // read from off on, and not returned
	mem  []byte // what buf lies in
	long bool   // in the middle of a line that is too long
}

// newForward starts at an offset, where a line starts.
func newForward(file io.ReaderAt, off int64) *forward {
	return &forward{file: file, off: off, mem: make([]byte, 0, chunk)}
}

// next returns the next line with its newline, valid until the next call, or
// io.EOF when there is no whole line now; there may be one later. Of a line
// longer than any that the Engine writes only its end is returned.
func (f *forward) next() ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(f.buf[searched:], '\n'); i >= 0 {
			line := f.buf[:searched+i+1]
			f.buf = f.buf[len(line):]
			f.off += int64(len(line))
			if f.long {
				f.long = false
				return line[len(line)-1:], nil
			}
			return line, nil
		}
		if len(f.buf) > maxLine {
			f.off += int64(len(f.buf))
			f.buf, f.long = f.buf[len(f.buf):], true
		}
		searched = len(f.buf)
		if err := f.read(); err != nil {
			return nil, err
		}
	}
}

// read reads on.
func (f *forward) read() error {
	if cap(f.mem)-len(f.buf) < chunk/2 {
		f.mem = make([]byte, 0, len(f.buf)+chunk)
	}
	f.mem = append(f.mem[:0], f.buf...)
	n, err := f.file.ReadAt(f.mem[len(f.mem):cap(f.mem)], f.off+int64(len(f.mem)))
	f.mem = f.mem[:len(f.mem)+n]
	f.buf = f.mem
	if n > 0 {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return err
}

// torn returns how much of a line without newline there is.
func (f *forward) torn() int { return len(f.buf) }
