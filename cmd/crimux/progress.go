package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

const (
	// progressAfter is how long a command may take before a person wonders.
	progressAfter = 500 * time.Millisecond
	progressEvery = 200 * time.Millisecond
	// progressStep is after how many events the clock is looked at.
	progressStep = 1024
	eraseLine    = "\r\x1b[K"
)

// progress tells a person how far a command has read. A nil progress tells
// nobody anything.
type progress struct {
	w     io.Writer
	now   func() time.Time
	began time.Time
	told  time.Time
	count uint64
}

// newProgress returns a progress for whoever looks at stderr; nil where nobody
// does.
func newProgress(c *cobra.Command) *progress {
	w := c.ErrOrStderr()
	if !isTerminal(w) {
		return nil
	}
	return &progress{w: w, now: time.Now}
}

func (p *progress) begin() {
	if p != nil {
		p.began, p.told, p.count = p.now(), time.Time{}, 0
	}
}

// one takes note of one event that was read.
func (p *progress) one() {
	if p == nil {
		return
	}
	if p.count++; p.count%progressStep != 0 {
		return
	}
	now := p.now()
	if now.Sub(p.began) < progressAfter || now.Sub(p.told) < progressEvery {
		return
	}
	p.told = now
	fmt.Fprintf(p.w, "%sreading the log: %d events", eraseLine, p.count)
}

// end takes the line away again.
func (p *progress) end() {
	if p != nil && !p.told.IsZero() {
		fmt.Fprint(p.w, eraseLine)
		p.told = time.Time{}
	}
}
