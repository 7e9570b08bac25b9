package policy

import (
	"fmt"
	"strings"
	"testing"
)

func TestSuggest(t *testing.T) {
	var many []string
	for i := range 25 {
		many = append(many, fmt.Sprintf("node-%02d", i))
	}
	for _, c := range []struct {
		name  string
		known []string
		want  string
	}{
		{"confdir", []string{"binDirs", "confDir"}, "did you mean confDir?"},
		{"confDirs", []string{"binDirs", "confDir"}, "did you mean confDir?"},
		{"tpye", []string{"type", "endpoint"}, "there are type, endpoint"},
		{"typ", []string{"type", "endpoint"}, "did you mean type?"},
		{"a", []string{"b"}, "there are b"},
		{"", []string{"docker"}, "there are docker"},
		{strings.Repeat("x", 1000), []string{"docker"}, "there are docker"},
		{"podman", []string{"a\nb", "c"}, `there are "a\nb", c`},
		{"a\nbcd", []string{"a\nbce"}, `did you mean "a\nbce"?`},
		{"podman", many, "there are " + strings.Join(many[:20], ", ") + " and 5 more"},
	} {
		if got := suggest(c.name, c.known); got != c.want {
			t.Errorf("%s: got %q, want %q", quote(c.name), got, c.want)
		}
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "axc", 1},
		{"abc", "ac", 1}, {"abc", "xabc", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2},
	} {
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("edits(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"":                      `""`,
		"a\nb":                  `"a\nb"`,
		strings.Repeat("x", 80): `"` + strings.Repeat("x", 80) + `"`,
		strings.Repeat("x", 81): `"` + strings.Repeat("x", 80) + `"…`,
	} {
		if got := quote(in); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestProblemString(t *testing.T) {
	for _, c := range []struct {
		problem Problem
		want    string
	}{
		{Problem{File: "f", Line: 3, Key: "a.b", Message: "m"}, "f:3: a.b: m"},
		{Problem{File: "f", Message: "m"}, "f: m"},
		{Problem{Key: "a", Message: "m"}, "a: m"},
		{Problem{Line: 3, Message: "m"}, "m"},
	} {
		if got := c.problem.String(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.problem, got, c.want)
		}
	}
}
