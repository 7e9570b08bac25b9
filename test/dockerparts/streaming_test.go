package dockerparts

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/crimux/crimux/backends/docker/streaming"
)

// serve runs a streaming server for the time of a test.
func serve(t *testing.T) *streaming.Server {
	t.Helper()
	needEngine(t)
	s, err := streaming.New(streaming.Options{
		Engine: engine,
		SandboxPID: func(ctx context.Context, id string) (int, error) {
			c, err := engine.ContainerInspect(ctx, id)
			if err != nil {
				return 0, status.Error(codes.NotFound, err.Error())
			}
			return c.State.Pid, nil
		},
	})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			check(t, err)
		case <-time.After(time.Minute):
			t.Error("the server does not end")
		}
	})
	return s
}

// running counts processes on the node whose command line holds mark.
func running(mark string) (n int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if strings.Contains(string(b), mark) && !strings.HasPrefix(string(b), "runc\x00") {
			n++
		}
	}
	return n
}

func execURL(t *testing.T, s *streaming.Server, r *runtimeapi.ExecRequest) string {
	t.Helper()
	resp, err := s.Exec(r)
	check(t, err)
	return resp.Url
}

func TestExec(t *testing.T) {
	s, id := serve(t), sleeper(t)
	for name, c := range map[string]struct {
		cmd            []string
		in             string
		stdout, stderr string
		code           int
	}{
		"both streams and a code": {cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}, stdout: "out\n", stderr: "err\n", code: 7},
		"success":                 {cmd: []string{"true"}},
		"input to its end":        {cmd: []string{"cat"}, in: "some\nlines\n", stdout: "some\nlines\n"},
		"input not read":          {cmd: []string{"sh", "-c", "exit 3"}, in: strings.Repeat("x", 1<<20), code: 3},
		"killed":                  {cmd: []string{"sh", "-c", "kill -9 $$"}, code: 137},
		"streams closed early":    {cmd: []string{"sh", "-c", "exec >/dev/null 2>&1; sleep 0.3; exit 4"}, code: 4},
	} {
		t.Run(name, func(t *testing.T) {
			session := open(t, execURL(t, s, &runtimeapi.ExecRequest{ContainerId: id, Cmd: c.cmd, Stdin: c.in != "", Stdout: true, Stderr: true}),
				remotecommand.Options{Stdin: c.in != "", Stdout: true, Stderr: true})
			if c.in != "" {
				go func() {
					_, _ = io.WriteString(session.stdin, c.in)
					_ = session.stdin.Close()
				}()
			}
			o := session.end(t)
			if o.stdout != c.stdout || o.stderr != c.stderr || o.code() != c.code {
				t.Errorf("stdout %q, stderr %q, code %d (%s)", o.stdout, o.stderr, o.code(), o.Message)
			}
		})
	}
}

func TestExecNoSuchCommand(t *testing.T) {
	s, id := serve(t), sleeper(t)
	o := open(t, execURL(t, s, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"/nowhere"}, Stdout: true, Stderr: true}),
		remotecommand.Options{Stdout: true, Stderr: true}).end(t)
	if c := o.code(); c != 126 && c != 127 {
		t.Errorf("code %d, %q", c, o.Message)
	}
}

func TestExecOnWhatDoesNotRun(t *testing.T) {
	s := serve(t)
	ended := run(t, container.Config{Cmd: []string{"true"}}, container.HostConfig{})
	eventually(t, "the container to end", func() bool { return pidOf(t, ended) == 0 })
	for id, want := range map[string]string{ended: "is not running", "nobody": "No such container"} {
		o := open(t, execURL(t, s, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true}), remotecommand.Options{Stdout: true}).end(t)
		if o.Status != "Failure" || !strings.Contains(o.Message, want) {
			t.Errorf("exec: %q, want %q", o.Message, want)
		}
		a, err := s.Attach(&runtimeapi.AttachRequest{ContainerId: id, Stdout: true})
		check(t, err)
		o = open(t, a.Url, remotecommand.Options{Stdout: true}).end(t)
		if o.Status != "Failure" || !strings.Contains(o.Message, want) {
			t.Errorf("attach: %q, want %q", o.Message, want)
		}
	}
	for id, want := range map[string]codes.Code{ended: codes.FailedPrecondition, "nobody": codes.NotFound} {
		if _, err := s.ExecSync(t.Context(), id, []string{"true"}, time.Second); status.Code(err) != want {
			t.Errorf("ExecSync: %v, want %v", err, want)
		}
	}
}

// TestExecTerminal: size, resize, one output, and a hangup when the client
// goes away.
func TestExecTerminal(t *testing.T) {
	s, id := serve(t), sleeper(t)
	session := open(t, execURL(t, s, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"sh"}, Tty: true, Stdin: true, Stdout: true}),
		remotecommand.Options{TTY: true, Stdin: true, Stdout: true})
	for _, size := range []string{"33 101", "44 99"} {
		var rows, columns int
		_, err := fmt.Sscan(size, &rows, &columns)
		check(t, err)
		_, err = fmt.Fprintf(session.resize, `{"Width":%d,"Height":%d}`, columns, rows)
		check(t, err)
		_, err = io.WriteString(session.stdin, "until [ \"$(stty size)\" = '"+size+"' ]; do sleep 0.05; done; echo it-is-`echo so`\n")
		check(t, err)
		readUntil(t, session.stdout, "it-is-so")
	}
	_, err := io.WriteString(session.stdin, "sleep 31415\n")
	check(t, err)
	eventually(t, "the command to run", func() bool { return running("sleep\x0031415") == 1 })
	check(t, session.conn.Close())
	eventually(t, "the command to end with its terminal", func() bool { return running("sleep\x0031415") == 0 })
}

// TestExecClientGone: without a terminal the command sees the end of its input.
func TestExecClientGone(t *testing.T) {
	s, id := serve(t), sleeper(t)
	session := open(t, execURL(t, s, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"sh", "-c", "cat; : 27182"}, Stdin: true, Stdout: true}),
		remotecommand.Options{Stdin: true, Stdout: true})
	_, err := io.WriteString(session.stdin, "hello\n")
	check(t, err)
	readUntil(t, session.stdout, "hello")
	if running("27182") == 0 {
		t.Fatal("the command does not run")
	}
	check(t, session.conn.Close())
	eventually(t, "the command to end with its input", func() bool { return running("27182") == 0 })
}

func TestAttach(t *testing.T) {
	s := serve(t)
	id := run(t, container.Config{
		Cmd: []string{"sh", "-c", "while read line; do echo got $line; echo err $line >&2; done"}, OpenStdin: true, StdinOnce: true,
		AttachStdin: true, AttachStdout: true, AttachStderr: true,
	}, container.HostConfig{})
	a, err := s.Attach(&runtimeapi.AttachRequest{ContainerId: id, Stdin: true, Stdout: true, Stderr: true})
	check(t, err)
	session := open(t, a.Url, remotecommand.Options{Stdin: true, Stdout: true, Stderr: true})
	_, err = io.WriteString(session.stdin, "one\ntwo\n")
	check(t, err)
	check(t, session.stdin.Close()) // stdin_once: the container sees the end
	o := session.end(t)
	if o.stdout != "got one\ngot two\n" || o.stderr != "err one\nerr two\n" || o.Status != "Success" {
		t.Errorf("attach: %+v", o)
	}
}

func TestAttachTerminal(t *testing.T) {
	s := serve(t)
	id := run(t, container.Config{Cmd: []string{"sh"}, OpenStdin: true, Tty: true}, container.HostConfig{})
	for _, size := range []string{"33 101", "44 99"} { // without stdin_once the container stays, and can be attached to again
		a, err := s.Attach(&runtimeapi.AttachRequest{ContainerId: id, Tty: true, Stdin: true, Stdout: true})
		check(t, err)
		session := open(t, a.Url, remotecommand.Options{TTY: true, Stdin: true, Stdout: true})
		var rows, columns int
		_, err = fmt.Sscan(size, &rows, &columns)
		check(t, err)
		_, err = fmt.Fprintf(session.resize, `{"Width":%d,"Height":%d}`, columns, rows)
		check(t, err)
		_, err = io.WriteString(session.stdin, "until [ \"$(stty size)\" = '"+size+"' ]; do sleep 0.05; done; echo it-is-`echo so`\n")
		check(t, err)
		readUntil(t, session.stdout, "it-is-so")
		check(t, session.conn.Close())
	}
}

func TestExecSync(t *testing.T) {
	s, id := serve(t), sleeper(t)
	r, err := s.ExecSync(t.Context(), id, []string{"sh", "-c", "echo out; echo err >&2; exit 7"}, 10*time.Second)
	check(t, err)
	if string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" || r.ExitCode != 7 {
		t.Errorf("%+v", r)
	}
	if r, err = s.ExecSync(t.Context(), id, []string{"/nowhere"}, 0); err != nil || r.ExitCode != 126 && r.ExitCode != 127 {
		t.Errorf("no such command: %+v, %v", r, err)
	}
	begin := time.Now()
	const n = 20
	for range n {
		r, err := s.ExecSync(t.Context(), id, []string{"true"}, time.Minute)
		check(t, err)
		if r.ExitCode != 0 {
			t.Errorf("%+v", r)
		}
	}
	t.Logf("an ExecSync takes %v", time.Since(begin)/n)
}

func TestExecSyncCapsOutput(t *testing.T) {
	s, id := serve(t), sleeper(t)
	r, err := s.ExecSync(t.Context(), id, []string{"sh", "-c", "head -c 20000000 /dev/zero; head -c 17000000 /dev/zero >&2; exit 5"}, time.Minute)
	check(t, err)
	// Both together, less what frames a message of 16 MiB.
	if n := len(r.Stdout) + len(r.Stderr); n > 16<<20 || n < 16<<20-1<<12 || r.ExitCode != 5 {
		t.Errorf("%d and %d bytes, code %d", len(r.Stdout), len(r.Stderr), r.ExitCode)
	}
}

// TestExecSyncTimeout: whatever the command does, nothing of it is left.
func TestExecSyncTimeout(t *testing.T) {
	s, id := serve(t), sleeper(t)
	for name, script := range map[string]string{
		"child":            "sleep 16180",
		"exec":             "exec sleep 16180",
		"deaf":             "trap '' TERM INT HUP; sleep 16180; sleep 16180",
		"background":       "sleep 16180 & sleep 16180 & wait",
		"orphan":           "(sleep 16180 &) ; sleep 16180",
		"new session":      "setsid sleep 16180; :",
		"orphan and ended": "(sleep 16180 &) ; sleep 0.05",
		"forks":            "f() { while :; do (sleep 16180 &); sleep 0.01; done; }; f",
		"forks sessions":   "while :; do for i in 1 2 3 4 5; do setsid sleep 16180 & done; usleep 5000; done",
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			_, err := s.ExecSync(t.Context(), id, []string{"sh", "-c", script}, 300*time.Millisecond)
			if name != "orphan and ended" || err != nil {
				if status.Code(err) != codes.DeadlineExceeded {
					t.Fatalf("error %v", err)
				}
			}
			if d := time.Since(begin); d > 20*time.Second {
				t.Errorf("took %v", d)
			}
			if n := running("16180"); n != 0 {
				t.Errorf("%d processes left", n)
			}
		})
	}
}

func TestExecSyncCancelled(t *testing.T) {
	s, id := serve(t), sleeper(t)
	for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond, 200 * time.Millisecond} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(after, cancel)
		if _, err := s.ExecSync(ctx, id, []string{"sleep", "14142"}, 0); status.Code(err) != codes.Canceled {
			t.Errorf("after %v: %v", after, err)
		}
		if n := running("sleep\x0014142"); n != 0 {
			t.Errorf("after %v: %d processes left", after, n)
		}
	}
	time.Sleep(200 * time.Millisecond)
	if n := running("sleep\x0014142"); n != 0 {
		t.Errorf("%d processes came late", n)
	}
}

// counts returns the numbers of goroutines and open files.
func counts(t *testing.T) (goroutines, files int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return runtime.NumGoroutine(), len(fds)
}

// TestNothingLeaks: a thousand timeouts, and sessions that are left in every
// way, leave goroutines and open files as they were.
func TestNothingLeaks(t *testing.T) {
	s, id := serve(t), sleeper(t)
	round := func(timeouts int) {
		var busy sync.WaitGroup
		turns := make(chan struct{}, 16) // as many as a busy node's probes
		for range timeouts {
			turns <- struct{}{}
			busy.Go(func() {
				defer func() { <-turns }()
				if _, err := s.ExecSync(t.Context(), id, []string{"sleep", "17320"}, 20*time.Millisecond); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("error %v", err)
				}
			})
		}
		busy.Wait()
		for _, tty := range []bool{false, true} {
			session := open(t, execURL(t, s, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"cat"}, Tty: tty, Stdin: true, Stdout: true}),
				remotecommand.Options{TTY: tty, Stdin: true, Stdout: true})
			_, err := io.WriteString(session.stdin, "x\n")
			check(t, err)
			readUntil(t, session.stdout, "x")
			check(t, session.conn.Close())
		}
	}
	round(16)
	var goroutines, files int
	eventually(t, "the first round to end", func() bool {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		g, f := counts(t)
		settled := g == goroutines && f == files
		goroutines, files = g, f
		time.Sleep(200 * time.Millisecond)
		return settled
	})
	began := time.Now()
	round(1000)
	took := time.Since(began)
	var g, f int
	eventually(t, "goroutines and files to be as before", func() bool {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		g, f = counts(t)
		return g <= goroutines+2 && f <= files+2
	})
	t.Logf("in %v, goroutines %d then %d, files %d then %d", took, goroutines, g, files, f)
	if n := running("17320"); n != 0 {
		t.Errorf("%d processes left", n)
	}
}
