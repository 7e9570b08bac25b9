package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func TestTravelUsage(t *testing.T) {
	n := newNode(t)
	for _, tt := range []struct{ line, want string }{
		{"diff", "crimux diff: takes point A and perhaps point B"},
		{"diff 1 2 3", "takes point A and perhaps point B"},
		{"diff x", `"x" is no sequence number`},
		{"diff 9 3", "event 9 is after event 3: name the earlier point first"},
		{"diff 1h 2h", "name the earlier point first"},
		{"explain", "crimux explain: say which POD"},
		{"export now", "unknown argument"},
		{"export --since x", "invalid argument"},
		{"replay", "crimux replay: say which POD or FILE"},
		{"replay web", "--dry-run FILE folds"},
		{"events --kind exploded", `--kind: there is no kind "exploded": there are started, stopped, intent`},
		{"events --since x", `--since: "x" is no sequence number`},
		{"events --until 0", "--until: 0 is before the first event"},
	} {
		r := n.crimux(strings.Fields(tt.line)...)
		if r.code != exitUsage || r.out != "" {
			t.Errorf("crimux %s: exit %d, want %d; stdout %q", tt.line, r.code, exitUsage, r.out)
		}
		contains(t, r.errOut, tt.want)
	}
}

func TestTravelFailures(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	broken, empty := filepath.Join(dir, "broken"), filepath.Join(dir, "empty")
	export := n.crimux("export").out
	if err := os.WriteFile(broken, []byte(export[:len(export)-10]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ line, want string }{
		{"diff 3 99", "event 99 is not in the log, which ends at event 51"},
		{"diff 99", "event 99 is not in the log, which ends at event 51"},
		{"diff 2020-01-01", "the log begins after that, at 2026-05-01T12:00:00Z"},
		{"diff 2026-05-01T12:10:00Z 4", "point A is after point B"},
		{"explain nobody", `"nobody": no such pod in the log`},
		{"export --since 52", "event 52 is not in the log, which ends at event 51"},
		{"export --follow", "so that nothing is being recorded"},
		{"state --file " + broken, broken + ": line 52: not a sound export"},
		{"state --file " + empty, "it is empty"},
		{"state --file " + n.config, "neither a file that 'crimux export' wrote nor an event log"},
		{"replay --dry-run " + filepath.Join(dir, "none"), "no such file"},
		{"events --follow --file " + n.events, "a file is read, not the daemon, so that nothing is being recorded"},
	} {
		r := n.crimux(strings.Fields(tt.line)...)
		if r.code != exitFailed {
			t.Errorf("crimux %s: exit %d, want %d; stdout %q", tt.line, r.code, exitFailed, r.out)
		}
		contains(t, r.errOut, tt.want)
	}
}

// TestDryRun folds an export and a copy of a log, without a configuration.
func TestDryRun(t *testing.T) {
	n := newNode(t)
	exported := filepath.Join(t.TempDir(), "report.jsonl")
	if err := os.WriteFile(exported, []byte(n.crimux("export").out), 0o400); err != nil {
		t.Fatal(err)
	}
	want := n.crimux("state", "--json").out
	for _, file := range []string{exported, n.events} {
		r := crimux(t, "replay", "--dry-run", file, "--config", "/nowhere/at/all.yaml")
		if r.code != 0 {
			t.Fatalf("%+v", r)
		}
		contains(t, r.out, "51 events, 1 to 51, from 2026-05-01T12:00:00Z to 2026-05-01T12:17:18.702Z\nrecorded by crimux 0.1.0\n",
			"2 operations failed, 1 have no outcome\n", "staging      web")
		var report struct {
			Events, Failed uint64
			State          json.RawMessage
		}
		if err := json.Unmarshal([]byte(crimux(t, "replay", "--dry-run", "--json", file).out), &report); err != nil {
			t.Fatal(err)
		}
		if string(report.State)+"\n" != want || report.Events != 51 || report.Failed != 2 {
			t.Errorf("%s: another state than the log's, or %+v", file, report)
		}
	}
}

// TestExportFollows what is recorded, from where it was broken off.
func TestExportFollows(t *testing.T) {
	n := newNode(t)
	l, _ := n.daemon()
	lines, stop := n.following("export", "--follow", "--since", "51")
	lines.Scan()
	contains(t, lines.Text(), `"after":51`)
	if _, err := l.Append(&eventpb.Event{Kind: &eventpb.Event_Stopped{Stopped: &eventpb.Stopped{Reason: "for the test"}}}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines.Scan()
	contains(t, lines.Text(), `{"seq":52,`, "for the test")
	if code := stop(); code != 0 {
		t.Errorf("exit %d after ^C", code)
	}
}

// TestStateOfALongLog asks the daemon for its state, and gets it without the
// log being read.
func TestStateOfALongLog(t *testing.T) {
	n := newNode(t)
	fromFile := n.crimux("state", "--json").out
	n.daemon()
	src, err := openLog(t.Context(), n.config)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	src.log = nil // Reading it would be a panic.
	s, err := src.state()
	if err != nil || len(s.GetSandboxes()) != 4 {
		t.Errorf("%v, %v", s, err)
	}
	if fromDaemon := n.crimux("state", "--json").out; fromDaemon != fromFile {
		t.Errorf("the daemon says\n%s\nand the file\n%s", fromDaemon, fromFile)
	}
}

// TestCompletion asks for completions as a shell does, of the file and of the
// daemon, and where there is nothing to ask.
func TestCompletion(t *testing.T) {
	n, bare := newNode(t), newBareNode(t)
	ask := func() {
		t.Helper()
		for line, want := range map[string]string{
			"timeline ":               "default/web kube-system/dns staging/web",
			"explain kube":            "kube-system/dns",
			"explain we":              "web",
			"timeline 6d2f6":          "6d2f6c1e-0d3b-4c57-9d0e-2b1f7a3c5e90",
			"timeline web ":           "",
			"events --pod staging/":   "staging/web",
			"events --namespace s":    "staging",
			"events --backend ":       "containerd docker",
			"events --kind no":        "noticed",
			"events --kind health,pr": "health,probed",
		} {
			if got := n.complete(line); got != want {
				t.Errorf("%q: got %q, want %q", line, got, want)
			}
		}
	}
	ask()
	n.daemon()
	ask()
	if got := bare.complete("timeline "); got != "" {
		t.Errorf("without a log: %q", got)
	}
	if got := bare.complete("events --backend d"); got != "docker" {
		t.Errorf("without a log: %q", got)
	}
	bare.config = "/nowhere"
	if got := bare.complete("timeline "); got != "" {
		t.Errorf("without a configuration: %q", got)
	}
}

// complete returns what the shell would offer at the end of a line.
func (n *node) complete(line string) string {
	n.t.Helper()
	command, last, _ := cutLast(line)
	args := append([]string{"__completeNoDesc", command[0], "--config", n.config}, command[1:]...)
	r := crimux(n.t, append(args, last)...)
	if r.code != 0 {
		n.t.Errorf("%s: exit %d: %s", line, r.code, r.errOut)
	}
	var offered []string
	for l := range strings.Lines(r.out) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, ":") {
			offered = append(offered, l)
		}
	}
	return strings.Join(offered, " ")
}

func cutLast(line string) (before []string, last string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	return strings.Fields(line[:i]), line[i+1:], i >= 0
}

// TestProgress tells a person after a while how far it is, and leaves nothing.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	clock := time.Unix(0, 0)
	p := &progress{w: &out, now: func() time.Time { return clock }}
	p.begin()
	read := func(n int) {
		for range n {
			p.one()
		}
	}
	read(progressStep)
	if out.Len() > 0 {
		t.Errorf("at once: %q", out.String())
	}
	clock = clock.Add(progressAfter)
	read(progressStep)
	read(progressStep)
	p.end()
	if got, want := out.String(), eraseLine+"reading the log: 2048 events"+eraseLine; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var nobody *progress
	nobody.begin()
	nobody.one()
	nobody.end()
}

// TestStepDataIsAskedFor checks that an export has the data of steps only with
// the flag.
func TestStepDataIsAskedFor(t *testing.T) {
	n := newNode(t)
	const canary = "Q0FOQVJZ"
	if out := n.crimux("export").out; strings.Contains(out, canary) {
		t.Error("the data of steps is exported unasked")
	}
	r := n.crimux("export", "--step-data")
	contains(t, r.out, canary)
	file := filepath.Join(t.TempDir(), "whole.jsonl")
	if err := os.WriteFile(file, []byte(r.out), 0o600); err != nil {
		t.Fatal(err)
	}
	events := 0
	state, err := walkExport(t.Context(), file, func(*store.State, *eventpb.Event) error { events++; return nil })
	if err != nil || events != 51 || state.Seq() != 51 {
		t.Errorf("%d events, %v", events, err)
	}
}
