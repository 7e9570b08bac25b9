package policy

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// FuzzParse: no input panics, an error names the file and is one line per
// problem, and what is accepted can be decided with.
func FuzzParse(f *testing.F) {
	for _, path := range []string{"testdata/pinned.yaml", "testdata/full.yaml"} {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, seed := range []string{
		"", "~", "- a", "{}", "...", "---\n---\n", "\ufeff", "\xff\xfe", "%YAML 1.1\n---\n",
		minimal, two, shared, minimal + "---\nkind: Config\n", minimal + minimal,
		minimal + "a: &a [*a]\nb: *a\n", minimal + "<<: {a: b}\n", minimal + "? [a]\n: b\n",
		minimal + "migration: {to: x, percent: 1e9}\nroutes: [{}, 1, ~, {handler: \"\"}]\n",
		"backends: {a: {type: cri, cni: 3}, \"\": {type: docker, logs: {maxSize: 1k}}, ~: 1}\n",
		"listen: !!binary aGk=\nstateDir: !!float x\nhealth: !!map 3\nrecord: !<tag:x> {}\n",
		"listen: |\n  a\n  b\nstateDir: >-\n  a\nadminListen: 'a''b'\n",
		strings.Repeat("[", 1000), strings.Repeat("{a: ", 1000), strings.Repeat("- ", 1000), strings.Repeat("? ", 1000),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz.yaml", data)
		if err != nil {
			checkInvalid(t, c, err)
			return
		}
		checkValid(t, c)
	})
}

// checkInvalid looks at what Parse returns for a configuration it refuses.
func checkInvalid(t *testing.T, c *Config, err error) {
	t.Helper()
	if c != nil {
		t.Error("there is a configuration besides the error")
	}
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Problems) == 0 {
		t.Fatalf("not an InvalidError with problems: %#v", err)
	}
	last := 0
	for _, p := range invalid.Problems {
		if p.File != "fuzz.yaml" || p.Message == "" || p.Line < last || strings.Contains(p.String(), "\n") {
			t.Errorf("problem %#v after line %d", p, last)
		}
		last = p.Line
	}
}

// checkValid looks at what users of a configuration rely on.
func checkValid(t *testing.T, c *Config) {
	t.Helper()
	if len(c.Backends) == 0 || c.RuntimeName == "" || c.StateDir == "" || c.Listen == c.AdminListen {
		t.Errorf("incomplete: %+v", c)
	}
	for _, handler := range append(c.Handlers(), "") {
		r, err := Decide(Pod{UID: "u", Handler: handler}, view{}, c)
		if err != nil {
			t.Errorf("handler %q: %v", handler, err)
			continue
		}
		if _, ok := c.Backend(r.Backend); !ok || r.Rule == "" {
			t.Errorf("handler %q: %+v", handler, r)
		}
		if !slices.Contains(c.FrontHandlers(r.Backend, r.BackendHandler), handler) {
			t.Errorf("handler %q is not in front of %+v", handler, r)
		}
	}
	if same, err := c.WithMigration(c.Migration); err != nil || same.Migration != c.Migration {
		t.Errorf("the same migration again: %v", err)
	}
}
