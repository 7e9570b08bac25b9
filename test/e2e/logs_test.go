package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/node"
)

// printer is a container that prints its log as the files in a folder of the
// host's tell it to.
type printer struct {
	*node.Pod
	t   *testing.T
	dir string
}

// runPrinter runs a pod on Docker whose container runs script, with the files
// that tell makes in /tell.
func runPrinter(t *testing.T, n *node.Node, name, logs, script string) *printer {
	t.Helper()
	p := &printer{t: t, dir: t.TempDir()}
	c := node.ContainerConfig("main", shared.Image("busybox"), "sh", "-c", script)
	c.Mounts = []*runtimeapi.Mount{{HostPath: p.dir, ContainerPath: "/tell", Readonly: true}}
	var err error
	if p.Pod, err = n.RunPod(t.Context(), "docker", node.PodConfig(name, logs), c); err != nil {
		t.Fatal(err)
	}
	return p
}

// tell lets the script see a file.
func (p *printer) tell(name string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), nil, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// rename is the first half of the kubelet's rotation.
func (p *printer) rename(serial int) {
	p.t.Helper()
	to := p.LogPath + "." + time.Date(2026, 1, 2, 15, 4, serial, 0, time.UTC).Format("20060102-150405")
	if err := os.Rename(p.LogPath, to); err != nil {
		p.t.Fatal(err)
	}
}

// reopen is its second half.
func (p *printer) reopen(n *node.Node) {
	p.t.Helper()
	if _, err := n.ReopenContainerLog(p.t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: p.Container}); err != nil {
		p.t.Fatal(err)
	}
}

// size is how much there is of the log now, rotated files included.
func (p *printer) size() (sum int64) {
	p.t.Helper()
	for _, f := range p.files() {
		if st, err := os.Stat(f); err == nil {
			sum += st.Size()
		}
	}
	return sum
}

// files are the rotated files, the oldest first, and the current one.
func (p *printer) files() []string {
	p.t.Helper()
	all, err := filepath.Glob(p.LogPath + ".*")
	if err != nil {
		p.t.Fatal(err)
	}
	slices.Sort(all)
	return append(all, p.LogPath)
}

// lines hands every line's text to see, the oldest first.
func (p *printer) lines(see func(text string)) {
	p.t.Helper()
	for _, name := range p.files() {
		f, err := os.Open(name)
		if err != nil {
			p.t.Fatal(err)
		}
		s := bufio.NewScanner(f)
		for s.Scan() {
			part := strings.SplitN(s.Text(), " ", 4)
			if len(part) != 4 || part[1] != "stdout" || part[2] != "F" {
				p.t.Fatalf("%s has %q", name, s.Text())
			}
			see(part[3])
		}
		if err := s.Err(); err != nil {
			p.t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			p.t.Fatal(err)
		}
	}
}

// numbers are the log's lines, which are numbers but for the last, the word
// end; ended says whether that is there.
func (p *printer) numbers() (all []int, ended bool) {
	p.t.Helper()
	p.lines(func(text string) {
		if ended {
			p.t.Fatalf("%q after the end", text)
		}
		if ended = text == "end"; ended {
			return
		}
		i, err := strconv.Atoi(text)
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, i)
	})
	return all, ended
}

// last is the end of the current file.
func (p *printer) last() string {
	f, err := os.Open(p.LogPath)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	b := make([]byte, min(st.Size(), 200))
	if _, err := f.ReadAt(b, st.Size()-int64(len(b))); err != nil {
		return ""
	}
	text := strings.TrimSuffix(string(b), "\n")
	return text[strings.LastIndexByte(text, ' ')+1:]
}

// waitFor waits until the log's last line is text.
func (p *printer) waitFor(text string, bound time.Duration) {
	p.t.Helper()
	for began := time.Now(); p.last() != text; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > bound {
			p.t.Fatalf("after %v the log of %s does not end with %q but with %q", bound, p.Config.Metadata.Name, text, p.last())
		}
	}
}

// printed checks that the Engine has a line of at least that number.
func (p *printer) printed(least int) error {
	r, err := shared.Docker().ContainerLogs(p.t.Context(), p.Container, container.LogsOptions{ShowStdout: true, Tail: "1"})
	if err != nil {
		return err
	}
	defer r.Close()
	var out strings.Builder
	if _, err := stdcopy.StdCopy(&out, &out, r); err != nil {
		return err
	}
	if n, err := strconv.Atoi(strings.TrimSpace(out.String())); err != nil || n < least {
		return &notYet{out.String()}
	}
	return nil
}

// grows waits until more is written to the log.
func (p *printer) grows() {
	p.t.Helper()
	before := p.size()
	eventually(p.t, "the log of "+p.Config.Metadata.Name+" grows", func() error {
		if now := p.size(); now <= before {
			return &notYet{now}
		}
		return nil
	})
}

// TestLogSurvivesKills: a container prints as fast as it can while the daemon
// is killed ten times, and the kubelet rotates the log, once with a kill
// between its two steps. Every line is there once and in its place.
func TestLogSurvivesKills(t *testing.T) {
	n := startKeeping(t, "4m", 50)
	// At full speed but for short rests, and longer ones where the kills take
	// their time, so that it lasts; at most 2 million lines, which is below what
	// the Engine keeps, in many files.
	p := runPrinter(t, n, "counter", logs(t), `i=0; until [ -e /tell/end ] || [ $i = 400 ]; do
		seq $((i*5000)) $((i*5000+4999)); i=$((i+1)); if [ $i -lt 200 ]; then sleep 0.04; else sleep 0.5; fi; done; echo end`)
	for kill := range 10 {
		p.grows()
		if kill == 3 {
			p.rename(kill)
			p.reopen(n)
			p.grows()
		}
		time.Sleep(time.Duration(rand.N(200)) * time.Millisecond)
		if kill == 6 {
			p.rename(kill)
		}
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		if kill == 9 {
			p.tell("end")
		}
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if kill == 6 {
			if err := n.WaitBackends(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.reopen(n)
		}
	}
	p.waitFor("end", 90*time.Second)
	all, _ := p.numbers()
	for i, got := range all {
		if got != i {
			t.Fatalf("line %d of %d is %d", i, len(all), got)
		}
	}
	if len(all) < 50_000 || len(all)%5000 != 0 || len(all) == 2_000_000 {
		t.Errorf("the container printed %d lines: it ended too early, or not as it was told", len(all))
	}
	if got := len(p.files()); got != 3 {
		t.Errorf("there are %d files", got)
	}
	t.Logf("%d lines", len(all))
	if e := noticed(t, n); len(e) != 0 {
		t.Errorf("noticed %+v", e)
	}
}

// notice is a noticed event, as `crimux events --json` prints it.
type notice struct {
	ContainerID string
	Detail      struct {
		Name  string
		Count uint64 `json:",string"`
	}
}

// noticed are those of the node.
func noticed(t *testing.T, n *node.Node) (all []notice) {
	t.Helper()
	out, err := n.Run(t.Context(), "events", "--json")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		var e struct {
			Kind        string
			ContainerID string
			Detail      json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if e.Kind != "noticed" {
			continue
		}
		seen := notice{ContainerID: e.ContainerID}
		if err := json.Unmarshal(e.Detail, &seen.Detail); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		all = append(all, seen)
	}
	return all
}

// TestOutrunLogHasACountedGap: while the daemon is away the container prints
// more than the Engine keeps. What is lost is told, the rest is there once.
func TestOutrunLogHasACountedGap(t *testing.T) {
	n := startKeeping(t, "64k", 2)
	p := runPrinter(t, n, "outrun", logs(t), `i=0; until [ -e /tell/end ]; do
		if [ -e /tell/burst ] && [ -z "$done" ]; then done=1; seq $i $((i+49999)); i=$((i+50000)); fi
		echo $i; i=$((i+1)); sleep 0.02; done; echo end`)
	p.grows()
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	p.tell("burst")
	eventually(t, "the Engine has more than it keeps", func() error { return p.printed(50_000) })
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.grows()
	p.tell("end")
	p.waitFor("end", 30*time.Second)
	all, _ := p.numbers()
	holes := 0
	for i := 1; i < len(all); i++ {
		if all[i] <= all[i-1] {
			t.Fatalf("%d follows %d", all[i], all[i-1])
		}
		if all[i] != all[i-1]+1 {
			holes++
		}
	}
	if holes != 1 || all[0] != 0 || all[len(all)-1] < 50_000 {
		t.Errorf("%d holes in the lines from %d to %d", holes, all[0], all[len(all)-1])
	}
	eventually(t, "the gap is told of", func() error {
		e := noticed(t, n)
		if len(e) != 1 || e[0].Detail.Name != "log.gap" || e[0].ContainerID != p.Container || e[0].Detail.Count != 1 {
			return &notYet{fmt.Sprintf("%+v", e)}
		}
		return nil
	})
}

// startKeeping starts a node on Docker, of which the Engine keeps so much of
// each container's log.
func startKeeping(t *testing.T, size string, files int) *node.Node {
	t.Helper()
	before, err := shared.Footprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := prepare(t, shared, node.Options{NoContainerd: true})
	t.Cleanup(func() { leavesNothing(t, shared, n, before) })
	b, err := os.ReadFile(n.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	keep := fmt.Sprintf("    type: docker\n    logs: {maxSize: %s, maxFiles: %d}\n", size, files)
	b = []byte(strings.Replace(string(b), "    type: docker\n", keep, 1))
	if err := os.WriteFile(n.ConfigFile, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitBackends(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}
