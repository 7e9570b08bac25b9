package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// errNoEngine is what asking for an engine that the options left out gives.
var errNoEngine = errors.New("this lab was started without that engine; check its options")

// startDockerPair starts dockerd, after its containerd where the lab starts that one itself.
func (l *Lab) startDockerPair(ctx context.Context) error {
	if l.engine != nil && !l.engine.running() {
		if err := l.engine.start(ctx); err != nil {
			return err
		}
	}
	if l.docker == nil {
		return nil
	}
	return l.docker.start(ctx)
}

// KillDocker ends dockerd as a crash would, and with it, in the layout OwnContainerd, dockerd's containerd; the
// containers' shims live on.
func (l *Lab) KillDocker(ctx context.Context) error {
	if err := l.docker.kill(ctx); err != nil {
		return err
	}
	if l.engine.running() {
		return l.engine.kill(ctx)
	}
	return l.buryManaged(ctx)
}

// buryManaged waits for the containerd that the kernel kills together with the dockerd that supervised it, and
// removes its pid file: where process 1 is slow to reap, the next dockerd would take the zombie for a live
// containerd and wait for it in vain.
func (l *Lab) buryManaged(ctx context.Context) error {
	file := l.site.path("run/docker/containerd/containerd.pid")
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for dockerd's containerd: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("look for dockerd's containerd: %w", err)
	}
	for alive(process{pid: pid}) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for dockerd's containerd (pid %d) to die with it: %w", pid, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the pid file of a dead containerd: %w", err)
	}
	return nil
}

// StopDocker asks dockerd, and in the layout OwnContainerd its containerd, to end and waits for them. Without
// LiveRestore dockerd first stops its containers.
func (l *Lab) StopDocker(ctx context.Context) error {
	if err := l.docker.stop(ctx); err != nil || !l.engine.running() {
		return err
	}
	return l.engine.stop(ctx)
}

// StartDocker starts a dockerd that was stopped or killed, and waits until it answers.
func (l *Lab) StartDocker(ctx context.Context) error {
	if l.docker == nil {
		return fmt.Errorf("start dockerd: %w", errNoEngine)
	}
	return l.startDockerPair(ctx)
}

// PauseDocker freezes dockerd: its socket takes connections, and nothing is answered until ResumeDocker.
func (l *Lab) PauseDocker(context.Context) error { return l.docker.pause() }

// ResumeDocker lets a frozen dockerd go on.
func (l *Lab) ResumeDocker(context.Context) error { return l.docker.resume() }

// KillContainerd ends the CRI's containerd as a crash would; the containers' shims live on.
func (l *Lab) KillContainerd(ctx context.Context) error { return l.containerd.kill(ctx) }

// StopContainerd asks the CRI's containerd to end and waits for it; containers go on running.
func (l *Lab) StopContainerd(ctx context.Context) error { return l.containerd.stop(ctx) }

// StartContainerd starts a containerd that was stopped or killed, and waits until it can make pods.
func (l *Lab) StartContainerd(ctx context.Context) error {
	if l.containerd == nil {
		return fmt.Errorf("start containerd: %w", errNoEngine)
	}
	return l.containerd.start(ctx)
}

// PauseContainerd freezes containerd: its socket takes connections, and nothing is answered until
// ResumeContainerd.
func (l *Lab) PauseContainerd(context.Context) error { return l.containerd.pause() }

// ResumeContainerd lets a frozen containerd go on.
func (l *Lab) ResumeContainerd(context.Context) error { return l.containerd.resume() }

// dialCRI connects lazily, and again soon after an outage: the usual backoff grows to minutes.
func dialCRI(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: pollInterval, Multiplier: 1.2, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("make a client of containerd: %w", err)
	}
	return conn, nil
}
