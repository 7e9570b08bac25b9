package dockerparts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/crimux/crimux/backends/docker/crilog"
)

// logged follows the log of a container in a folder of the test's own.
type logged struct {
	*crilog.Manager
	t    *testing.T
	file crilog.File
	gaps atomic.Int64
}

func follow(t *testing.T, id string) *logged {
	t.Helper()
	c, err := engine.ContainerInspect(t.Context(), id)
	check(t, err)
	l := &logged{t: t, file: crilog.File{
		ContainerID: id, Source: c.LogPath, Target: filepath.Join(t.TempDir(), "pods", "ns_pod_uid", "c", "0.log"), Running: true,
	}}
	l.restart()
	t.Cleanup(func() { check(t, l.Close()) })
	return l
}

// restart puts a new manager in the place of the old one.
func (l *logged) restart() {
	l.t.Helper()
	if l.Manager != nil {
		check(l.t, l.Close())
	}
	m, err := crilog.New(crilog.Options{
		OnGap:   func(string, crilog.Gap) { l.gaps.Add(1) },
		OnError: func(id string, err error) { l.t.Errorf("log of %s: %v", id, err) },
	})
	check(l.t, err)
	l.Manager = m
	check(l.t, m.Follow(l.file))
}

// rotate does as the kubelet does.
func (l *logged) rotate(n int) {
	l.t.Helper()
	name := l.file.Target + "." + time.Date(2026, 1, 2, 0, 0, n, 0, time.UTC).Format("20060102-150405")
	check(l.t, os.Rename(l.file.Target, name))
	check(l.t, l.Reopen(l.t.Context(), l.file.ContainerID))
}

// lines returns the stream's text of the whole log, parts of lines joined.
func (l *logged) lines(stream string) []string {
	l.t.Helper()
	files, err := filepath.Glob(l.file.Target + ".*")
	check(l.t, err)
	slices.Sort(files)
	var text strings.Builder
	for _, f := range append(files, l.file.Target) {
		b, err := os.ReadFile(f)
		check(l.t, err)
		for _, line := range strings.SplitAfter(string(b), "\n") {
			if line == "" {
				continue
			}
			part := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
			if _, err := time.Parse(time.RFC3339Nano, part[0]); err != nil || len(part) != 4 {
				l.t.Fatalf("no CRI record: %q", line)
			}
			if part[1] == stream {
				text.WriteString(part[3])
				if part[2] == "F" {
					text.WriteByte('\n')
				}
			}
		}
	}
	return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
}

// ended waits for a container's end.
func ended(t *testing.T, id string) {
	t.Helper()
	eventually(t, "the container to end", func() bool { return pidOf(t, id) == 0 })
}

func logConfig(size, files string) container.LogConfig {
	return container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": size, "max-file": files}}
}

// TestLogIsComplete: the Engine rotates its log, the kubelet rotates ours, and
// crimux is restarted, all while the container prints.
func TestLogIsComplete(t *testing.T) {
	const n = 6000
	id := run(t, container.Config{Cmd: []string{"sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo out $i; echo err $i >&2; i=$((i+1)); [ $((i%%200)) = 0 ] && sleep 0.1; done", n)}},
		container.HostConfig{LogConfig: logConfig("60k", "50")})
	l := follow(t, id)
	for i := range 12 {
		time.Sleep(200 * time.Millisecond)
		if i%3 == 0 {
			l.restart()
		} else {
			l.rotate(i)
		}
	}
	ended(t, id)
	check(t, l.Finish(t.Context(), id))
	for stream, word := range map[string]string{"stdout": "out", "stderr": "err"} {
		lines := l.lines(stream)
		if len(lines) != n {
			t.Errorf("%d lines of %s, want %d", len(lines), stream, n)
		}
		for i, line := range lines {
			if line != fmt.Sprintf("%s %d", word, i) {
				t.Fatalf("line %d of %s: %q", i, stream, line)
			}
		}
	}
	if l.gaps.Load() != 0 {
		t.Errorf("%d gaps", l.gaps.Load())
	}
}

// TestLogOfLongLinesAndTerminals: lines that the Engine splits, an end without
// newline, and a terminal's.
func TestLogOfLongLinesAndTerminals(t *testing.T) {
	id := run(t, container.Config{Cmd: []string{"sh", "-c", "head -c 50000 /dev/zero | tr '\\0' x; echo; echo; echo é\\\"; printf end"}}, container.HostConfig{})
	l := follow(t, id)
	ended(t, id)
	check(t, l.Finish(t.Context(), id))
	if got := l.lines("stdout"); !slices.Equal(got, []string{strings.Repeat("x", 50000), "", "é\"", "end"}) {
		t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
	}
	id = run(t, container.Config{Cmd: []string{"sh", "-c", "echo one; echo two >&2; printf three"}, Tty: true}, container.HostConfig{})
	l = follow(t, id)
	ended(t, id)
	check(t, l.Finish(t.Context(), id))
	if got := l.lines("stdout"); !slices.Equal(got, []string{"one\r", "two\r", "three"}) {
		t.Errorf("terminal: %q", got)
	}
}

// inOrder collects what both streams of the Engine's own log hold, with its
// times and in its order.
type inOrder struct {
	stream string
	all    *[]string
}

// Write implements [io.Writer]. Each call is one record.
func (w inOrder) Write(p []byte) (int, error) {
	stamp, text, _ := strings.Cut(string(p), " ")
	*w.all = append(*w.all, stamp+" "+w.stream+" F "+text)
	return len(p), nil
}

// TestLogHasTheEnginesOrder: the records of both streams have the times and the
// order that the Engine gives them.
func TestLogHasTheEnginesOrder(t *testing.T) {
	id := run(t, container.Config{Cmd: []string{"sh", "-c", "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"}}, container.HostConfig{})
	l := follow(t, id)
	ended(t, id)
	check(t, l.Finish(t.Context(), id))
	said, err := engine.ContainerLogs(t.Context(), id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true})
	check(t, err)
	var want []string
	_, err = stdcopy.StdCopy(inOrder{"stdout", &want}, inOrder{"stderr", &want}, said)
	check(t, err)
	check(t, said.Close())
	b, err := os.ReadFile(l.file.Target)
	check(t, err)
	got := slices.Collect(strings.Lines(string(b)))
	if len(got) != 1000 || len(want) != 1000 {
		t.Fatalf("%d records, the Engine has %d", len(got), len(want))
	}
	for i := range got {
		// The Engine's API writes all nine digits, its file no more than it needs.
		a, x, _ := strings.Cut(got[i], " ")
		b, y, _ := strings.Cut(want[i], " ")
		at, err := time.Parse(time.RFC3339Nano, a)
		check(t, err)
		if at.Format("2006-01-02T15:04:05.000000000Z07:00") != b || x != y {
			t.Fatalf("record %d is %q, the Engine has %q", i, got[i], want[i])
		}
	}
}

// TestPartsAreMarked: a line that is longer than the Engine's buffer comes in
// parts of 16 KiB, of which all but the last are marked P.
func TestPartsAreMarked(t *testing.T) {
	id := run(t, container.Config{Cmd: []string{"sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo; echo z"}}, container.HostConfig{})
	l := follow(t, id)
	ended(t, id)
	check(t, l.Finish(t.Context(), id))
	b, err := os.ReadFile(l.file.Target)
	check(t, err)
	var got []string
	for line := range strings.Lines(string(b)) {
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		got = append(got, fmt.Sprint(part[2], " ", len(part[3])))
	}
	// A line of just the buffer's size has an end of its own.
	if want := []string{"P 16384", "P 16384", "F 7232", "P 16384", "F 0", "F 1"}; !slices.Equal(got, want) {
		t.Errorf("parts %q, want %q", got, want)
	}
}

// TestLogComesAtOnce: kubectl logs -f waits for nothing but the container.
func TestLogComesAtOnce(t *testing.T) {
	id := run(t, container.Config{Cmd: []string{"cat"}, OpenStdin: true}, container.HostConfig{})
	l := follow(t, id)
	c, err := engine.ContainerAttach(t.Context(), id, container.AttachOptions{Stream: true, Stdin: true})
	check(t, err)
	defer c.Close()
	var took []time.Duration
	for i := range 10 {
		text := fmt.Sprintf("line %d", i)
		begin := time.Now()
		_, err := fmt.Fprintln(c.Conn, text)
		check(t, err)
		eventually(t, "the line to come", func() bool {
			b, _ := os.ReadFile(l.file.Target)
			return strings.HasSuffix(string(b), text+"\n")
		})
		took = append(took, time.Since(begin))
	}
	// One or another may have had to wait for the machine.
	slices.Sort(took)
	t.Logf("lines took %v", took)
	if half := took[len(took)/2]; half > time.Second {
		t.Errorf("half of the lines took %v or more", half)
	}
}
