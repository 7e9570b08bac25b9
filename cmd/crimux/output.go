package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// exitInterrupted is what shells make of a program that ^C ended.
const exitInterrupted = 130

// output is where a command prints, and how.
type output struct {
	*bufio.Writer
	// colour is set where escape sequences do good.
	colour bool
	// now is what relative times count from; zero where times are absolute.
	now time.Time
}

// newOutput returns the command's standard output. It must be flushed.
func newOutput(c *cobra.Command, absolute bool) *output {
	w := c.OutOrStdout()
	o := &output{Writer: bufio.NewWriter(w), colour: isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if !absolute {
		o.now = time.Now()
	}
	return o
}

// line prints v as one line of JSON.
func (o *output) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = o.Write(append(b, '\n'))
	return err
}

// isTerminal tells whether a person is looking at what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// ended turns a command's error into what the program ends with: one that the
// user brought about with ^C is not worth a message.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return exitError{exitInterrupted}
	}
	return err
}

// reading carries out a command that reads the log and prints, and closes and
// flushes after it.
func reading(c *cobra.Command, absolute bool, do func(*source, *output) error) error {
	src, err := openSource(c)
	if err != nil {
		return ended(c.Context(), err)
	}
	return readingFrom(c, src, absolute, do)
}

// readingFrom is reading from a source that is open.
func readingFrom(c *cobra.Command, src *source, absolute bool, do func(*source, *output) error) error {
	src.progress = newProgress(c)
	out := newOutput(c, absolute)
	err := do(src, out)
	// What was printed before an error is of use, too.
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	return ended(c.Context(), errors.Join(err, src.Close()))
}

// hint tells a person, apart from the output, that there is none.
func hint(c *cobra.Command, words string) {
	fmt.Fprintln(c.ErrOrStderr(), words)
}
