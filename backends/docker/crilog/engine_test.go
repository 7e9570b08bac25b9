package crilog

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// engine writes a json-file log as the Docker Engine does, and knows what the
// CRI log must then hold.
type engine struct {
	t        *testing.T
	rng      *rand.Rand
	source   string
	maxSize  int64
	maxFiles int

	now  time.Time
	want strings.Builder
	// pending is true after a record that a line goes on behind.
	rotations int
}

func newEngine(t *testing.T, seed uint64) *engine {
	t.Helper()
	e := &engine{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), source: filepath.Join(t.TempDir(), "abc-json.log"),
		maxSize: 1 << 40, maxFiles: 3, now: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
	}
	e.must(os.WriteFile(e.source, nil, 0o640))
	return e
}

func (e *engine) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// put writes one record.
func (e *engine) put(stream, text string) {
	e.t.Helper()
	stamp := e.now.Format(time.RFC3339Nano)
	line, err := json.Marshal(struct {
		Log    string `json:"log"`
		Stream string `json:"stream"`
		Time   string `json:"time"`
	}{text, stream, stamp})
	e.must(err)
	if st, err := os.Stat(e.source); err == nil && st.Size() >= e.maxSize {
		e.rotate()
	}
	f, err := os.OpenFile(e.source, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	e.must(err)
	_, err = f.Write(append(line, '\n'))
	e.must(err)
	e.must(f.Close())
	for _, l := range strings.SplitAfter(text, "\n") {
		switch {
		case strings.HasSuffix(l, "\n"):
			fmt.Fprintf(&e.want, "%s %s F %s", stamp, stream, l)
		case l != "":
			fmt.Fprintf(&e.want, "%s %s P %s\n", stamp, stream, l)
		}
	}
}

// rotate does what the Engine does at max-size.
func (e *engine) rotate() {
	e.t.Helper()
	for n := e.maxFiles - 1; n > 0; n-- {
		if err := os.Rename(rotated(e.source, n-1), rotated(e.source, n)); err != nil && !os.IsNotExist(err) {
			e.t.Fatal(err)
		}
	}
	e.rotations++
	e.must(os.WriteFile(e.source, nil, 0o640))
}

// random writes up to n records of all kinds, and turns at most once. Often
// several records have one time.
func (e *engine) random(n int) {
	for before := e.rotations; n > 0 && e.rotations == before; n -= 1 + e.rng.IntN(2) {
		switch e.rng.IntN(4) {
		case 0: // a coarse clock
		case 1:
			e.now = e.now.Add(time.Nanosecond)
		case 2:
			e.now = e.now.Add(time.Duration(e.rng.IntN(1e9)))
		case 3:
			e.now = e.now.Add(time.Second).Truncate(time.Second) // no fraction
		}
		stream := []string{"stdout", "stderr"}[e.rng.IntN(2)]
		texts := []string{
			"a\n", "a\n", "\n", "b", "a\na\na\na\n", "x\ny\r\nz", "é\"\\<>&\u2028\n", strings.Repeat("long ", 40), fmt.Sprintf("line %d\n", e.rng.IntN(5)),
		}
		e.put(stream, texts[e.rng.IntN(len(texts))])
	}
}

// kubelet reads and rotates a CRI log.
type kubelet struct {
	t      *testing.T
	target string
	serial int
}

func newKubelet(t *testing.T) *kubelet {
	return &kubelet{t: t, target: filepath.Join(t.TempDir(), "pods", "ns_pod_uid", "c", "0.log")}
}

// rotate renames the log.
func (k *kubelet) rotate() {
	k.serial++
	name := k.target + "." + time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC).Add(time.Duration(k.serial)*time.Second).Format("20060102-150405")
	if err := os.Rename(k.target, name); err != nil && !os.IsNotExist(err) {
		k.t.Fatal(err)
	}
}

// read returns all that was ever logged.
func (k *kubelet) read() string {
	k.t.Helper()
	files, err := filepath.Glob(k.target + "*")
	if err != nil {
		k.t.Fatal(err)
	}
	slices.Sort(files)
	// 0.log sorts first and is the newest.
	if len(files) > 0 && files[0] == k.target {
		files = append(files[1:], k.target)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			k.t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

// tear cuts the target within its last line, as a crash in a write does.
func (k *kubelet) tear(rng *rand.Rand) {
	b, err := os.ReadFile(k.target)
	if err != nil || len(b) == 0 {
		return
	}
	start := strings.LastIndexByte(strings.TrimSuffix(string(b), "\n"), '\n') + 1
	if err := os.Truncate(k.target, int64(start+rng.IntN(len(b)-start+1))); err != nil {
		k.t.Fatal(err)
	}
}

// diff returns where two texts part.
func diff(got, want string) string {
	n := 0
	for n < len(got) && n < len(want) && got[n] == want[n] {
		n++
	}
	cut := func(s string) string { return s[max(0, n-150):min(len(s), n+150)] }
	return fmt.Sprintf("%d and %d bytes, different from byte %d on:\n got …%q…\nwant …%q…", len(got), len(want), n, cut(got), cut(want))
}
