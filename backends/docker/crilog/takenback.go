package crilog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// turnTo takes a file as the target. The log before it is remembered: when the
// answer to a reopen comes too late, the kubelet renames that back, over the
// target.
func (c *copier) turnTo(f *os.File) error {
	c.target, c.before = f, fileID{}
	rotated, err := newestSibling(c.file.Target)
	if err != nil || rotated == "" {
		return err
	}
	c.before, err = identify(rotated)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the kubelet compressed or removed it
	}
	return err
}

// leave lets go of a target that the kubelet has replaced by the log before
// it. What was written since is nowhere: it is copied again from there on.
func (c *copier) leave() error {
	if c.target == nil || c.before == (fileID{}) {
		return nil
	}
	now, err := identify(c.file.Target)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now != c.before {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the log: %w", err)
	}
	c.out, c.sent, c.final = c.out[:0], 0, false
	if err := c.close(); err != nil {
		return fmt.Errorf("let go of a replaced log: %w", err)
	}
	return nil
}
