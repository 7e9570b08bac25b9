package view

import (
	"io"
	"strings"
	"unicode/utf8"
)

// pageRows is how many rows are looked at together to align them. Later pages
// may be wider, never narrower.
const pageRows = 256

// Table writes rows with aligned columns, without holding all of them.
type Table struct {
	w       io.Writer
	colour  bool
	header  []string
	pending []tableRow
	widths  []int
	page    int
	begun   bool
}

type tableRow struct {
	cells []string
	red   bool
}

// NewTable returns a table with these column names. colour allows escape
// sequences.
func NewTable(w io.Writer, colour bool, header ...string) *Table {
	return &Table{w: w, colour: colour, header: header, widths: make([]int, len(header)), page: pageRows}
}

// Row adds a row of as many cells as the header has. The last cell of a failed
// row is red.
func (t *Table) Row(failed bool, cells ...string) error {
	t.pending = append(t.pending, tableRow{cells, failed})
	if len(t.pending) >= t.page {
		return t.Flush()
	}
	return nil
}

// Live writes what is pending, and from here on each row as it comes.
func (t *Table) Live() error {
	t.page = 1
	return t.Flush()
}

// Flush writes what is pending. The header comes with the first row.
func (t *Table) Flush() error {
	if len(t.pending) == 0 {
		return nil
	}
	rows := t.pending
	t.pending = nil
	if !t.begun {
		t.begun = true
		rows = append([]tableRow{{cells: t.header}}, rows...)
	}
	for _, r := range rows {
		for i, cell := range r.cells {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		t.line(&b, r)
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

const (
	red   = "\x1b[31m"
	reset = "\x1b[0m"
)

func (t *Table) line(b *strings.Builder, r tableRow) {
	last := len(r.cells) - 1
	for last > 0 && r.cells[last] == "" {
		last--
	}
	for i, cell := range r.cells[:last+1] {
		switch {
		case i < last:
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2))
		case r.red && t.colour:
			b.WriteString(red + cell + reset)
		default:
			b.WriteString(cell)
		}
	}
	b.WriteByte('\n')
}
