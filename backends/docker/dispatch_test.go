package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/cni"
)

func (b *bench) invoke(method string, req proto.Message) (backends.Answer, error) {
	body, err := proto.Marshal(req)
	if err != nil {
		return backends.Answer{}, err
	}
	return b.backend.Invoke(context.Background(), &backends.Call{Method: method, Request: backends.NewFrame(body), Journal: backends.NoJournal})
}

func TestInvoke(t *testing.T) {
	b := newBench(t)
	answer, err := b.invoke("/runtime.v1.RuntimeService/Version", &runtimeapi.VersionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var v runtimeapi.VersionResponse
	if err := proto.Unmarshal(answer.Body.Bytes(), &v); err != nil || v.RuntimeName != "docker" {
		t.Errorf("version %v, %v", &v, err)
	}
	for _, method := range []string{"/runtime.v1.RuntimeService/CheckpointPod", "/runtime.v1.RuntimeService/FutureMethod", "/runtime.v2.Other/FutureMethod"} {
		_, err := b.invoke(method, &runtimeapi.VersionRequest{})
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), method[strings.LastIndex(method, "/")+1:]) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestInvokePanics: a panic, here of a method that the fake lacks, ends the
// call and nothing else.
func TestInvokePanics(t *testing.T) {
	b := newBench(t)
	_, err := b.invoke("/runtime.v1.ImageService/ListImages", &runtimeapi.ListImagesRequest{})
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "ListImages") {
		t.Errorf("error %v", err)
	}
	err = safely(func() error { panic("x") })
	if status.Code(err) != codes.Internal {
		t.Errorf("error %v", err)
	}
}

func TestBound(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		method string
		req    proto.Message
		want   time.Duration
	}{
		{"RunPodSandbox", &runtimeapi.RunPodSandboxRequest{}, 4 * time.Minute},
		{"CreateContainer", &runtimeapi.CreateContainerRequest{}, 2 * time.Minute},
		{"StopContainer", &runtimeapi.StopContainerRequest{Timeout: 30}, 2*time.Minute + 30*time.Second},
		{"StopContainer", &runtimeapi.StopContainerRequest{Timeout: 1 << 62}, 24*time.Hour + 2*time.Minute},
		{"StopContainer", &runtimeapi.StopContainerRequest{Timeout: -1}, 2 * time.Minute},
		{"PullImage", &runtimeapi.PullImageRequest{}, 0}, {"ListContainers", &runtimeapi.ListContainersRequest{}, 0}, {"ExecSync", &runtimeapi.ExecSyncRequest{}, 0},
	} {
		body, err := proto.Marshal(c.req)
		if err != nil {
			t.Fatal(err)
		}
		d, ok := b.backend.Bound("/runtime.v1.RuntimeService/"+c.method, backends.NewFrame(body))
		if d != c.want || ok != (c.want != 0) {
			t.Errorf("%s: %s, %v", c.method, d, ok)
		}
	}
}

func TestErrors(t *testing.T) {
	s := newBench(t).server
	away, err := client.NewClientWithOpts(client.WithHost("unix:///nonexistent/d.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	_, refusedConn := away.Info(t.Context())
	for _, c := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{fmt.Errorf("x: %w", cerrdefs.ErrNotFound), codes.NotFound, "doing: x"},
		{cerrdefs.ErrConflict, codes.FailedPrecondition, ""},
		{cerrdefs.ErrInvalidArgument, codes.InvalidArgument, ""},
		{cerrdefs.ErrUnauthenticated, codes.Unauthenticated, ""},
		{cerrdefs.ErrInternal, codes.Internal, ""},
		{refusedConn, codes.Unavailable, "unix:///run/none.sock"},
		{&net.OpError{Op: "dial", Err: errors.New("x")}, codes.Unknown, ""},
		{context.DeadlineExceeded, codes.DeadlineExceeded, ""},
		{fmt.Errorf("wrapped: %w", status.Error(codes.ResourceExhausted, "full")), codes.ResourceExhausted, "doing: full"},
		{fmt.Errorf("%w: y", cni.ErrNoNetwork), codes.FailedPrecondition, ""},
		{errInjected, codes.Unknown, "doing: injected"},
	} {
		got := s.fail(c.err, "doing")
		if status.Code(got) != c.code || !strings.Contains(got.Error(), c.text) {
			t.Errorf("%v: %v, want %s", c.err, got, c.code)
		}
	}
}

func TestOptions(t *testing.T) {
	good := Options{Name: "docker", Endpoint: "unix:///run/docker.sock"}
	o, err := good.withDefaults()
	if err != nil || o.LogMaxSize != "50m" || o.LogMaxFiles != 5 || o.Logger == nil {
		t.Errorf("%+v, %v", o, err)
	}
	for name, change := range map[string]func(*Options){
		"name": func(o *Options) { o.Name = "" }, "tcp": func(o *Options) { o.Endpoint = "tcp://127.0.0.1:2375" },
		"relative": func(o *Options) { o.Endpoint = "unix://docker.sock" }, "one file": func(o *Options) { o.LogMaxFiles = 1 },
	} {
		o := good
		change(&o)
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRecoverOfNothing(t *testing.T) {
	b := newBench(t)
	for _, method := range []string{"StartContainer", "StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox", "RunPodSandbox", "CreateContainer", "PullImage"} {
		got, err := b.backend.Recover(t.Context(), backends.Unfinished{Op: "op", Method: "/runtime.v1.RuntimeService/" + method}, backends.NoJournal)
		if err != nil || got.Code != codes.Aborted || got.Message == "" {
			t.Errorf("%s: %+v, %v", method, got, err)
		}
	}
}
