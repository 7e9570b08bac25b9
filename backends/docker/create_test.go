package docker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
)

// lateCreate is a create that lands after its operation was undone.
func (b *bench) lateCreate(t *testing.T, op string, created time.Time) string {
	t.Helper()
	made, err := b.engine.ContainerCreate(t.Context(), &container.Config{Image: "pause", Labels: map[string]string{
		labelType: typeSandbox, labelOp: op, labelCreated: strconv.FormatInt(created.UnixNano(), 10),
	}}, &container.HostConfig{NetworkMode: "none"}, nil, nil, "k8s_POD_web_shop_u-1_2")
	if err != nil {
		t.Fatal(err)
	}
	return made.ID
}

func (b *bench) undoneOp(t *testing.T, op string) {
	t.Helper()
	got, err := b.backend.Recover(t.Context(), backends.Unfinished{Op: op, Method: "RunPodSandbox"}, backends.NoJournal)
	if err != nil || got.Code != codes.Aborted {
		t.Fatal(got, err)
	}
}

func (b *bench) has(id string) bool {
	b.engine.mu.Lock()
	defer b.engine.mu.Unlock()
	return b.engine.containers[id] != nil
}

// TestLateCreateIsRemoved: the Engine finishes a create whose caller died,
// after whoever recovered it has looked.
func TestLateCreateIsRemoved(t *testing.T) {
	b := newBench(t)
	b.undoneOp(t, "op-late")
	id := b.lateCreate(t, "op-late", time.Now())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { b.keepFed(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	b.engine.messages <- events.Message{Action: events.ActionCreate, Actor: events.Actor{ID: id}}
	waitFor(t, "removed", func() bool { return !b.has(id) })
}

// TestLateCreateMakesRoom: it is not in the way of the next attempt, even if
// no event told of it yet.
func TestLateCreateMakesRoom(t *testing.T) {
	b := newBench(t)
	b.undoneOp(t, "op-late")
	late := b.lateCreate(t, "op-late", time.Now())
	id, err := b.runPod(&fakeJournal{op: "op-next"}, podConfig())
	if err != nil || b.has(late) || !b.has(id) {
		t.Errorf("%s, %v", id, err)
	}
	// What belongs to an operation under way, or to nobody known, stays.
	for op, code := range map[string]codes.Code{"op-running": codes.Aborted, "op-unknown": codes.AlreadyExists} {
		b := newBench(t)
		b.ops.set("op-running", opRunning)
		other := b.lateCreate(t, op, time.Now())
		if _, err := b.runPod(&fakeJournal{op: "op-next"}, podConfig()); status.Code(err) != code || !b.has(other) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// TestNeverStartedSandbox: an infra container of ours that nobody can be about
// to start any more is removed, though its operation is long forgotten.
func TestNeverStartedSandbox(t *testing.T) {
	for _, c := range []struct {
		name string
		op   string
		age  time.Duration
		gone bool
	}{
		{"old", "op-forgotten", 2 * neverStarted, true},
		{"young", "op-forgotten", time.Minute, false},
		{"another shim's", "", 2 * neverStarted, false},
	} {
		b := newBench(t)
		id := b.lateCreate(t, c.op, time.Now().Add(-c.age))
		b.resync(t)
		b.tidy(t.Context())
		if b.has(id) == c.gone {
			t.Errorf("%s: removed %v", c.name, c.gone)
		}
	}
}

// leavingEngine has its containers removed before they are looked at by name.
type leavingEngine struct{ *fakeEngine }

func (e leavingEngine) ContainerInspect(ctx context.Context, id string) (container.InspectResponse, error) {
	if strings.HasPrefix(id, namePrefix) {
		clear(e.containers)
	}
	return e.fakeEngine.ContainerInspect(ctx, id)
}

// TestRoomIsMadeByAnother: what is left of an undone creation may be removed by
// somebody else just now.
func TestRoomIsMadeByAnother(t *testing.T) {
	b := newBench(t)
	b.undoneOp(t, "op-late")
	b.lateCreate(t, "op-late", time.Now())
	b.server.engine = leavingEngine{b.engine}
	if id, err := b.runPod(&fakeJournal{op: "op-next"}, podConfig()); err != nil || !b.has(id) {
		t.Errorf("%s, %v", id, err)
	}
}

// creatingEngine is in the middle of a creation whose caller has gone: it lists
// the container, and does not have it yet.
type creatingEngine struct {
	*fakeEngine
	made atomic.Bool
}

func (e *creatingEngine) ContainerCreate(ctx context.Context, c *container.Config, h *container.HostConfig, n *network.NetworkingConfig, p *ocispec.Platform, name string) (container.CreateResponse, error) {
	_, err := e.fakeEngine.ContainerCreate(ctx, c, h, n, p, name)
	return container.CreateResponse{}, errors.Join(err, context.DeadlineExceeded)
}

func (e *creatingEngine) ContainerInspect(ctx context.Context, id string) (container.InspectResponse, error) {
	if !e.made.Load() {
		return container.InspectResponse{}, cerrdefs.ErrNotFound
	}
	return e.fakeEngine.ContainerInspect(ctx, id)
}

func (e *creatingEngine) ContainerRemove(ctx context.Context, id string, o container.RemoveOptions) error {
	if !e.made.Load() {
		return cerrdefs.ErrNotFound
	}
	return e.fakeEngine.ContainerRemove(ctx, id, o)
}

// TestListedBeforeItIsThere: whoever undoes a creation finds the container in the
// list and not in the Engine. It is removed when it has come.
func TestListedBeforeItIsThere(t *testing.T) {
	b := newBench(t)
	e := &creatingEngine{fakeEngine: b.engine}
	b.server.engine = e
	b.feed(t)
	if _, err := b.runPod(&fakeJournal{op: "op-cut"}, podConfig()); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("run: %v", err)
	}
	id := fmt.Sprintf("%064x", 1)
	if !b.has(id) {
		t.Fatal("there is none")
	}
	e.made.Store(true)
	b.engine.messages <- events.Message{Action: events.ActionCreate, Actor: events.Actor{ID: id}}
	waitFor(t, "removed", func() bool { return !b.has(id) })
}
