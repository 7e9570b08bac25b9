package docker

import (
	"errors"
	"maps"
	"testing"

	"github.com/docker/docker/api/types/image"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzTranslate: any request that can be decoded gives a configuration or
// InvalidArgument. The container is that of the sandbox, where there is one.
func FuzzTranslate(f *testing.F) {
	add := func(run *runtimeapi.RunPodSandboxRequest, create *runtimeapi.CreateContainerRequest) {
		a, errA := proto.Marshal(run)
		b, errB := proto.Marshal(create)
		if err := errors.Join(errA, errB); err != nil {
			f.Fatal(err)
		}
		f.Add(a, b)
	}
	add(&runtimeapi.RunPodSandboxRequest{}, &runtimeapi.CreateContainerRequest{})
	add(runRequest(func(c *runtimeapi.PodSandboxConfig) { c.Linux = nil }), createRequest("abc"))
	full := createRequest("abc")
	full.Config.Mounts = []*runtimeapi.Mount{{HostPath: "/a", ContainerPath: "/b", Image: nil}}
	full.Config.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{Capabilities: &runtimeapi.Capability{AddCapabilities: []string{"ALL"}}}}
	add(runRequest(func(*runtimeapi.PodSandboxConfig) {}), full)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var run runtimeapi.RunPodSandboxRequest
		var create runtimeapi.CreateContainerRequest
		if proto.Unmarshal(a, &run) != nil || proto.Unmarshal(b, &create) != nil {
			return
		}
		sandbox := testSandbox()
		able, node := ableFacts(), ableNode()
		if _, err := translateSandbox(&run, able, node); err != nil && status.Code(err) != codes.InvalidArgument {
			t.Errorf("sandbox on an able engine: %v", err)
		}
		if checkCreate(&create) == nil {
			if _, err := translateContainer(&create, sandbox, able, node); err != nil && status.Code(err) != codes.InvalidArgument {
				t.Errorf("container on an able engine: %v", err)
			}
		}
		s, err := translateSandbox(&run, testFacts(), testNode())
		if err == nil {
			err = s.finish(image.InspectResponse{ID: "sha256:1"}, "op", engineTime("2024-01-01T00:00:00Z"))
		}
		switch {
		case err == nil:
			sandbox.identity = s.id
			roundTrip(t, s.id, s.config.Labels, s.labels, s.annotations, typeSandbox)
		case status.Code(err) != codes.InvalidArgument:
			t.Errorf("sandbox: %v", err)
		}
		if err := checkCreate(&create); err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("container: %v", err)
			}
			return
		}
		c, err := translateContainer(&create, sandbox, testFacts(), testNode())
		if err == nil {
			err = c.finish(image.InspectResponse{}, "op", engineTime("2024-01-01T00:00:00Z"))
		}
		switch {
		case err == nil:
			roundTrip(t, c.id, c.config.Labels, c.labels, c.annotations, typeContainer)
		case status.Code(err) != codes.InvalidArgument:
			t.Errorf("container: %v", err)
		}
	})
}

// roundTrip checks that what is written is what is read back.
func roundTrip(t *testing.T, id identity, written, labels, annotations map[string]string, kind string) {
	t.Helper()
	o, ok := decodeObject("/"+id.name(), written)
	if !ok || o.identity != id || o.kind != kind || o.op != "op" {
		t.Fatalf("%+v reads back as %+v", id, o)
	}
	if !maps.Equal(o.labels, labels) && len(labels)+len(o.labels) > 0 || !maps.Equal(o.annotations, annotations) && len(annotations)+len(o.annotations) > 0 {
		t.Errorf("labels %v and annotations %v read back as %v and %v", labels, annotations, o.labels, o.annotations)
	}
}
