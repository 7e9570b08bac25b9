package view

import "testing"

// TestBroughtWords: a timeline says where a container's image came from, and
// nothing of the backends' own steps.
func TestBroughtWords(t *testing.T) {
	for _, row := range []struct {
		steps []Step
		want  string
	}{
		{nil, ""},
		{[]Step{{Name: "network.attach", ID: "cafe"}}, ""},
		{[]Step{{Name: "image.copied", ID: "reg/app:1 from docker"}, {Name: "sandbox.created"}}, "image.copied reg/app:1 from docker"},
		{[]Step{{Name: "image.pulled", ID: "a\x1b[31m"}}, "image.pulled a\uFFFD[31m"},
	} {
		if got := broughtWords(row.steps); got != row.want {
			t.Errorf("%v: %q, want %q", row.steps, got, row.want)
		}
	}
}
