package crilog

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

const stamp = "2026-01-02T15:04:05.123456789Z"

func TestParseAndRender(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		want string // "" for no record
		torn bool
	}{
		"plain":          {`{"log":"hello\n","stream":"stdout","time":"` + stamp + `"}`, stamp + " stdout F hello\n", false},
		"stderr":         {`{"log":"hello\n","stream":"stderr","time":"` + stamp + `"}`, stamp + " stderr F hello\n", false},
		"partial":        {`{"log":"hello","stream":"stdout","time":"` + stamp + `"}`, stamp + " stdout P hello\n", false},
		"empty line":     {`{"log":"\n","stream":"stdout","time":"` + stamp + `"}`, stamp + " stdout F \n", false},
		"nothing":        {`{"log":"","stream":"stdout","time":"` + stamp + `"}`, "", false},
		"terminal":       {`{"log":"a\r\nb\r\nc","stream":"stdout","time":"` + stamp + `"}`, stamp + " stdout F a\r\n" + stamp + " stdout F b\r\n" + stamp + " stdout P c\n", false},
		"escapes":        {`{"log":"\"\\\/\b\f\r\t\u003c\u00e9\ud83d\ude00\ud800x\n","stream":"stdout","time":"` + stamp + `"}`, stamp + " stdout F \"\\/\b\f\r\t<é😀\uFFFDx\n", false},
		"log in a log":   {`{"log":"{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"` + stamp + `\"}\n","stream":"stdout","time":"` + stamp + `"}`, stamp + ` stdout F {"log":"x\n","stream":"stdout","time":"` + stamp + `"}` + "\n", false},
		"attributes":     {`{"log":"hello\n","stream":"stdout","attrs":{"a":"b"},"time":"` + stamp + `"}`, stamp + " stdout F hello\n", false},
		"other order":    {`{ "time":"` + stamp + `", "stream":"stdout", "log":"hello\n" }`, stamp + " stdout F hello\n", false},
		"short time":     {`{"log":"x\n","stream":"stdout","time":"2026-01-02T15:04:05Z"}`, "2026-01-02T15:04:05Z stdout F x\n", false},
		"time zone":      {`{"log":"x\n","stream":"stdout","time":"2026-01-02T15:04:05.1+02:00"}`, "2026-01-02T15:04:05.1+02:00 stdout F x\n", false},
		"torn and whole": {`{"log":"hel{"log":"hello\n","stream":"stdout","time":"` + stamp + `"}`, stamp + " stdout F hello\n", true},
		"torn":           {`{"log":"hello\n","stream":"stdo`, "", true},
		"no json":        {`hello`, "", true},
		"other stream":   {`{"log":"x\n","stream":"stdin","time":"` + stamp + `"}`, "", true},
		"bad time":       {`{"log":"x\n","stream":"stdout","time":"2026-01-02 15:04:05 stdout"}`, "", true},
		"no time":        {`{"log":"x\n","stream":"stdout"}`, "", true},
		"control":        {"{\"log\":\"x\x01\n\",\"stream\":\"stdout\",\"time\":\"" + stamp + "\"}", "", true},
		"bad escape":     {`{"log":"\q","stream":"stdout","time":"` + stamp + `"}`, "", true},
		"empty":          {``, "", true},
	} {
		r, _, torn, ok := parse([]byte(c.line+"\n"), nil)
		got, n := r.appendCRI(nil, 0)
		if string(got) != c.want || torn != c.torn || n != strings.Count(c.want, " std") && name != "log in a log" {
			t.Errorf("%s: %q, %d lines, torn %v, ok %v; want %q", name, got, n, torn, ok, c.want)
		}
		for _, line := range bytes.SplitAfter(got, []byte("\n")) {
			if len(line) > 0 && !bytes.Equal(stampOf(line), r.stamp) {
				t.Errorf("%s: timestamp of %q is %q", name, line, stampOf(line))
			}
		}
	}
}

func TestRenderSkipsWhatIsWritten(t *testing.T) {
	r := record{[]byte("a\nb\nc"), []byte("stdout"), []byte(stamp)}
	all, _ := r.appendCRI(nil, 0)
	lines := bytes.SplitAfter(all, []byte("\n"))
	for skip := range 5 {
		got, n := r.appendCRI(nil, skip)
		if want := bytes.Join(lines[min(skip, 3):], nil); !bytes.Equal(got, want) || n != 3 {
			t.Errorf("skip %d: %q, %d", skip, got, n)
		}
	}
}

func TestStampOfRefuses(t *testing.T) {
	for _, line := range []string{"", "x", "\x00\x00\n", stamp, stamp + " stdout", stamp + " stdout X y", stamp + " stdin F y", "2026 stdout F y", `{"log":"x"}`} {
		if s := stampOf([]byte(line)); s != nil {
			t.Errorf("%q has timestamp %q", line, s)
		}
	}
}

// FuzzParse compares the fast way with the standard library's.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`hello\n`, `\u00e9\ud83d\ude00\ud800\udc00`, `\"\\`, `é`, `a\nb`} {
		f.Add([]byte(`{"log":"` + s + `","stream":"stdout","time":"` + stamp + `"}`))
	}
	f.Add([]byte(`{"log":"x{"log":"y","stream":"stderr","time":"` + stamp + `"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		scratch := make([]byte, 0, 3)
		fast, _, ok := parseFast(line, scratch)
		if ok && utf8.Valid(line) {
			var v struct{ Log, Stream, Time string }
			if err := json.Unmarshal(line, &v); err != nil {
				// The other fields are checked for what they may be, later.
				if fast.valid() {
					t.Fatalf("%q was read as %q: %v", line, fast.text, err)
				}
			} else if fast.valid() && (v.Log != string(fast.text) || v.Stream != string(fast.stream) || v.Time != string(fast.stamp)) {
				t.Fatalf("%q was read as %q, not %q", line, fast.text, v.Log)
			}
		}
		r, _, _, ok := parse(line, nil)
		if !ok {
			return
		}
		out, n := r.appendCRI(nil, 0)
		lines := bytes.SplitAfter(out, []byte("\n"))
		if len(lines) != n+1 || len(lines[n]) != 0 {
			t.Fatalf("%d lines in %q", n, out)
		}
		for _, l := range lines[:n] {
			if !bytes.Equal(stampOf(l), r.stamp) {
				t.Fatalf("line %q of %q", l, line)
			}
		}
	})
}

func BenchmarkParseAndRender(b *testing.B) {
	line := []byte(`{"log":"10.0.0.1 - - [02/Jan/2026:15:04:05 +0000] \"GET /index.html HTTP/1.1\" 200 612 \"-\" \"curl/8.5.0\"\n","stream":"stdout","time":"` + stamp + `"}` + "\n")
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	var scratch, out []byte
	for b.Loop() {
		var r record
		r, scratch, _, _ = parse(line, scratch)
		out, _ = r.appendCRI(out[:0], 0)
	}
}
