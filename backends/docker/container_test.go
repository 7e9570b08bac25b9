package docker

import (
	"context"
	"slices"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

func createRequest(sandbox string) *runtimeapi.CreateContainerRequest {
	p := podConfig()
	p.LogDirectory = "/var/log/pods/x"
	return &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, SandboxConfig: p, Config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main", Attempt: 1}, Image: &runtimeapi.ImageSpec{Image: "busybox"},
		LogPath: "main/1.log", Labels: map[string]string{"io.kubernetes.container.name": "main"},
	}}
}

func TestContainerStatesAgree(t *testing.T) {
	b := newBench(t)
	_, r := b.withContainer(t)
	c := b.engine.containers[r.ContainerId]
	for _, s := range []struct {
		name   string
		change func()
		state  runtimeapi.ContainerState
		reason string
	}{
		{"created", func() {}, runtimeapi.ContainerState_CONTAINER_CREATED, ""},
		{"start failed", func() { c.State.ExitCode, c.State.Error = 127, "no such file" }, runtimeapi.ContainerState_CONTAINER_EXITED, "ContainerCannotRun"},
		{"running", func() {
			c.State.ExitCode, c.State.Error = 0, ""
			c.State.Status, c.State.Running, c.State.StartedAt = container.StateRunning, true, "2024-01-01T00:00:00.5Z"
		}, runtimeapi.ContainerState_CONTAINER_RUNNING, ""},
		{"paused", func() { c.State.Status = container.StatePaused }, runtimeapi.ContainerState_CONTAINER_RUNNING, ""},
		{"completed", func() {
			c.State.Status, c.State.Running, c.State.FinishedAt = container.StateExited, false, "2024-01-01T00:00:01.5Z"
		}, runtimeapi.ContainerState_CONTAINER_EXITED, "Completed"},
		{"failed", func() { c.State.ExitCode = 2 }, runtimeapi.ContainerState_CONTAINER_EXITED, "Error"},
		{"killed for memory", func() { c.State.OOMKilled = true }, runtimeapi.ContainerState_CONTAINER_EXITED, "OOMKilled"},
	} {
		s.change()
		b.resync(t)
		st, err := b.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: r.ContainerId, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		all, err := b.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
		if err != nil || len(all.Containers) != 1 {
			t.Fatalf("%s: %v, %v", s.name, all, err)
		}
		got, listed := st.Status, all.Containers[0]
		if got.State != s.state || listed.State != s.state || got.Reason != s.reason {
			t.Errorf("%s: status %s %q, listed %s; want %s %q", s.name, got.State, got.Reason, listed.State, s.state, s.reason)
		}
		if got.CreatedAt != listed.CreatedAt || !proto.Equal(got.Image, listed.Image) || !proto.Equal(got.Metadata, listed.Metadata) {
			t.Errorf("%s: status %v, listed %v", s.name, got, listed)
		}
		if s.state == runtimeapi.ContainerState_CONTAINER_EXITED && (got.FinishedAt == 0 || got.StartedAt == 0) {
			t.Errorf("%s: times %d %d", s.name, got.StartedAt, got.FinishedAt)
		}
		if got.LogPath != "/var/log/pods/x/main/1.log" {
			t.Errorf("%s: log path %q", s.name, got.LogPath)
		}
	}
}

func TestCreateContainerLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after error
		code          codes.Code
		want          []string
	}{
		{"refused", cerrdefs.ErrInvalidArgument, nil, codes.InvalidArgument, []string{"create"}},
		{"unanswered", nil, cerrdefs.ErrUnavailable, codes.Unavailable, []string{"create", "remove"}},
		{"panic", nil, errPanic, codes.Internal, []string{"create", "remove"}},
		{"timed out", nil, context.DeadlineExceeded, codes.DeadlineExceeded, []string{"create", "remove"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			sandbox, err := b.runPod(backends.NoJournal, podConfig())
			if err != nil {
				t.Fatal(err)
			}
			b.trace.effects()
			b.engine.before["create"], b.engine.after["create"] = c.before, c.after
			if _, err := b.CreateContainer(t.Context(), createRequest(sandbox)); status.Code(err) != c.code {
				t.Errorf("error %v", err)
			}
			if got := b.trace.effects(); !slices.Equal(got, c.want) {
				t.Errorf("effects %q, want %q", got, c.want)
			}
			if len(b.engine.containers) != 1 {
				t.Error("container left")
			}
		})
	}
}

func TestCreateContainerRefusals(t *testing.T) {
	b := newBench(t)
	sandbox, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*runtimeapi.CreateContainerRequest)
		code   codes.Code
		text   string
	}{
		{"no sandbox", func(r *runtimeapi.CreateContainerRequest) { r.PodSandboxId = strings.Repeat("a", 64) }, codes.NotFound, strings.Repeat("a", 64)},
		{"sandbox by name", func(r *runtimeapi.CreateContainerRequest) { r.PodSandboxId = "k8s_POD_web_shop_u-1_2" }, codes.NotFound, "k8s_POD"},
		{"no image", func(r *runtimeapi.CreateContainerRequest) { r.Config.Image.Image = "nothere" }, codes.NotFound, "nothere"},
		{"other pod", func(r *runtimeapi.CreateContainerRequest) { r.SandboxConfig.Metadata.Uid = "u-9" }, codes.InvalidArgument, "sandbox_config.metadata.uid"},
		{"no such target", func(r *runtimeapi.CreateContainerRequest) {
			r.Config.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: strings.Repeat("b", 64)}}}
		}, codes.InvalidArgument, "target_id"},
	} {
		r := createRequest(sandbox)
		c.change(r)
		b.trace.effects()
		_, err := b.CreateContainer(t.Context(), r)
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := b.trace.effects(); len(got) != 0 {
			t.Errorf("%s: effects %q", c.name, got)
		}
	}
}

// TestForeignContainersAreLeftAlone: a container that is no pod's, whatever
// its labels pretend, is neither shown nor touched.
func TestForeignContainersAreLeftAlone(t *testing.T) {
	b := newBench(t)
	b.engine.images["evil"] = map[string]string{labelType: typeContainer, labelOp: "op-1", labelSandboxID: "x"}
	made, err := b.engine.ContainerCreate(t.Context(), &container.Config{Image: "evil"}, &container.HostConfig{}, nil, nil, "database")
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(all.Containers) != 0 {
		t.Errorf("list %v, %v", all, err)
	}
	b.trace.effects()
	for _, call := range []func() error{
		func() error {
			_, err := b.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: made.ID})
			return err
		},
		func() error {
			_, err := b.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: made.ID})
			return err
		},
		func() error {
			_, err := b.backend.Recover(t.Context(), backends.Unfinished{Op: "op-1", Method: "RunPodSandbox"}, backends.NoJournal)
			return err
		},
	} {
		if err := call(); err != nil {
			t.Error(err)
		}
	}
	if got := b.trace.effects(); len(got) != 0 {
		t.Errorf("effects %q", got)
	}
}
