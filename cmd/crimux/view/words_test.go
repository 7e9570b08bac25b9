package view

import (
	"testing"
	"time"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain, é and ≥":         "plain, é and ≥",
		"two\nlines\tand\r":      "two lines and ",
		"\x1b[31mred\x1b[0m\x07": "\uFFFD[31mred\uFFFD[0m\uFFFD",
		"right\u202eto left":     "right\uFFFDto left",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"0123456789ab":            "0123456789ab",
		"0123456789abcdef":        "0123456789ab",
		"sha256:0123456789abcdef": "sha256:0123456789ab",
		"app:0123456789abcdef":    "app:0123456789abcdef",
		"not-an-id-but-a-name":    "not-an-id-but-a-name",
		"bad\nid":                 "bad id",
	} {
		if got := Short(in); got != want {
			t.Errorf("Short(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestTook(t *testing.T) {
	for in, want := range map[time.Duration]string{
		-time.Second:                  "0s",
		0:                             "0s",
		123456 * time.Nanosecond:      "120µs",
		12345678 * time.Nanosecond:    "12ms",
		1234567890 * time.Nanosecond:  "1.2s",
		61600 * time.Millisecond:      "1m02s",
		3*time.Hour + 59*time.Second:  "3h01m",
		49*time.Hour + 59*time.Minute: "2d01h",
	} {
		if got := took(in); got != want {
			t.Errorf("took(%d) = %q, want %q", in, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	for in, want := range map[time.Duration]string{
		-time.Hour:            "0s",
		59 * time.Second:      "59s",
		60 * time.Second:      "1m",
		119 * time.Minute:     "1h",
		47*time.Hour + 59*1e9: "47h",
		72 * time.Hour:        "3d",
	} {
		if got := Age(in); got != want {
			t.Errorf("Age(%v) = %q, want %q", in, got, want)
		}
	}
}
