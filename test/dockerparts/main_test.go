package dockerparts

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/crimux/crimux/cni"
	"github.com/crimux/crimux/test/lab"
)

// engine is the Docker Engine that the tests run on, nil where there is none.
var engine *client.Client

// busybox is an image that engine holds.
var busybox string

// network is where the lab's CNI configuration lies.
var network cni.Config

// TestMain brings up one Engine for all tests.
func TestMain(m *testing.M) {
	flag.Parse()
	code, err := withEngine(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withEngine(m *testing.M) (code int, err error) {
	if testing.Short() || os.Geteuid() != 0 {
		return m.Run(), nil // each test skips itself
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	l, err := lab.Start(ctx, lab.Options{NoContainerd: true, Log: os.Stderr})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, l.Stop()) }()
	engine, busybox = l.Docker(), l.Image("busybox")
	network = cni.Config{ConfDir: l.CNIConfDir, BinDirs: l.CNIBinDirs, CacheDir: l.CNICacheDir}
	pull, err := engine.ImagePull(ctx, busybox, image.PullOptions{})
	if err != nil {
		return 1, err
	}
	if _, err := io.Copy(io.Discard, pull); err != nil {
		return 1, err
	}
	return m.Run(), pull.Close()
}

// needEngine skips a test where there is no Engine.
func needEngine(t *testing.T) {
	t.Helper()
	if engine == nil {
		t.Skip("starting an engine takes root, and -short asks not to")
	}
}

// run starts a container and removes it with the test.
func run(t *testing.T, c container.Config, h container.HostConfig) string {
	t.Helper()
	needEngine(t)
	if c.Image == "" {
		c.Image = busybox
	}
	if h.NetworkMode == "" {
		h.NetworkMode = "none"
	}
	ctx := t.Context()
	made, err := engine.ContainerCreate(ctx, &c, &h, nil, nil, "")
	check(t, err)
	t.Cleanup(func() {
		// The test's own context has ended by now.
		check(t, engine.ContainerRemove(context.Background(), made.ID, container.RemoveOptions{Force: true}))
	})
	check(t, engine.ContainerStart(ctx, made.ID, container.StartOptions{}))
	return made.ID
}

// sleeper is a container that does nothing, with an init that reaps.
func sleeper(t *testing.T) string {
	t.Helper()
	yes := true
	return run(t, container.Config{Cmd: []string{"sleep", "600"}}, container.HostConfig{Init: &yes})
}

// pidOf returns the host's process id of a container.
func pidOf(t *testing.T, id string) int {
	t.Helper()
	c, err := engine.ContainerInspect(t.Context(), id)
	check(t, err)
	return c.State.Pid
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits up to a minute for what takes a moment on an idle machine.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain for: %s", what)
		}
	}
}
