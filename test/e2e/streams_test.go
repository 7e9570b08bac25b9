package e2e

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/node"
	"github.com/crimux/crimux/test/stream"
)

// TestFailedSessionsLeaveNoTrace: what a session's command or the Engine said of
// it reaches the session's client, and not the daemon's log.
func TestFailedSessionsLeaveNoTrace(t *testing.T) {
	n := start(t, node.Options{NoContainerd: true})
	p := runSleep(t, n, "docker", "quiet")
	e, err := n.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: p.Container, Cmd: []string{"/secret"}, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := stream.Pipe(e.Url, ""); err != nil || !strings.Contains(out, "/secret") {
		t.Errorf("the client is told %q, %v", out, err)
	}
	f, err := n.PortForward(t.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: p.Sandbox})
	if err != nil {
		t.Fatal(err)
	}
	// Nobody listens there.
	if out, _ := stream.Forward(f.Url, 9, "x"); out != "" {
		t.Errorf("port 9 answers %q", out)
	}
	if _, err := stream.Pipe(e.Url, ""); err == nil {
		t.Error("a URL is good for two sessions")
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(n.Output()) {
		if !strings.HasPrefix(line, "time=") || strings.Contains(line, "secret") || strings.Contains(line, "port 9") {
			t.Errorf("the daemon printed %q", line)
		}
	}
}

// TestExecSyncOutputFitsTheMessage: a probe that prints more than a kubelet
// takes in one message has its exit code all the same.
func TestExecSyncOutputFitsTheMessage(t *testing.T) {
	n := start(t, node.Options{NoContainerd: true})
	p := runSleep(t, n, "docker", "verbose")
	r, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: p.Container, Cmd: []string{"sh", "-c", "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 5"}, Timeout: 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.Stdout) + len(r.Stderr); n < 15<<20 || r.ExitCode != 5 {
		t.Errorf("%d bytes, code %d", n, r.ExitCode)
	}
}
