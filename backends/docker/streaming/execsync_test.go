package streaming

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// TestExitCodeComesLate: the Engine notes the end of a command later than the
// end of its streams. It is waited for, but not longer than it takes.
func TestExitCodeComesLate(t *testing.T) {
	f := newFake(t)
	f.stream = says("out", "err")
	f.inspect = func(n int) (container.ExecInspect, error) {
		return container.ExecInspect{Running: n < 5, ExitCode: 3, Pid: 1}, nil
	}
	r, err := newServer(t, f).ExecSync(t.Context(), "c", []string{"x"}, time.Minute)
	if err != nil || r.ExitCode != 3 || string(r.Stdout) != "out" || string(r.Stderr) != "err" {
		t.Errorf("%v, %v", r, err)
	}
	if f.inspects != 5 {
		t.Errorf("the Engine was asked %d times", f.inspects)
	}
}

// TestEngineHangs: an Engine that does not answer, at any step, holds nobody
// longer than the timeout, and leaves no goroutine.
func TestEngineHangs(t *testing.T) {
	before := runtime.NumGoroutine()
	for name, prepare := range map[string]func(f *fake){
		"create": func(f *fake) { f.create = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() } },
		"start":  func(*fake) {},
		"stream": func(f *fake) { f.stream = func(_ *http.Request, c net.Conn) { _, _ = io.Copy(io.Discard, c) } },
		"exit": func(f *fake) {
			f.stream = says("", "")
			f.inspect = func(int) (container.ExecInspect, error) {
				return container.ExecInspect{Running: true, Pid: 1 << 30, ContainerID: "c"}, nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.inspect = func(int) (container.ExecInspect, error) { return container.ExecInspect{ExitCode: 127}, nil }
			prepare(f)
			begin := time.Now()
			_, err := newServer(t, f).ExecSync(t.Context(), "c", []string{"x"}, 50*time.Millisecond)
			if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "50ms") {
				t.Errorf("error %v", err)
			}
			if d := time.Since(begin); d > 20*time.Second { // and none of it answers in an hour
				t.Errorf("took %v", d)
			}
			f.web.CloseClientConnections()
		})
	}
	// The fake's own handlers sleep on in one of the cases.
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before+12; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("goroutines %d then %d", before, runtime.NumGoroutine())
		}
	}
}

// late is a context whose time is up and that has not noticed, as there is for a
// moment.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

// TestConnectionNotesTheTimeFirst: then it is the time that was up, and not the
// Engine that is away.
func TestConnectionNotesTheTimeFirst(t *testing.T) {
	timeout := &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	if err := engineError(late{t.Context()}, "connect", timeout); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("time up: %v", err)
	}
	if err := engineError(t.Context(), "connect", timeout); status.Code(err) != codes.Unavailable {
		t.Errorf("no time given: %v", err)
	}
	f := newFake(t)
	f.create = func(context.Context) error { return timeout }
	if _, err := newServer(t, f).ExecSync(late{t.Context()}, "c", []string{"x"}, 0); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("ExecSync: %v", err)
	}
}

func TestEngineRefuses(t *testing.T) {
	for refuse, want := range map[int]codes.Code{
		http.StatusNotFound: codes.NotFound, http.StatusConflict: codes.FailedPrecondition, http.StatusBadRequest: codes.InvalidArgument,
		http.StatusInternalServerError: codes.Unknown, http.StatusServiceUnavailable: codes.Unavailable,
	} {
		f := newFake(t)
		f.refuse = refuse
		f.inspect = func(int) (container.ExecInspect, error) { return container.ExecInspect{}, errdefs.ErrNotFound }
		_, err := newServer(t, f).ExecSync(t.Context(), "c", []string{"x"}, time.Minute)
		if status.Code(err) != want || !strings.Contains(err.Error(), "said the Engine") {
			t.Errorf("%d: %v, want %v", refuse, err, want)
		}
	}
	for refuse, want := range map[error]codes.Code{
		errdefs.ErrNotFound: codes.NotFound, errdefs.ErrConflict: codes.FailedPrecondition, errdefs.ErrInvalidArgument: codes.InvalidArgument,
		errdefs.ErrUnavailable: codes.Unavailable, errors.New("x"): codes.Unknown, &net.OpError{Op: "dial", Err: errors.New("x")}: codes.Unavailable,
	} {
		f := newFake(t)
		f.create = func(context.Context) error { return refuse }
		if _, err := newServer(t, f).ExecSync(t.Context(), "c", []string{"x"}, time.Minute); status.Code(err) != want {
			t.Errorf("%v: %v, want %v", refuse, err, want)
		}
	}
}

// TestEngineBreaksOff: a stream that ends in the middle of a frame is an error
// and not a short output.
func TestEngineBreaksOff(t *testing.T) {
	f := newFake(t)
	f.stream = func(_ *http.Request, c net.Conn) {
		_, _ = io.WriteString(stdcopy.NewStdWriter(c, stdcopy.Stdout), "whole")
		_, _ = c.Write([]byte{1, 0, 0, 0, 0, 0, 0, 99, 'h', 'a', 'l', 'f', 9, 9, 9})
		_, _ = c.Write([]byte{77, 77, 77, 77, 77, 77, 77, 77, 77})
		_, _ = io.WriteString(c, strings.Repeat("rubbish", 100))
	}
	f.inspect = func(int) (container.ExecInspect, error) { return container.ExecInspect{ExitCode: 127}, nil }
	if r, err := newServer(t, f).ExecSync(t.Context(), "c", []string{"x"}, time.Minute); err == nil {
		t.Errorf("%q was taken as output", r.Stdout)
	}
}

// TestKillSparesOthers: a process id that is not of the container is left
// alone, whatever the Engine says.
func TestKillSparesOthers(t *testing.T) {
	bystander := exec.Command("sleep", "600")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = bystander.Process.Kill()
		_ = bystander.Wait()
	}()
	f := newFake(t)
	f.stream = func(_ *http.Request, c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	f.inspect = func(int) (container.ExecInspect, error) {
		return container.ExecInspect{Running: true, Pid: bystander.Process.Pid, ContainerID: strings.Repeat("f", 64)}, nil
	}
	s := newServer(t, f)
	if _, err := s.ExecSync(t.Context(), "c", []string{"x"}, 20*time.Millisecond); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("error %v", err)
	}
	if err := s.hangup(t.Context(), &execution{id: "x", asked: true}, true); err != nil {
		t.Error(err)
	}
	if p, err := look(bystander.Process.Pid); err != nil || p.dead {
		t.Errorf("the bystander is gone: %+v, %v", p, err)
	}
}

func TestParseStat(t *testing.T) {
	p, err := look(os.Getpid())
	if err != nil || p.parent != os.Getppid() || p.started == 0 || p.dead {
		t.Errorf("own process: %+v, %v", p, err)
	}
	tail := " 7 8 9 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0"
	for text, want := range map[string]process{
		"5 (sh) S" + tail:       {pid: 5, parent: 7, session: 9, started: 4242},
		"5 (sh) T" + tail:       {pid: 5, parent: 7, session: 9, started: 4242, stopped: true},
		"5 (a) b (c) Z" + tail:  {pid: 5, parent: 7, session: 9, started: 4242, dead: true},
		"5 (x) 1 2 3) X" + tail: {pid: 5, parent: 7, session: 9, started: 4242, dead: true},
	} {
		if got, err := parseStat(5, []byte(text)); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5 (sh", "5 (sh) S 1 2", "5 (sh) S x 8 9" + tail, strings.Replace("5 (sh) S"+tail, "4242", "x", 1)} {
		if got, err := parseStat(5, []byte(text)); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("5 (sh) S 7 8 9 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseStat(1, b) })
}

// TestCapped: what is kept of both streams fits the message that a kubelet
// takes, and no byte less than there is room for.
func TestCapped(t *testing.T) {
	left := maxOutput
	stdout, stderr := capped{left: &left}, capped{left: &left}
	part := make([]byte, 5<<20)
	for range 2 {
		for _, w := range []*capped{&stdout, &stderr} {
			if n, err := w.Write(part); n != len(part) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
	}
	answer := &runtimeapi.ExecSyncResponse{Stdout: stdout.b, Stderr: stderr.b, ExitCode: -1}
	if size := proto.Size(answer); len(stdout.b) != 10<<20 || len(stdout.b)+len(stderr.b) != maxOutput || size > 16<<20 {
		t.Errorf("%d and %d bytes, a message of %d", len(stdout.b), len(stderr.b), size)
	}
}

// TestFollowRetriesTheFirstSize: it comes before the command runs.
func TestFollowRetriesTheFirstSize(t *testing.T) {
	f := newFake(t)
	sizes := make(chan remotecommand.TerminalSize, 2)
	sizes <- remotecommand.TerminalSize{Width: 80, Height: 25}
	close(sizes)
	follow(t.Context(), sizes, func(ctx context.Context, o container.ResizeOptions) error {
		return f.ContainerExecResize(ctx, "x", o)
	})
	if len(f.sizes) != 3 || f.sizes[2] != (container.ResizeOptions{Width: 80, Height: 25}) {
		t.Errorf("sizes %v", f.sizes)
	}
}
