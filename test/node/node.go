// Package node runs a crimux daemon over a lab's engines, as a process of its
// own that can be killed, for the end-to-end tests, the demo and the
// benchmarks.
package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
)

// ready bounds the wait for the daemon's socket, for its backends and for its
// end: a second on an idle machine, and much more on a busy one.
const ready = time.Minute

// maxMessage is the kubelet's own limit.
const maxMessage = 16 << 20

// Node is a daemon with its folder. Its methods are for one goroutine.
type Node struct {
	runtimeapi.RuntimeServiceClient
	Images runtimeapi.ImageServiceClient
	// Conn is the connection that both clients use.
	Conn *grpc.ClientConn
	// Dir holds the configuration, the state and the sockets.
	Dir                    string
	Socket, AdminSocket    string
	ConfigFile, EventsFile string
	binary                 string
	cmd                    *exec.Cmd
	exited                 chan struct{}
	output                 *syncBuffer
}

// Options choose the backends of a node; the zero value has both.
type Options struct {
	NoDocker, NoContainerd bool
	// Default names the default backend; "" is docker, or containerd where
	// there is no docker.
	Default string
	// Extra is added to the configuration.
	Extra string
	// StateDir is the daemon's; "" is one below its folder.
	StateDir string
}

// New writes the configuration of a node over l's engines into dir and starts
// nothing. The binary is built with Build.
func New(l *lab.Lab, dir, binary string, o Options) (*Node, error) {
	o.StateDir = cmp.Or(o.StateDir, filepath.Join(dir, "state"))
	n := &Node{
		Dir: dir, binary: binary,
		Socket: filepath.Join(dir, "crimux.sock"), AdminSocket: filepath.Join(dir, "admin.sock"),
		ConfigFile: filepath.Join(dir, "config.yaml"), EventsFile: filepath.Join(o.StateDir, "events.db"),
		output: new(syncBuffer),
	}
	if err := os.WriteFile(n.ConfigFile, []byte(n.config(l, o)), 0o600); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix://"+n.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, err
	}
	n.Conn = conn
	n.RuntimeServiceClient, n.Images = runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
	return n, nil
}

func (n *Node) config(l *lab.Lab, o Options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: crimux.dev/v1\nkind: Config\nlisten: unix://%s\nadminListen: unix://%s\nstateDir: %s\nbackends:\n",
		n.Socket, n.AdminSocket, o.StateDir)
	routes := ""
	if !o.NoDocker {
		fmt.Fprintf(&b, "  docker:\n    type: docker\n    endpoint: unix://%s\n    cni: {confDir: %s, binDirs: [%s], cacheDir: %s}\n    podInfraImage: %s\n    checkpointDirs: [%s]\n",
			l.DockerSocket, l.CNIConfDir, strings.Join(l.CNIBinDirs, ", "), l.CNICacheDir, l.Image("pause"), filepath.Join(n.Dir, "checkpoints"))
		routes += "  - {handler: docker, backend: docker}\n"
	}
	if !o.NoContainerd {
		fmt.Fprintf(&b, "  containerd:\n    type: cri\n    endpoint: unix://%s\n", l.ContainerdSocket)
		routes += "  - {handler: containerd, backend: containerd, backendHandler: \"\"}\n"
	}
	def := o.Default
	switch {
	case def != "":
	case o.NoDocker:
		def = "containerd"
	default:
		def = "docker"
	}
	fmt.Fprintf(&b, "routes:\n%sdefault: %s\n%s", routes, def, o.Extra)
	return b.String()
}

// builtEnv names the environment variable with the path of a daemon that is
// built already, for where there is no Go.
const builtEnv = "CRIMUX_TEST_BINARY"

// Build builds the daemon from this module into dir and returns its path.
// With race it has the race detector.
func Build(ctx context.Context, dir string, race bool) (string, error) {
	if built := os.Getenv(builtEnv); built != "" {
		return built, nil
	}
	out := filepath.Join(dir, "crimux")
	args := []string{"build", "-o", out}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "github.com/crimux/crimux/cmd/crimux")...)
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build crimux: %w\n%s", err, b)
	}
	return out, nil
}

// Start starts the daemon and returns when it answers.
func (n *Node) Start(ctx context.Context) error {
	if n.cmd != nil {
		return errors.New("the daemon runs already")
	}
	n.cmd = exec.Command(n.binary, "serve", "--config", n.ConfigFile)
	n.cmd.Env = environment()
	n.cmd.Stdout, n.cmd.Stderr = n.output, n.output
	if err := n.cmd.Start(); err != nil {
		return err
	}
	n.exited = make(chan struct{})
	cmd, exited := n.cmd, n.exited
	go func() { cmd.Wait(); close(exited) }()
	return n.waitReady(ctx)
}

func (n *Node) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	exited := n.exited
	go func() {
		select {
		case <-exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		c, err := net.Dial("unix", n.Socket)
		if err == nil {
			c.Close()
			n.Conn.ResetConnectBackoff()
			_, err = n.Version(ctx, &runtimeapi.VersionRequest{}, grpc.WaitForReady(true))
		}
		if err == nil {
			return nil
		}
		select {
		case <-n.exited:
			n.cmd = nil
			return fmt.Errorf("the daemon has ended:\n%s", n.Output())
		case <-ctx.Done():
			return fmt.Errorf("the daemon does not answer: %w\n%s", err, n.Output())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// WaitBackends returns when every backend of the node is available.
func (n *Node) WaitBackends(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	for {
		r, err := n.Status(ctx, &runtimeapi.StatusRequest{})
		if err != nil {
			return err
		}
		missing := ""
		for _, c := range r.GetStatus().GetConditions() {
			if !c.GetStatus() {
				missing = fmt.Sprintf("%s: %s", c.GetType(), c.GetMessage())
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", ctx.Err(), missing)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// PID returns the daemon's process id, 0 where it does not run.
func (n *Node) PID() int {
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// Usage is what a daemon holds at one moment.
type Usage struct{ Goroutines, FDs int }

// Usage asks the running daemon what it holds.
func (n *Node) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
	if err != nil {
		return u, err
	}
	u.FDs = len(fds)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", n.AdminSocket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://crimux/debug/pprof/goroutine?debug=1", nil)
	if err != nil {
		return u, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return u, err
	}
	defer resp.Body.Close()
	_, err = fmt.Fscanf(resp.Body, "goroutine profile: total %d", &u.Goroutines)
	return u, err
}

// Kill ends the daemon as a crash would and returns when it is gone.
func (n *Node) Kill() error { return n.end(syscall.SIGKILL) }

// Stop tells the daemon to end and returns when it is gone.
func (n *Node) Stop() error { return n.end(syscall.SIGTERM) }

func (n *Node) end(sig syscall.Signal) error {
	if n.cmd == nil {
		return nil
	}
	if err := n.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-n.exited:
	case <-time.After(ready):
		n.cmd.Process.Kill()
		<-n.exited
		return fmt.Errorf("the daemon did not end on %v:\n%s", sig, n.Output())
	}
	code := n.cmd.ProcessState.ExitCode()
	n.cmd = nil
	if sig == syscall.SIGTERM && code != 0 {
		return fmt.Errorf("the daemon ended with exit code %d:\n%s", code, n.Output())
	}
	return nil
}

// Close stops the daemon and the clients.
func (n *Node) Close() error { return errors.Join(n.Stop(), n.Conn.Close()) }

// Output is what the daemon has printed so far, over all its runs.
func (n *Node) Output() string { return n.output.String() }

// Run runs a crimux command on this node's configuration and returns what it
// printed; where it fails, the error has what it said on stderr.
func (n *Node) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, n.binary, append(args, "--config", n.ConfigFile)...)
	var out, errOut bytes.Buffer
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("crimux %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), nil
}

// environment is this process's, less the second that the race detector
// sleeps at each exit.
func environment() []string { return append(os.Environ(), "GORACE=atexit_sleep_ms=20") }

// syncBuffer is a bytes.Buffer that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
