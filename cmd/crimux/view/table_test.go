package view_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/crimux/crimux/cmd/crimux/view"
)

func TestTable(t *testing.T) {
	var b strings.Builder
	table := view.NewTable(&b, true, "ONE", "TWO", "REST")
	rows := [][]string{{"≥", "x", "fine"}, {"long cell", "-", "bad"}, {"end", "", ""}}
	for i, cells := range rows {
		if err := table.Row(i == 1, cells...); err != nil {
			t.Fatal(err)
		}
	}
	if b.Len() > 0 {
		t.Errorf("written before the widths are known: %q", b.String())
	}
	if err := table.Live(); err != nil {
		t.Fatal(err)
	}
	const want = "ONE        TWO  REST\n" +
		"≥          x    fine\n" +
		"long cell  -    \x1b[31mbad\x1b[0m\n" +
		"end\n"
	if b.String() != want {
		t.Errorf("got\n%q\nwant\n%q", b.String(), want)
	}
	b.Reset()
	if err := table.Row(false, "a", "wide one", "c"); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "a          wide one  c\n"; got != want {
		t.Errorf("live: got %q, want %q", got, want)
	}
}

// TestTableIsBounded checks that rows do not pile up.
func TestTableIsBounded(t *testing.T) {
	var b strings.Builder
	table := view.NewTable(&b, false, "N")
	for i := range 10000 {
		before := b.Len()
		if err := table.Row(false, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if i > 500 && before == 0 {
			t.Fatal("500 rows were held back")
		}
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(b.String(), "\n"); got != 10001 {
		t.Errorf("%d lines, want 10001", got)
	}
	if strings.Count(b.String(), "N") != 1 {
		t.Error("the header is not there once")
	}
}
