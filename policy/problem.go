package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a configuration file.
type Problem struct {
	// File is the name that was given to Load or Parse.
	File string
	// Line is counted from 1; 0 when the problem has no line.
	Line int
	// Key is the dotted key (routes[1].backend); "" for the file as a whole.
	Key string
	// Message says what is wrong and what to do.
	Message string
}

// String returns the problem as "file:line: key: message", leaving out the
// parts that are not known.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			b.WriteString(":" + strconv.Itoa(p.Line))
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// InvalidError is everything that is wrong with a configuration.
type InvalidError struct {
	// Problems are sorted by line; there is at least one.
	Problems []Problem
}

// Error returns the problems, each on a line of its own.
func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// invalid returns the problems as an error, or nil when there are none.
func invalid(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &InvalidError{Problems: problems}
}
