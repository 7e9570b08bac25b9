package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/store/eventpb"
)

var update = flag.Bool("update", false, "write the golden files anew")

// transcript are command lines whose output testdata/transcript.txt has. None
// depends on the time of day.
var transcript = []string{
	"events --absolute",
	"events --absolute --tail 3",
	"events --absolute --from 44 --backend containerd",
	"events --absolute --pod staging/web",
	"events --json --pod bead0000",
	"timeline default/web --absolute",
	"timeline containerd://77aa88bb --absolute",
	"timeline bead0000 --json",
	"state --at 33 --containers",
	"state --at 2026-05-01T12:00:10Z",
	"state --at 4",
	"state --at 6 --json",
	"events --absolute --failed",
	"events --absolute --kind health,policy --since 3 --until 33",
	"events --absolute --namespace staging --since 2026-05-01T12:17:00Z",
	"timeline kube-system/dns --absolute",
	"diff 20 33",
	"diff 33 50 --json",
	"diff 50 2026-05-02",
	"explain default/web --absolute",
	"explain kube-system/dns --json --absolute",
	"export --since 49",
	"verify --json",
}

// TestTranscript runs every command on the file and through the daemon: what
// they print must be the same, and as recorded.
func TestTranscript(t *testing.T) {
	n := newNode(t)
	fromFile := n.transcript()
	exported := filepath.Join(t.TempDir(), "export.jsonl")
	if err := os.WriteFile(exported, []byte(n.crimux("export").out), 0o600); err != nil {
		t.Fatal(err)
	}
	n.daemon()
	if fromDaemon := n.transcript(); fromDaemon != fromFile {
		t.Errorf("the daemon's answers differ from the file's:\n%s", fromDaemon)
	}
	n.config = filepath.Join(t.TempDir(), "there-is-none.yaml")
	for _, line := range transcript {
		if strings.HasPrefix(line, "verify") || strings.HasPrefix(line, "export") {
			continue
		}
		r := n.crimux(append(strings.Fields(line), "--file", exported)...)
		if r.code != 0 || !strings.Contains(fromFile, "$ crimux "+line+"\n"+r.out+"\n") {
			t.Errorf("crimux %s says something else of the export: %+v", line, r)
		}
	}
	compareGolden(t, "testdata/transcript.txt", fromFile)
	for _, canary := range []string{"CANARY", "Q0FOQVJZ", "\x1b"} {
		if strings.Contains(fromFile, canary) {
			t.Errorf("%q is in the output", canary)
		}
	}
}

// compareGolden compares got with a file, or with -update writes it.
func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", path, got)
	}
}

func (n *node) transcript() string {
	var b strings.Builder
	for _, line := range transcript {
		r := n.crimux(strings.Fields(line)...)
		if r.code != 0 || r.errOut != "" {
			n.t.Errorf("crimux %s: exit %d, %s", line, r.code, r.errOut)
		}
		fmt.Fprintf(&b, "$ crimux %s\n%s\n", line, r.out)
	}
	return b.String()
}

// TestNow runs what depends on the time of day on events of three minutes ago.
func TestNow(t *testing.T) {
	n := newBareNode(t)
	l, _ := n.daemon()
	ago := time.Now().Add(-3*time.Minute - time.Second).UnixNano()
	_, err := l.Append(
		&eventpb.Event{Time: ago, Kind: &eventpb.Event_Started{Started: &eventpb.Started{Version: "1", Pid: 7, BootId: "b"}}},
		&eventpb.Event{Time: ago, Backend: "docker", Op: "o", Kind: &eventpb.Event_Intent{Intent: &eventpb.Intent{
			Method: "RunPodSandbox", Pod: &eventpb.PodKey{Namespace: "default", Name: "web", Uid: "u"},
		}}},
	).Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	contains(t, n.crimux("events").out, "1    3m ago  -        -            Started        crimux 1, pid 7\n")
	contains(t, n.crimux("state").out, "no pods\n", "RunPodSandbox  default/web  docker   3m ago  2    o\n")
	contains(t, n.crimux("timeline", "web").out, ", 3m ago\n", "+0s  2    docker   RunPodSandbox  -     no outcome yet\n")
	contains(t, n.crimux("verify").out, "sound: 2 events, 1 to 2, head ", "operations without an outcome:\n", "3m ago  2    o\n")
	if r := n.crimux("state", "--at", "4m"); r.code != exitFailed {
		t.Errorf("exit %d, want %d", r.code, exitFailed)
	} else {
		contains(t, r.errOut, "the log begins after that")
	}
	contains(t, n.crimux("state", "--at", "2m").out, "after event 2, ", "1m ago  2    o\n")
}

func TestStateJSON(t *testing.T) {
	n := newNode(t)
	var state struct {
		Seq       string
		Sandboxes []struct{ ID string }
	}
	if err := json.Unmarshal([]byte(n.crimux("state", "--json").out), &state); err != nil {
		t.Fatal(err)
	}
	if state.Seq != "51" || len(state.Sandboxes) != 4 {
		t.Errorf("got %+v, want event 51 and 4 sandboxes", state)
	}
}

func TestFollow(t *testing.T) {
	for _, args := range [][]string{{"events", "--follow"}, {"events", "-f", "--json"}} {
		n := newNode(t)
		l, _ := n.daemon()
		lines, stop := n.following(append(args, "--tail", "1")...)
		for lines.Scan() && !strings.Contains(lines.Text(), "51") {
			t.Log("skipping", lines.Text())
		}
		if _, err := l.Append(&eventpb.Event{Kind: &eventpb.Event_Stopped{Stopped: &eventpb.Stopped{Reason: "for the test"}}}).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		lines.Scan()
		contains(t, lines.Text(), "52", "for the test")
		if code := stop(); code != 0 {
			t.Errorf("%v: exit %d after ^C, want 0", args, code)
		}
	}
}

func TestFollowEndsWithDaemon(t *testing.T) {
	n := newNode(t)
	_, stopDaemon := n.daemon()
	lines, stop := n.following("events", "--follow", "--tail", "1")
	lines.Scan()
	lines.Scan()
	contains(t, lines.Text(), "51")
	stopDaemon()
	if lines.Scan() {
		t.Errorf("more after the daemon's end: %s", lines.Text())
	}
	if code := stop(); code != exitFailed {
		t.Errorf("exit %d, want %d", code, exitFailed)
	}
}

// TestClosedPipe checks that nobody complains when the reader has seen enough.
func TestClosedPipe(t *testing.T) {
	n := newNode(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sh := exec.Command("sh", "-c", `for i in 1 2 3 4 5 6 7 8 9; do "$0" events --config "$1"; done | head -1`, exe, n.config)
	sh.Env = append(os.Environ(), asProgram+"=1")
	var stderr strings.Builder
	sh.Stderr = &stderr
	out, err := sh.Output()
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(out), "SEQ")
	if stderr.Len() > 0 {
		t.Errorf("stderr: %s", stderr.String())
	}
}

// TestHelp checks that every command says what it does and how it is used.
func TestHelp(t *testing.T) {
	var all func(c *cobra.Command)
	all = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			all(sub)
		}
		if c.HasParent() && !c.HasSubCommands() && c.Name() != "serve" && (c.Short == "" || c.Long == "" || c.Example == "") {
			t.Errorf("%s lacks a description or an example", c.CommandPath())
		}
	}
	all(newRoot())
}
