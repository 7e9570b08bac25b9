package proxy

import (
	"context"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// fakeRuntime is a CRI runtime on a socket, with knobs for faults. It keeps
// sandboxes and containers, and nothing runs.
type fakeRuntime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer
	name   string
	socket string
	grpc   *grpc.Server

	mu         sync.Mutex
	next       int
	sandboxes  map[string]*runtimeapi.PodSandbox
	containers map[string]*runtimeapi.Container
	images     map[string]*runtimeapi.Image
	calls      []string
	// eventStreams are the open streams of GetContainerEvents; noEvents has
	// the fake lack the call.
	eventStreams map[chan *runtimeapi.ContainerEventResponse]bool
	noEvents     bool
	// ended changes the status of a container that has exited.
	ended func(*runtimeapi.ContainerStatus)
	// before runs at the start of each call, outside the lock; an error is
	// the answer.
	before func(ctx context.Context, method string, req any) error
}

func newFake(t testing.TB, name string) *fakeRuntime {
	f := &fakeRuntime{
		name: name, socket: filepath.Join(t.TempDir(), name+".sock"),
		sandboxes: map[string]*runtimeapi.PodSandbox{}, containers: map[string]*runtimeapi.Container{}, images: map[string]*runtimeapi.Image{},
	}
	f.start(t)
	t.Cleanup(func() { f.stop() })
	return f
}

func (f *fakeRuntime) start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	f.grpc = grpc.NewServer(grpc.UnaryInterceptor(f.intercept), grpc.MaxRecvMsgSize(backends.MaxMessage), grpc.MaxSendMsgSize(2*backends.MaxMessage))
	runtimeapi.RegisterRuntimeServiceServer(f.grpc, f)
	runtimeapi.RegisterImageServiceServer(f.grpc, f)
	go f.grpc.Serve(l)
}

func (f *fakeRuntime) stop() { f.grpc.Stop() }

func (f *fakeRuntime) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	name := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	f.mu.Lock()
	f.calls = append(f.calls, name)
	before := f.before
	f.mu.Unlock()
	if before != nil {
		if err := before(ctx, name, req); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	answer, err := next(ctx, req)
	if m, ok := answer.(proto.Message); ok && err == nil {
		// It is sent when the lock is free, and what is in it may be edited.
		answer = proto.Clone(m)
	}
	return answer, err
}

func (f *fakeRuntime) setBefore(fn func(ctx context.Context, method string, req any) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = fn
}

func (f *fakeRuntime) called(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == name {
			n++
		}
	}
	return n
}

// edit changes what the runtime has, which it tells of as a runtime does.
func (f *fakeRuntime) edit(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
	f.emit(&runtimeapi.ContainerEventResponse{ContainerId: "edited-on-" + f.name})
}

// emit sends an event to all streams; the caller holds the lock.
func (f *fakeRuntime) emit(e *runtimeapi.ContainerEventResponse) {
	for st := range f.eventStreams {
		st <- e
	}
}

func (f *fakeRuntime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: f.name}, nil
}

func (f *fakeRuntime) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
		}},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Name: "", Features: &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: f.name == "b"}}},
	}, nil
}

func (f *fakeRuntime) RunPodSandbox(_ context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	for _, sb := range f.sandboxes {
		if sb.Metadata.Uid == r.Config.Metadata.Uid && sb.Metadata.Attempt == r.Config.Metadata.Attempt {
			return nil, status.Errorf(codes.Unknown, "name is reserved for %s", sb.Id)
		}
	}
	f.next++
	id := fmt.Sprintf("%s-sandbox-%d", f.name, f.next)
	f.sandboxes[id] = &runtimeapi.PodSandbox{
		Id: id, Metadata: r.Config.Metadata, CreatedAt: time.Now().UnixNano(), Labels: r.Config.Labels,
		Annotations: r.Config.Annotations, RuntimeHandler: r.RuntimeHandler,
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (f *fakeRuntime) StopPodSandbox(_ context.Context, r *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	if sb := f.sandboxes[r.PodSandboxId]; sb != nil {
		sb.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

func (f *fakeRuntime) RemovePodSandbox(_ context.Context, r *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	delete(f.sandboxes, r.PodSandboxId)
	maps.DeleteFunc(f.containers, func(_ string, c *runtimeapi.Container) bool { return c.PodSandboxId == r.PodSandboxId })
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (f *fakeRuntime) PodSandboxStatus(_ context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	sb := f.sandboxes[r.PodSandboxId]
	if sb == nil {
		return nil, status.Errorf(codes.NotFound, "%s has no sandbox %q", f.name, r.PodSandboxId)
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{
		Id: sb.Id, Metadata: sb.Metadata, State: sb.State, CreatedAt: sb.CreatedAt, RuntimeHandler: sb.RuntimeHandler,
	}}, nil
}

func (f *fakeRuntime) ListPodSandbox(_ context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	resp := new(runtimeapi.ListPodSandboxResponse)
	for _, id := range slices.Sorted(maps.Keys(f.sandboxes)) {
		if strings.HasPrefix(id, r.GetFilter().GetId()) {
			resp.Items = append(resp.Items, f.sandboxes[id])
		}
	}
	return resp, nil
}

func (f *fakeRuntime) CreateContainer(_ context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	f.next++
	id := fmt.Sprintf("%s-container-%d", f.name, f.next)
	f.containers[id] = &runtimeapi.Container{
		Id: id, PodSandboxId: r.PodSandboxId, Metadata: r.Config.Metadata, Image: r.Config.Image,
		CreatedAt: time.Now().UnixNano(), Labels: r.Config.Labels,
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

func (f *fakeRuntime) StartContainer(_ context.Context, r *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	c := f.containers[r.ContainerId]
	if c == nil {
		return nil, status.Errorf(codes.NotFound, "%s has no container %q", f.name, r.ContainerId)
	}
	c.State = runtimeapi.ContainerState_CONTAINER_RUNNING
	return &runtimeapi.StartContainerResponse{}, nil
}

func (f *fakeRuntime) RemoveContainer(_ context.Context, r *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	delete(f.containers, r.ContainerId)
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (f *fakeRuntime) ContainerStatus(_ context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	c := f.containers[r.ContainerId]
	if c == nil {
		return nil, status.Errorf(codes.NotFound, "%s has no container %q", f.name, r.ContainerId)
	}
	st := &runtimeapi.ContainerStatus{Id: c.Id, Metadata: c.Metadata, State: c.State, CreatedAt: c.CreatedAt, Image: c.Image}
	if c.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		st.ExitCode, st.Reason, st.FinishedAt = 7, "Error", 1234
		if f.ended != nil {
			f.ended(st)
		}
	}
	return &runtimeapi.ContainerStatusResponse{Status: st}, nil
}

func (f *fakeRuntime) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	resp := new(runtimeapi.ListContainersResponse)
	for _, id := range slices.Sorted(maps.Keys(f.containers)) {
		c := f.containers[id]
		if strings.HasPrefix(id, r.GetFilter().GetId()) && strings.HasPrefix(c.PodSandboxId, r.GetFilter().GetPodSandboxId()) {
			resp.Containers = append(resp.Containers, c)
		}
	}
	return resp, nil
}

func (f *fakeRuntime) ExecSync(_ context.Context, r *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	return &runtimeapi.ExecSyncResponse{Stdout: []byte("canary-exec-output"), ExitCode: int32(len(r.Cmd) - 1)}, nil
}

func (f *fakeRuntime) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	return &runtimeapi.ImageStatusResponse{Image: f.images[r.GetImage().GetImage()]}, nil
}

func (f *fakeRuntime) PullImage(_ context.Context, r *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	f.images[r.Image.Image] = &runtimeapi.Image{Id: "sha256:" + r.Image.Image, RepoTags: []string{f.name + "/" + r.Image.Image}}
	return &runtimeapi.PullImageResponse{ImageRef: "sha256:" + r.Image.Image}, nil
}

func (f *fakeRuntime) RemoveImage(_ context.Context, r *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	delete(f.images, r.Image.Image)
	return &runtimeapi.RemoveImageResponse{}, nil
}

func (f *fakeRuntime) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	used := map[string]uint64{"a": 10, "b": 20}[f.name]
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{
		FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/" + f.name}, UsedBytes: &runtimeapi.UInt64Value{Value: used},
	}}}, nil
}

func (f *fakeRuntime) UpdateRuntimeConfig(context.Context, *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}

func (f *fakeRuntime) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: runtimeapi.CgroupDriver_CGROUPFS}}, nil
}

func (f *fakeRuntime) GetContainerEvents(_ *runtimeapi.GetEventsRequest, st grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	events := make(chan *runtimeapi.ContainerEventResponse, 20000)
	f.mu.Lock()
	lacks := f.noEvents
	if f.eventStreams == nil {
		f.eventStreams = make(map[chan *runtimeapi.ContainerEventResponse]bool)
	}
	f.eventStreams[events] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.eventStreams, events)
	}()
	if lacks {
		return status.Error(codes.Unimplemented, "no events here")
	}
	for {
		select {
		case e, open := <-events:
			if !open {
				return status.Error(codes.Internal, "the stream broke")
			}
			if err := st.Send(e); err != nil {
				return err
			}
		case <-st.Context().Done():
			return nil
		}
	}
}

// breakStreams ends the open event streams with an error; what fn changes
// before a new one can be opened, nothing tells of.
func (f *fakeRuntime) breakStreams(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
	for st := range f.eventStreams {
		delete(f.eventStreams, st)
		close(st)
	}
}

// listeners are the open event streams.
func (f *fakeRuntime) listeners() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.eventStreams)
}

func (f *fakeRuntime) ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{Images: slices.Collect(maps.Values(f.images))}, nil
}
