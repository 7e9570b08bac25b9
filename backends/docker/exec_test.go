package docker

import (
	"context"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker/streaming"
)

// TestEngineWithoutContainerd: a command that no Engine could have started is
// told from one that cannot be.
func TestEngineWithoutContainerd(t *testing.T) {
	b := newBench(t)
	for version, want := range map[string]codes.Code{"1.6.20~ds1": codes.OK, "": codes.OK, versionUnknown: codes.Unavailable} {
		b.engine.containerd = version
		if err := b.reachesContainerd(t.Context(), "c"); status.Code(err) != want {
			t.Errorf("containerd %q: %v", version, err)
		}
	}
	b.fail("info", errInjected)
	if err := b.reachesContainerd(t.Context(), "c"); err == nil {
		t.Error("what is not known is no success")
	}
}

// stuck is an Engine that has no answer to an exec, and to nothing if it hangs.
type stuck struct {
	*fakeEngine
	hangs bool
}

func (e stuck) ContainerExecCreate(ctx context.Context, _ string, _ container.ExecOptions) (container.ExecCreateResponse, error) {
	<-ctx.Done()
	return container.ExecCreateResponse{}, ctx.Err()
}

func (e stuck) Info(ctx context.Context) (system.Info, error) {
	if !e.hangs {
		return e.fakeEngine.Info(ctx)
	}
	<-ctx.Done()
	return system.Info{}, ctx.Err()
}

// TestProbeOfHungEngine: an exec probe fails where the container is what hangs.
// Where the Engine is, nothing is known of the container, and the kubelet must
// not kill it.
func TestProbeOfHungEngine(t *testing.T) {
	for hangs, want := range map[bool]codes.Code{false: codes.DeadlineExceeded, true: codes.Unavailable} {
		b := newBench(t)
		id := b.foreign(t, "", true)
		e := stuck{b.engine, hangs}
		streams, err := streaming.New(streaming.Options{Engine: e, SandboxPID: b.sandboxPID})
		if err != nil {
			t.Fatal(err)
		}
		b.server.engine, b.streams = e, streams
		_, err = b.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}, Timeout: 1})
		if status.Code(err) != want {
			t.Errorf("Engine hangs %v: %v", hangs, err)
		}
	}
}
