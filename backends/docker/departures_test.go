package docker

import (
	"context"
	"sync"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/cni"
)

// pausedEngine calls what is set in the middle of a call.
type pausedEngine struct {
	*fakeEngine
	creating, starting func()
	removing           func(id string)
}

func (e *pausedEngine) ContainerCreate(ctx context.Context, c *container.Config, h *container.HostConfig, n *network.NetworkingConfig, p *ocispec.Platform, name string) (container.CreateResponse, error) {
	if e.creating != nil {
		e.creating()
	}
	return e.fakeEngine.ContainerCreate(ctx, c, h, n, p, name)
}

func (e *pausedEngine) ContainerStart(ctx context.Context, id string, o container.StartOptions) error {
	if e.starting != nil {
		e.starting()
	}
	return e.fakeEngine.ContainerStart(ctx, id, o)
}

func (e *pausedEngine) ContainerRemove(ctx context.Context, id string, o container.RemoveOptions) error {
	if e.removing != nil {
		e.removing(id)
	}
	return e.fakeEngine.ContainerRemove(ctx, id, o)
}

// pausedNet calls deleting in the middle of a DEL.
type pausedNet struct {
	*fakeNet
	deleting func()
}

func (n *pausedNet) Del(ctx context.Context, p *cni.Plan, netns string) error {
	n.deleting()
	return n.fakeNet.Del(ctx, p, netns)
}

func (b *bench) stopPod(t *testing.T, id string) {
	t.Helper()
	if _, err := b.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Error(err)
	}
}

func (b *bench) removePod(t *testing.T, id string) {
	t.Helper()
	if _, err := b.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Error(err)
	}
}

// TestCreateInALeavingSandbox: a container that is made after the removal of its
// sandbox has looked for containers does not outlive it.
func TestCreateInALeavingSandbox(t *testing.T) {
	for _, c := range []struct {
		name string
		// held is a removal that goes on when the creation has ended.
		held bool
	}{{"removed", false}, {"being removed", true}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			sandbox, err := b.runPod(backends.NoJournal, podConfig())
			if err != nil {
				t.Fatal(err)
			}
			var removal sync.WaitGroup
			e := &pausedEngine{fakeEngine: b.engine}
			b.server.engine = e
			created := make(chan struct{})
			e.creating = func() {
				reached := make(chan struct{})
				e.removing = func(id string) {
					if id == sandbox && c.held {
						close(reached)
						<-created
					}
				}
				removal.Go(func() { b.removePod(t, sandbox) })
				if c.held {
					<-reached
				} else {
					removal.Wait()
				}
			}
			if _, err := b.CreateContainer(t.Context(), createRequest(sandbox)); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("created: %v", err)
			}
			close(created)
			removal.Wait()
			if len(b.engine.containers) != 0 {
				t.Errorf("left: %v", b.engine.containers)
			}
		})
	}
}

// TestStartInALeavingSandbox: a container that is started after the stop of its
// sandbox has looked for what runs does not go on running.
func TestStartInALeavingSandbox(t *testing.T) {
	for _, name := range []string{"stopped", "being stopped"} {
		t.Run(name, func(t *testing.T) {
			b, _, id := withLog(t)
			sandbox := b.cache.peek(id).sandboxID
			start := func() {
				_, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id})
				if status.Code(err) != codes.FailedPrecondition {
					t.Errorf("started: %v", err)
				}
			}
			if name == "stopped" {
				b.server.engine = &pausedEngine{fakeEngine: b.engine, starting: func() { b.stopPod(t, sandbox) }}
				start()
			} else {
				b.pods.net = &pausedNet{fakeNet: b.net, deleting: start}
				b.stopPod(t, sandbox)
			}
			if b.engine.containers[id].State.Running {
				t.Error("it runs in a stopped pod")
			}
		})
	}
}

// contestedEngine has a first removal that somebody else carries out, and fails.
type contestedEngine struct {
	*fakeEngine
	removals int
}

func (e *contestedEngine) ContainerRemove(ctx context.Context, id string, o container.RemoveOptions) error {
	if e.removals++; e.removals == 1 {
		return cerrdefs.ErrConflict
	}
	return e.fakeEngine.ContainerRemove(ctx, id, o)
}

func (*contestedEngine) ContainerWait(context.Context, string, container.WaitCondition) (<-chan container.WaitResponse, <-chan error) {
	gone := make(chan container.WaitResponse, 1)
	gone <- container.WaitResponse{Error: &container.WaitExitError{Message: "device busy"}}
	return gone, make(chan error)
}

// TestAnothersRemovalFails: a container that somebody else tried to remove, and
// could not, is not taken for gone.
func TestAnothersRemovalFails(t *testing.T) {
	b, _, id := withLog(t)
	b.server.engine = &contestedEngine{fakeEngine: b.engine}
	b.removeContainer(t, id)
	if b.has(id) {
		t.Error("it is still there")
	}
}

// TestLateStartInALeavingSandbox: nor does a container run on that the Engine has
// started after its StartContainer was given up, and its pod stopped.
func TestLateStartInALeavingSandbox(t *testing.T) {
	b, _, id := withLog(t)
	sandbox := b.cache.peek(id).sandboxID
	b.server.engine = absentEngine{b.engine}
	b.feed(t)
	if _, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err == nil {
		t.Fatal("started")
	}
	b.stopPod(t, sandbox)
	if err := b.engine.ContainerStart(t.Context(), id, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	b.engine.messages <- events.Message{Action: events.ActionStart, Actor: events.Actor{ID: id}}
	waitFor(t, "its end", func() bool {
		f := b.cache.peek(id)
		return len(b.late.ids()) == 0 && f != nil && f.criState() == runtimeapi.ContainerState_CONTAINER_EXITED
	})
}
