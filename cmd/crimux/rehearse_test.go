package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/proxy"
	"github.com/crimux/crimux/proxy/admin"
)

func TestEnvFile(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "env")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	v := func(name, value string) proxy.EnvVar { return proxy.EnvVar{Name: name, Value: value} }
	for _, tt := range []struct {
		name, text string
		want       []proxy.EnvVar
	}{
		{"empty", "", nil},
		{"only a line's end", "\n", nil},
		{"one", "A=1\n", []proxy.EnvVar{v("A", "1")}},
		{"no end of the last line", "A=1\nB=2", []proxy.EnvVar{v("A", "1"), v("B", "2")}},
		{"CRLF", "A=1\r\n\r\nB=2\r\n", []proxy.EnvVar{v("A", "1"), v("B", "2")}},
		{"comments and empty lines", "# A=0\n\n   \n  # B=0\nA=1 # not one\n", []proxy.EnvVar{v("A", "1 # not one")}},
		{"quotes are the value's", `A="1"` + "\nB='x y'\n", []proxy.EnvVar{v("A", `"1"`), v("B", "'x y'")}},
		{"blanks", " A = 1 \n", []proxy.EnvVar{v("A", " 1 ")}},
		{"no value", "A=\n", []proxy.EnvVar{v("A", "")}},
		{"more than one =", "A=b=c==\n", []proxy.EnvVar{v("A", "b=c==")}},
		{"twice, in order", "A=1\nB=2\nA=3\n", []proxy.EnvVar{v("A", "1"), v("B", "2"), v("A", "3")}},
		{"other characters", "Ä=ö\u00a0\n", []proxy.EnvVar{v("Ä", "ö\u00a0")}},
	} {
		got, err := readEnvFile(write(tt.text))
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
	for name, tt := range map[string]struct{ text, want string }{
		"no =":         {"A=1\n\nCANARY\n", "line 3 is not NAME=VALUE"},
		"no name":      {"=CANARY\n", "line 1 is not NAME=VALUE"},
		"export":       {"export A=CANARY\n", "line 1 has a name with a blank in it"},
		"not UTF-8":    {"A=CANARY\xff\n", "line 1 is no UTF-8 text"},
		"NUL":          {"A=CANARY\x00\n", "line 1 is no UTF-8 text"},
		"a long line":  {"A=1\nB=" + strings.Repeat("CANARY", maxEnvLine/4), "line 2: "},
		"a whole file": {"\x7fELF CANARY", "line 1 is not NAME=VALUE"},
	} {
		path := write(tt.text)
		got, err := readEnvFile(path)
		if err == nil || got != nil || !strings.HasPrefix(err.Error(), path+": "+tt.want) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := readEnvFile(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
	if got, err := readEnvFile(""); got != nil || err != nil {
		t.Errorf("not asked for: %v, %v", got, err)
	}
}

// FuzzEnvFile reads anything: no error quotes it, and what is taken comes back
// from its lines.
func FuzzEnvFile(f *testing.F) {
	f.Add("A=1\r\n# x\n B =\"2\"\n")
	f.Add("export A=1")
	f.Fuzz(func(t *testing.T, line string) {
		v, err := parseEnv(line)
		if err != nil {
			if len(line) > 40 && strings.Contains(err.Error(), line) {
				t.Errorf("the error quotes the line: %v", err)
			}
			return
		}
		if again, err := parseEnv(v.Name + "=" + v.Value); err != nil || again != v {
			t.Errorf("%q becomes %q, %v", v, again, err)
		}
	})
}

// fakeRehearser answers as it is told to, one at a time.
type fakeRehearser struct {
	report *proxy.Rehearsal
	err    error
	// ended, if set, has a rehearsal wait for its context's end, and is closed
	// then.
	ended chan struct{}

	one  sync.Mutex
	mu   sync.Mutex
	asks []proxy.RehearsalRequest
}

// Rehearse implements admin.Rehearser.
func (f *fakeRehearser) Rehearse(ctx context.Context, req proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error) {
	if !f.one.TryLock() {
		return nil, status.Error(codes.Aborted, "another rehearsal is under way: wait for its end")
	}
	defer f.one.Unlock()
	f.mu.Lock()
	f.asks = append(f.asks, req)
	f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	tell("making a sandbox on " + req.On)
	if f.ended != nil {
		<-ctx.Done()
		close(f.ended)
		return nil, ctx.Err()
	}
	tell("removing it")
	return f.report, nil
}

func (n *node) rehearses(f *fakeRehearser) {
	n.t.Helper()
	n.daemonWith(func(s *admin.Server) { s.ServeRehearsals(f) })
}

// agreed is the rehearsal that docs/replay.md shows.
func agreed() *proxy.Rehearsal {
	ok := func(d time.Duration) *proxy.Result { return &proxy.Result{Code: "OK", Nanoseconds: int64(d)} }
	return &proxy.Rehearsal{
		ID: "x1", Namespace: "default", Name: "web", From: "docker", On: "containerd", Level: proxy.LevelCreate, Agreed: true, Undone: true,
		Operations: []proxy.RehearsedOperation{
			{Method: "RunPodSandbox", Recorded: ok(412 * time.Millisecond), Rehearsed: ok(655 * time.Millisecond)},
			{Method: "CreateContainer", Container: "web", Recorded: ok(38 * time.Millisecond), Rehearsed: ok(61 * time.Millisecond)},
		},
		Containers: []proxy.RehearsedContainer{{Name: "web", Recorded: proxy.ContainerEnd{State: "running"}}},
		LeftOut: []string{
			"web: the mount of /var/lib/kubelet/pods/…/etc-hosts at /etc/hosts",
			"web: the service account at /var/run/secrets/kubernetes.io/serviceaccount",
		},
	}
}

// TestRehearsalInWords prints a rehearsal that agreed as docs/replay.md shows it.
func TestRehearsalInWords(t *testing.T) {
	n, f := newNode(t), &fakeRehearser{report: agreed()}
	n.rehearses(f)
	r := n.crimux("replay", "staging/web", "--on", "containerd", "--timeout", "3m", "--env-file", os.DevNull)
	if r.code != 0 || r.errOut != "making a sandbox on containerd\nremoving it\n" {
		t.Errorf("%+v", r)
	}
	doc, err := os.ReadFile("../../docs/replay.md")
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(doc), "making a sandbox on containerd\nmaking container web\nremoving it\n"+r.out+"```")
	want := proxy.RehearsalRequest{
		Sandbox: "bead000099cc00dd11ee22ff33aa44bb55cc66dd77ee88ff99aa00bb11cc22dd", On: "containerd", Level: proxy.LevelCreate, Timeout: 3 * time.Minute,
	}
	if got, wanted := asJSON(t, f.asks), asJSON(t, []proxy.RehearsalRequest{want}); got != wanted {
		t.Errorf("asked was for %s, want %s", got, wanted)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRehearsalThatDiffered prints what was not as recorded, was not recorded,
// is not known or is still there, with no control characters of a runtime's.
func TestRehearsalThatDiffered(t *testing.T) {
	report := &proxy.Rehearsal{
		Namespace: "default", Name: "web", From: "docker", On: "containerd", Level: proxy.LevelStart,
		Differences: []string{"StartContainer of app was OK, and is Internal: \x1b[31mno\nsuch file"},
		Operations: []proxy.RehearsedOperation{
			{Method: "RunPodSandbox", Rehearsed: &proxy.Result{Code: "OK", Nanoseconds: 1_500_000_000}},
			{Method: "StartContainer", Container: "app", Recorded: &proxy.Result{Code: "OK"}, Rehearsed: &proxy.Result{Code: "Internal", Nanoseconds: 3e6}},
		},
		Containers: []proxy.RehearsedContainer{
			{Name: "init", Recorded: proxy.ContainerEnd{State: "exited"}, Rehearsed: &proxy.ContainerEnd{State: "exited", ExitCode: 137, Reason: "OOMKilled"}},
			{Name: "app", Recorded: proxy.ContainerEnd{State: "running", Restarts: 3}},
		},
		Missing: []string{"app: config.envs"}, Notes: []string{"the image was copied"}, Owed: "containerd is away",
	}
	const want = `default/web of docker, rehearsed on containerd (level start, network down)

OPERATION       CONTAINER  RECORDED            REHEARSED
RunPodSandbox   -          not recorded        OK, 1.5s
StartContainer  app        OK, 0s              Internal, 3ms
state           init       exited with code 0  exited with code 137 (OOMKilled)
state           app        running             not started

not known of the pod, and not compared:
  app: config.envs

notes:
  the image was copied

differences:
  StartContainer of app was OK, and is Internal: �[31mno such file

some of it is still there, and is removed as soon as that can be done: containerd is away
`
	n, f := newNode(t), &fakeRehearser{report: report}
	n.rehearses(f)
	r := n.crimux("replay", "staging/web", "--on", "containerd", "--level", "start")
	if r.code != exitDiffered || r.out != want {
		t.Errorf("exit %d, got\n%s", r.code, r.out)
	}
	report.Network = true
	contains(t, n.crimux("replay", "staging/web", "--on", "containerd", "--level", "start", "--network").out, "(level start)\n")
	r = n.crimux("replay", "staging/web", "--on", "containerd", "--json")
	got := &proxy.Rehearsal{}
	if err := json.Unmarshal([]byte(r.out), got); err != nil || r.code != exitDiffered || asJSON(t, got) != asJSON(t, report) {
		t.Errorf("--json: %+v, %v", r, err)
	}
}

// TestRehearsalThatCannotBe has an exit code of its own, and says why.
func TestRehearsalThatCannotBe(t *testing.T) {
	n := newNode(t)
	env := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(env, []byte("CANARY\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fakeRehearser{err: status.Error(codes.NotFound, `there is no backend "nowhere"`)}
	check := func(line, want string, code int) {
		t.Helper()
		r := n.crimux(strings.Fields(line)...)
		if r.code != code || r.out != "" || strings.Contains(r.errOut, "CANARY") {
			t.Errorf("crimux %s: %+v", line, r)
		}
		contains(t, r.errOut, want)
	}
	check("replay staging/web --on containerd", "a rehearsal is carried out by the daemon: no daemon answers on "+n.sock, exitUnrehearsed)
	n.rehearses(f)
	check("replay staging/web --on nowhere", `crimux: there is no backend "nowhere"`, exitUnrehearsed)
	check("replay nobody --on containerd", `"nobody": no such pod in the log`, exitUnrehearsed)
	check("replay web --on containerd", `"web" names 2 pods that are there: write the uid of one: `, exitUnrehearsed)
	check("replay staging/web --on containerd --env-file "+env, env+": line 1 is not NAME=VALUE", exitUnrehearsed)
	check("replay staging/web --on containerd --env-file "+env+".not", "no such file", exitUnrehearsed)
	check("replay staging/web --on containerd --level run", `"run" is neither create nor start`, exitUsage)
	check("replay staging/web --on containerd --timeout 0s", "--timeout: 0s is no time", exitUsage)
	check("replay --dry-run --on containerd "+n.events, "--dry-run carries nothing out", exitUsage)
	if len(f.asks) != 1 {
		t.Errorf("the daemon was asked for %v", f.asks)
	}
}

// TestRehearsalInterrupted ends with ^C, and tells who clears up. While it is
// under way there is no second one.
func TestRehearsalInterrupted(t *testing.T) {
	n, f := newNode(t), &fakeRehearser{ended: make(chan struct{})}
	n.rehearses(f)
	ctx, cancel := context.WithCancel(t.Context())
	root := newRoot()
	var said lockedText
	root.SetErr(&said)
	root.SetArgs([]string{"replay", "staging/web", "--on", "containerd", "--config", n.config})
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(said.String(), "making a sandbox"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not begin")
		}
	}
	r := n.crimux("replay", "staging/web", "--on", "docker")
	if r.code != exitUnrehearsed || r.errOut != "crimux: another rehearsal is under way: wait for its end\n" {
		t.Errorf("a second one: %+v", r)
	}
	cancel()
	if err := <-done; err != (exitError{exitInterrupted}) {
		t.Errorf("after ^C: %v", err)
	}
	contains(t, said.String(), "interrupted: the daemon removes what was made")
	<-f.ended // by the daemon, too
}

// lockedText collects what is written by several.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
