package crilog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// copier copies one container's log. It is used by one goroutine.
type copier struct {
	file  File
	onGap func(Gap)
	size  int // of what is written at once, about

	target *os.File
	before fileID // what the target was before, if that is known
	out    []byte // lines that are to be written, from sent on
	sent   int

	cur  *segment // nil before the position is known
	next *segment // the successor of cur, as soon as there is one
	in   *forward
	// final is true when the Engine was seen to have turned to another file,
	// so that cur grows no more.
	final bool

	skip    int    // lines of the next record that are written already
	last    []byte // timestamp of the last record
	gap     bool   // records may be missing before the next
	scratch []byte
}

// batch copies some of what there is. more is false when nothing was left to
// copy. After an error it may be called again.
func (c *copier) batch() (more bool, err error) {
	if err := c.open(); err != nil {
		return false, err
	}
	if err := c.flush(); err != nil {
		return false, err
	}
	if c.cur == nil {
		if err := c.resume(); err != nil || c.cur == nil {
			return false, err
		}
	}
	if c.next == nil {
		if err := c.hold(); err != nil {
			return false, err
		}
	}
	if err := c.fill(); err != nil {
		return false, err
	}
	if len(c.out) > 0 {
		return true, c.flush()
	}
	return c.advance()
}

// open opens the target if that is not done, or no longer good.
func (c *copier) open() error {
	if err := c.leave(); err != nil || c.target != nil {
		return err
	}
	f, err := openTarget(c.file.Target)
	if err != nil {
		return err
	}
	return c.turnTo(f)
}

// flush writes what is to be written.
func (c *copier) flush() error {
	if c.sent < len(c.out) {
		n, err := c.target.Write(c.out[c.sent:])
		c.sent += n
		if err != nil {
			return fmt.Errorf("write log: %w", err)
		}
	}
	c.out, c.sent = c.out[:0], 0
	return nil
}

// resume finds where to go on. Without a source it does nothing.
func (c *copier) resume() error {
	all, err := survey(c.file.Source)
	if err != nil {
		return fmt.Errorf("open the Engine's log: %w", err)
	}
	if len(all) == 0 {
		return nil
	}
	w, err := lastWritten(c.target)
	if err != nil {
		closeAll(all)
		return fmt.Errorf("find the position: %w", err)
	}
	p, err := locate(all, w)
	if err != nil {
		closeAll(all)
		return fmt.Errorf("find the position: %w", err)
	}
	for i, s := range all {
		switch i {
		case p.at:
			c.cur = s
		case p.at + 1:
			c.next = s
		default:
			closeAll([]*segment{s})
		}
	}
	c.in, c.skip, c.gap, c.last = newForward(c.cur, p.off), p.skip, p.gap, w.stamp
	return nil
}

// fill renders whole records until there is enough for one write.
func (c *copier) fill() error {
	for len(c.out) < c.size {
		line, err := c.in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the Engine's log: %w", err)
		}
		c.render(line)
	}
	return nil
}

// render makes lines of one record.
func (c *copier) render(line []byte) {
	r, scratch, torn, ok := parse(line, c.scratch)
	c.scratch = scratch
	c.gap = c.gap || torn
	if !ok {
		return
	}
	if c.gap {
		c.gap = false
		c.onGap(Gap{After: instant(c.last), Before: instant(r.stamp)})
	}
	c.out, _ = r.appendCRI(c.out, c.skip)
	c.skip = 0
	c.last = append(c.last[:0], r.stamp...)
}

// where returns how often the Engine has rotated since it began cur, and -1
// when cur is rotated away.
func (c *copier) where() (int, error) {
	for n := range maxSiblings {
		id, err := identify(rotated(c.file.Source, n))
		switch {
		case err == nil && id == c.cur.id:
			return n, nil
		case errors.Is(err, fs.ErrNotExist) && n > 0:
			return -1, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return 0, fmt.Errorf("find the Engine's log: %w", err)
		}
	}
	return -1, nil
}

// hold opens the successor of cur as soon as the Engine has made one, so that
// it cannot be lost while cur is read.
func (c *copier) hold() error {
	for {
		n, err := c.where()
		if err != nil || n <= 0 {
			return err
		}
		s, err := openSegment(rotated(c.file.Source, n-1))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is about to be made
		}
		if err != nil {
			return fmt.Errorf("open the Engine's log: %w", err)
		}
		// If the Engine rotated meanwhile, it may be another one.
		again, err := c.where()
		if err == nil && again == n {
			c.next = s
			return nil
		}
		closeAll([]*segment{s})
		if err != nil {
			return err
		}
	}
}

// advance is called at the end of cur, and goes on to its successor when there
// is one.
func (c *copier) advance() (more bool, err error) {
	n, err := c.where()
	switch {
	case err != nil:
		return false, err
	case n == 0:
		return c.truncated()
	case !c.final:
		// What the Engine wrote between our last look and its turn.
		c.final = true
		return true, nil
	}
	if c.next == nil && n < 0 {
		if err := c.jump(); err != nil {
			return false, err
		}
	}
	if c.next == nil {
		return false, nil
	}
	c.gap = c.gap || c.in.torn() > 0
	closeAll([]*segment{c.cur})
	c.cur, c.next, c.final = c.next, nil, false
	c.in = newForward(c.cur, 0)
	return true, nil
}

// truncated starts again at the beginning of a file that was emptied: an
// Engine that keeps one file only rotates so.
func (c *copier) truncated() (bool, error) {
	st, err := c.cur.Stat()
	if err != nil {
		return false, fmt.Errorf("look at the Engine's log: %w", err)
	}
	if st.Size() >= c.in.off+int64(c.in.torn()) {
		return false, nil
	}
	c.gap = true
	c.in = newForward(c.cur, 0)
	return true, nil
}

// jump takes the oldest file that there is as the successor of one that was
// rotated away unseen: files between them may be missing.
func (c *copier) jump() error {
	all, err := survey(c.file.Source)
	if err != nil {
		return fmt.Errorf("open the Engine's log: %w", err)
	}
	if len(all) > 0 {
		c.next, c.gap = all[0], true
		closeAll(all[1:])
	}
	return nil
}

// reopen turns to a new target: the kubelet has renamed the old one. It is
// called between records, so that no line is torn between the two.
func (c *copier) reopen() error {
	if c.target != nil {
		if err := c.flush(); err != nil {
			return err
		}
	}
	f, err := openTarget(c.file.Target)
	if err != nil {
		return err
	}
	old := c.target
	err = c.turnTo(f)
	if old == nil {
		return err
	}
	if closed := old.Close(); closed != nil {
		err = errors.Join(err, fmt.Errorf("close the rotated log: %w", closed))
	}
	return err
}

// close lets go of all files.
func (c *copier) close() error {
	for _, s := range []*segment{c.cur, c.next} {
		if s != nil {
			closeAll([]*segment{s})
		}
	}
	c.cur, c.next = nil, nil
	if c.target == nil {
		return nil
	}
	t := c.target
	c.target = nil
	return t.Close()
}

// sameFile reports whether two descriptions are of one log.
func (f File) sameFile(g File) bool { return f.Source == g.Source && f.Target == g.Target }

// holds reports whether a changed file belongs to the container's source.
func (f File) holds(path string) bool {
	return len(path) >= len(f.Source) && bytes.Equal([]byte(path[:len(f.Source)]), []byte(f.Source))
}
