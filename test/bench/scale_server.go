package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeEnv has this program serve CRI at the socket that it names, with as many
// containers as fakeSizeEnv says: a runtime in a process of its own, for what
// real pods cannot reach on one machine.
const (
	fakeEnv     = "CRIMUX_BENCH_FAKE"
	fakeSizeEnv = "CRIMUX_BENCH_FAKE_CONTAINERS"
)

// perPod containers are in each of the fake's pods.
const perPod = 2

// fake is a runtime that has containers and does nothing.
type fake struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer
	sandboxes  []*runtimeapi.PodSandbox
	containers []*runtimeapi.Container
	// bySandbox and byContainer are the places of the ids.
	bySandbox, byContainer map[string]int
}

// fakeSandbox and fakeContainer are the ids, as long as real ones.
func fakeSandbox(i int) string   { return fmt.Sprintf("%064x", 1<<40+i) }
func fakeContainer(i int) string { return fmt.Sprintf("%064x", 2<<40+i) }

// newFake makes the objects, with labels and annotations as a kubelet's have.
func newFake(containers int) *fake {
	f := &fake{bySandbox: map[string]int{}, byContainer: map[string]int{}}
	for i := range containers {
		pod := i / perPod
		uid := fmt.Sprintf("6f1c0d1e-8f3f-4a57-9d0e-%012x", pod)
		labels := map[string]string{
			"io.kubernetes.pod.name": fmt.Sprintf("web-7d9c5b8f6d-%05d", pod), "io.kubernetes.pod.namespace": "production", "io.kubernetes.pod.uid": uid,
		}
		if i%perPod == 0 {
			id := fakeSandbox(pod)
			f.bySandbox[id] = pod
			f.sandboxes = append(f.sandboxes, &runtimeapi.PodSandbox{
				Id: id, CreatedAt: time.Now().UnixNano(), Labels: labels,
				Metadata:    &runtimeapi.PodSandboxMetadata{Name: labels["io.kubernetes.pod.name"], Namespace: "production", Uid: uid},
				Annotations: map[string]string{"kubernetes.io/config.seen": "2026-01-02T03:04:05.678901234Z", "kubernetes.io/config.source": "api"},
			})
		}
		id := fakeContainer(i)
		f.byContainer[id] = i
		f.containers = append(f.containers, &runtimeapi.Container{
			Id: id, PodSandboxId: fakeSandbox(pod), CreatedAt: time.Now().UnixNano(), State: runtimeapi.ContainerState_CONTAINER_RUNNING,
			Metadata: &runtimeapi.ContainerMetadata{Name: fmt.Sprintf("main-%d", i%perPod)},
			Image:    &runtimeapi.ImageSpec{Image: "sha256:" + fakeContainer(7)}, ImageRef: "sha256:" + fakeContainer(7),
			Labels: labels,
			Annotations: map[string]string{
				"io.kubernetes.container.hash": "8f1c2d3e", "io.kubernetes.container.restartCount": "0",
				"io.kubernetes.container.terminationMessagePath": "/dev/termination-log", "io.kubernetes.pod.terminationGracePeriod": "30",
			},
		})
	}
	return f
}

// serveFake answers at the socket until the process is killed.
func serveFake(socket string) error {
	var n int
	if _, err := fmt.Sscan(os.Getenv(fakeSizeEnv), &n); err != nil {
		return fmt.Errorf("%s: %w", fakeSizeEnv, err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	f := newFake(n)
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	runtimeapi.RegisterRuntimeServiceServer(s, f)
	runtimeapi.RegisterImageServiceServer(s, f)
	return s.Serve(l)
}

func (f *fake) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

func (f *fake) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
	}}}, nil
}

func (f *fake) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{}}, nil
}

func (f *fake) ListPodSandbox(_ context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	if id := r.GetFilter().GetId(); id != "" {
		if i, ok := f.bySandbox[id]; ok {
			return &runtimeapi.ListPodSandboxResponse{Items: f.sandboxes[i : i+1]}, nil
		}
		return &runtimeapi.ListPodSandboxResponse{}, nil
	}
	return &runtimeapi.ListPodSandboxResponse{Items: f.sandboxes}, nil
}

func (f *fake) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	resp := &runtimeapi.ListContainersResponse{}
	for _, c := range f.containers {
		if strings.HasPrefix(c.Id, r.GetFilter().GetId()) && strings.HasPrefix(c.PodSandboxId, r.GetFilter().GetPodSandboxId()) {
			resp.Containers = append(resp.Containers, c)
		}
	}
	return resp, nil
}

func (f *fake) PodSandboxStatus(_ context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	i, ok := f.bySandbox[r.PodSandboxId]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "sandbox %q: not found", r.PodSandboxId)
	}
	sb := f.sandboxes[i]
	return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{
		Id: sb.Id, Metadata: sb.Metadata, State: sb.State, CreatedAt: sb.CreatedAt, Labels: sb.Labels, Annotations: sb.Annotations,
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.1.2.3"},
	}}, nil
}

func (f *fake) ContainerStatus(_ context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	i, ok := f.byContainer[r.ContainerId]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "container %q: not found", r.ContainerId)
	}
	c := f.containers[i]
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{
		Id: c.Id, Metadata: c.Metadata, State: c.State, CreatedAt: c.CreatedAt, StartedAt: c.CreatedAt, Image: c.Image, ImageRef: c.ImageRef,
		Labels: c.Labels, Annotations: c.Annotations, LogPath: "/var/log/pods/production_web/main/0.log",
	}}, nil
}

// UpdateContainerResources is the change that costs nothing by itself.
func (f *fake) UpdateContainerResources(context.Context, *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}
