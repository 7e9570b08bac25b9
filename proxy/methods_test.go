package proxy

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// every calls fn for each RPC of the CRI that this module is built with.
func every(fn func(full string, m protoreflect.MethodDescriptor)) int {
	n := 0
	services := runtimeapi.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			fn("/"+string(services.Get(i).FullName())+"/"+string(m.Name()), m)
			n++
		}
	}
	return n
}

func TestEveryRPCHasARoute(t *testing.T) {
	n := every(func(full string, d protoreflect.MethodDescriptor) {
		m := methods[full]
		if m == nil {
			t.Errorf("%s has no row in the table", full)
			return
		}
		if m.streams != d.IsStreamingServer() {
			t.Errorf("%s: streams = %v", m.name, m.streams)
		}
		want := map[class]string{bySandbox: "pod_sandbox_id", byContainer: "container_id"}[m.class]
		if f := d.Input().Fields().ByNumber(idField); want != "" && (f == nil || string(f.Name()) != want) {
			t.Errorf("%s is routed by field 1, which is %v, not %s", m.name, f, want)
		}
		if m.unary != "" {
			sameItems(t, d, methods[m.unary])
		}
	})
	if n != len(methods) {
		t.Errorf("the table has %d rows for %d RPCs", len(methods), n)
	}
}

// sameItems: the streaming form of a list has the same requests and answers
// on the wire.
func sameItems(t *testing.T, d protoreflect.MethodDescriptor, unary *method) {
	every(func(full string, u protoreflect.MethodDescriptor) {
		if full != unary.full {
			return
		}
		a, b := d.Output().Fields().ByNumber(1), u.Output().Fields().ByNumber(1)
		if a.Message() != b.Message() || d.Output().Fields().Len() != u.Output().Fields().Len() {
			t.Errorf("%s and %s do not answer with the same items", d.Name(), u.Name())
		}
	})
}

// TestFieldNumbers holds the numbers that are read on the wire against the
// descriptors.
func TestFieldNumbers(t *testing.T) {
	file := runtimeapi.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto.Messages()
	for _, row := range []struct {
		message string
		num     protowire.Number
		name    string
	}{
		{"RunPodSandboxRequest", 1, "config"}, {"RunPodSandboxRequest", 2, "runtime_handler"},
		{"RestorePodRequest", 2, "config"}, {"RestorePodRequest", 3, "runtime_handler"},
		{"PodSandboxConfig", 1, "metadata"}, {"PodSandboxConfig", 3, "log_directory"},
		{"PodSandboxConfig", 6, "labels"}, {"PodSandboxConfig", 7, "annotations"},
		{"PodSandboxMetadata", 1, "name"}, {"PodSandboxMetadata", 2, "uid"},
		{"PodSandboxMetadata", 3, "namespace"}, {"PodSandboxMetadata", 4, "attempt"},
		{"CreateContainerRequest", 2, "config"}, {"ContainerConfig", 1, "metadata"}, {"ContainerConfig", 2, "image"},
		{"ContainerConfig", 3, "command"}, {"ContainerConfig", 4, "args"}, {"ContainerConfig", 6, "envs"},
		{"ContainerConfig", 9, "labels"}, {"ContainerConfig", 10, "annotations"}, {"ContainerConfig", 11, "log_path"},
		{"KeyValue", 2, "value"}, {"ContainerMetadata", 1, "name"}, {"ContainerMetadata", 2, "attempt"},
		{"StopContainerRequest", 2, "timeout"}, {"ExecSyncResponse", 3, "exit_code"},
		{"PullImageRequest", 1, "image"}, {"PullImageRequest", 2, "auth"}, {"PullImageRequest", 3, "sandbox_config"},
		{"AuthConfig", authServer, "server_address"},
		{"ImageSpec", 1, "image"}, {"ImageSpec", 2, "annotations"}, {"ImageSpec", imageHandler, "runtime_handler"},
		{"Image", 7, "spec"}, {"ImageStatusResponse", 1, "image"}, {"ImageStatusRequest", 1, "image"}, {"RemoveImageRequest", 1, "image"},
		{"PodSandbox", 1, "id"}, {"PodSandbox", 2, "metadata"}, {"PodSandbox", 3, "state"}, {"PodSandbox", 4, "created_at"},
		{"PodSandbox", 5, "labels"}, {"PodSandbox", 6, "annotations"}, {"PodSandbox", 7, "runtime_handler"},
		{"PodSandboxStatusResponse", 1, "status"}, {"PodSandboxStatus", 3, "state"}, {"PodSandboxStatus", 9, "runtime_handler"},
		{"Container", 1, "id"}, {"Container", 2, "pod_sandbox_id"}, {"Container", 3, "metadata"}, {"Container", 4, "image"},
		{"Container", 5, "image_ref"}, {"Container", 6, "state"}, {"Container", 7, "created_at"},
		{"Container", 8, "labels"}, {"Container", 9, "annotations"}, {"Container", 10, "image_id"},
		{"ContainerStatusResponse", 1, "status"}, {"ContainerStatus", 3, "state"}, {"ContainerStatus", 5, "started_at"},
		{"ContainerStatus", 6, "finished_at"}, {"ContainerStatus", 7, "exit_code"}, {"ContainerStatus", 8, "image"},
		{"ContainerStatus", 10, "reason"}, {"ContainerStatus", 15, "log_path"},
		{"PodSandboxFilter", 1, "id"}, {"PodSandboxFilter", 2, "state"}, {"PodSandboxFilter", 3, "label_selector"},
		{"ContainerFilter", 1, "id"}, {"ContainerFilter", 2, "state"}, {"ContainerFilter", 3, "pod_sandbox_id"}, {"ContainerFilter", 4, "label_selector"},
		{"MetricDescriptor", 1, "name"},
	} {
		d := file.ByName(protoreflect.Name(row.message))
		if d == nil {
			t.Errorf("there is no message %s", row.message)
			continue
		}
		if f := d.Fields().ByNumber(row.num); f == nil || string(f.Name()) != row.name {
			t.Errorf("%s field %d is %v, not %s", row.message, row.num, f, row.name)
		}
	}
}

// TestEveryAnswerIDIsFieldOne: what an operation returns is read from field 1.
func TestEveryAnswerIDIsFieldOne(t *testing.T) {
	every(func(full string, d protoreflect.MethodDescriptor) {
		if m := methods[full]; m != nil && returnsID(m) {
			if f := d.Output().Fields().ByNumber(idField); f.Kind() != protoreflect.StringKind {
				t.Errorf("%s: field 1 of the answer is %s", m.name, f.Name())
			}
		}
	})
}
