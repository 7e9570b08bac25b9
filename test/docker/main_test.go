// Package docker tests the Docker backend on a real Engine with a real
// network: everything that a fake could be wrong about.
package docker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/backends/docker"
	"github.com/crimux/crimux/cni"
	"github.com/crimux/crimux/test/lab"
)

// node is the Engine that the tests share, and the backend on it.
var node struct {
	lab     *lab.Lab
	backend *docker.Backend
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "skipped: a container engine needs root")
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	l, err := lab.Start(ctx, lab.Options{NoContainerd: true, Log: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the lab:", err)
		return 1
	}
	node.lab = l
	code := withBackend(ctx, m)
	if code != 0 {
		fmt.Fprintln(os.Stderr, l.Log("dockerd"))
	}
	if err := l.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the lab:", err)
		return 1
	}
	return code
}

// withBackend runs the tests while the shared backend runs.
func withBackend(ctx context.Context, m *testing.M) int {
	b, err := newBackend("")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	node.backend = b
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	code := m.Run()
	stop()
	if err := <-ended; err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		code = 1
	}
	if err := b.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "close:", err)
		code = 1
	}
	return code
}

// newBackend is a backend on the lab's Engine. confDir is where the network
// is configured; empty is the lab's.
func newBackend(confDir string) (*docker.Backend, error) {
	if confDir == "" {
		confDir = node.lab.CNIConfDir
	}
	return newBackendAt(node.lab.DockerSocket, confDir)
}

func newBackendAt(socket, confDir string) (*docker.Backend, error) {
	l := node.lab
	return docker.New(docker.Options{
		Name: "docker", Endpoint: "unix://" + socket, PodInfraImage: "registry.invalid/pause:3.10",
		CNI:            cni.Config{ConfDir: confDir, BinDirs: l.CNIBinDirs, CacheDir: l.CNICacheDir},
		CheckpointDirs: []string{filepath.Join(l.Dir, "cri-dockerd", "sandbox"), filepath.Join(l.Dir, "dockershim", "sandbox")},
		LayerInterval:  time.Second,
		Logger:         slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

// invoke carries out a call as the front does: frames in, frames out, and a
// context of its own for what is bounded.
func invoke(t *testing.T, b *docker.Backend, method string, j backends.Journal, req, out proto.Message) error {
	t.Helper()
	body, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	frame := backends.NewFrame(body)
	ctx := t.Context()
	if d, ok := b.Bound(method, frame); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), d)
		defer cancel()
	}
	answer, err := b.Invoke(ctx, &backends.Call{Method: method, Request: frame, Journal: j})
	if err != nil {
		if _, ok := status.FromError(err); !ok {
			t.Errorf("%s: error is not a gRPC status: %v", method, err)
		}
		return err
	}
	defer answer.Body.Free()
	if err := proto.Unmarshal(answer.Body.Bytes(), out); err != nil {
		t.Fatalf("%s: answer: %v", method, err)
	}
	return nil
}
