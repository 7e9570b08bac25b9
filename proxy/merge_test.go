package proxy

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func TestMessagesUpToTheLimit(t *testing.T) {
	n := newNode(t)
	big := runRequest("big", "front-b")
	big.Config.Hostname = strings.Repeat("x", 15<<20)
	if _, err := n.RunPodSandbox(t.Context(), big); err != nil {
		t.Errorf("a request of 15 MiB: %v", err)
	}
	big.Config.Hostname = strings.Repeat("x", 17<<20)
	_, err := n.RunPodSandbox(t.Context(), big)
	wantCode(t, err, codes.ResourceExhausted)
}

// TestAListThatIsTooLarge is an error, never a shorter list: neither the
// backend's alone nor the merged one.
func TestAListThatIsTooLarge(t *testing.T) {
	n := newNode(t)
	for _, row := range []struct {
		inA, inB int
		code     codes.Code
	}{{7 << 20, 7 << 20, codes.OK}, {9 << 20, 9 << 20, codes.ResourceExhausted}, {17 << 20, 0, codes.ResourceExhausted}} {
		for f, size := range map[*fakeRuntime]int{n.a: row.inA, n.b: row.inB} {
			f.edit(func() {
				f.containers = map[string]*runtimeapi.Container{"c": {
					Id: "c-" + f.name, PodSandboxId: "s", Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, ImageRef: strings.Repeat("x", size),
				}}
			})
		}
		list, err := n.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
		wantCode(t, err, row.code)
		if row.code == codes.OK && len(list.GetContainers()) != 2 {
			t.Errorf("%d and %d bytes: %d containers are listed", row.inA, row.inB, len(list.GetContainers()))
		}
	}
}

func TestNodeWideCalls(t *testing.T) {
	n := newNode(t)
	fs, err := n.images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(fs.ImageFilesystems) != 2 || fs.ImageFilesystems[0].FsId.Mountpoint != "/b" {
		t.Errorf("file systems, the fuller first: %v, %v", fs, err)
	}
	cidr := &runtimeapi.UpdateRuntimeConfigRequest{RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: "10.0.0.0/24"}}}
	if _, err := n.UpdateRuntimeConfig(t.Context(), cidr); err != nil || n.a.called("UpdateRuntimeConfig") != 1 || n.b.called("UpdateRuntimeConfig") != 1 {
		t.Errorf("UpdateRuntimeConfig reached a %d and b %d times: %v", n.a.called("UpdateRuntimeConfig"), n.b.called("UpdateRuntimeConfig"), err)
	}
	n.a.setBefore(func(_ context.Context, method string, _ any) error {
		if method == "RuntimeConfig" {
			return status.Error(codes.Unimplemented, "a is old")
		}
		return nil
	})
	_, err = n.RuntimeConfig(t.Context(), &runtimeapi.RuntimeConfigRequest{})
	wantCode(t, err, codes.Unimplemented, "a is old")
	n.a.stop()
	eventually(t, "another backend's runtime config is used while the default is away", func() bool {
		r, err := n.RuntimeConfig(t.Context(), &runtimeapi.RuntimeConfigRequest{})
		return err == nil && r.Linux.CgroupDriver == runtimeapi.CgroupDriver_CGROUPFS
	})
	h, err := healthpb.NewHealthClient(n.conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
}

func TestAnIDIsAskedOfOneBackendOnly(t *testing.T) {
	n := newNode(t)
	id := n.run(t, "pb", "front-b")
	eventually(t, "the observers have looked", func() bool { return n.a.called("ListPodSandbox") > 0 })
	before := n.a.called("ListPodSandboxStats")
	if _, err := n.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{Filter: &runtimeapi.PodSandboxStatsFilter{Id: id}}); err == nil {
		t.Error("a backend without statistics gave some")
	}
	if n.a.called("ListPodSandboxStats") != before {
		t.Error("a backend was asked for a sandbox that is known to be elsewhere")
	}
}

// undoing makes a pass-through backend look like one that undoes what a crash
// left, and never gets to it.
type undoing struct{ backends.Backend }

func (undoing) Recover(ctx context.Context, _ backends.Unfinished, _ backends.Journal) (backends.Recovered, error) {
	<-ctx.Done()
	return backends.Recovered{}, ctx.Err()
}

// TestHalfMadeIsNotListed: before recovery has had its turn, what the crash
// left behind must not look like a ready pod.
func TestHalfMadeIsNotListed(t *testing.T) {
	n := newNode(t)
	s := &Server{
		set:   mustSet(t, undoing{n.server.set.Get("a").Backend}, n.server.set.Get("b").Backend),
		log:   n.log,
		lanes: map[string]*lane{"a": newLane(), "b": newLane()},
	}
	intent := &eventpb.Intent{Method: "RunPodSandbox", Pod: &eventpb.PodKey{Namespace: "ns", Name: "half", Uid: "u"}}
	if _, err := n.log.Append(&eventpb.Event{Op: store.NewOp(), Backend: "a", Kind: &eventpb.Event_Intent{Intent: intent}}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := new(runtimeapi.ListPodSandboxResponse)
	for _, name := range []string{"half", "whole"} {
		list.Items = append(list.Items, &runtimeapi.PodSandbox{Id: name, Metadata: &runtimeapi.PodSandboxMetadata{Namespace: "ns", Name: name, Uid: "u"}})
	}
	show := func() string {
		f, err := encoded(list)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%q", s.rewriteItems(f, sandboxItem).Bytes())
		return fmt.Sprint(strings.Contains(got, "half"), strings.Contains(got, "whole"))
	}
	if got := show(); got != "false true" {
		t.Errorf("before recovery the half-made and the whole pod are listed: %s", got)
	}
	s.lanes["a"].clear()
	if got := show(); got != "true true" {
		t.Errorf("once recovery has had its turn: %s", got)
	}
}
