package docker

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// TestMalformedSweep sends every unary method an empty request, one with each
// of its messages present and empty, and bytes that are no message. The
// answer is a result or a status, and nothing is left behind.
func TestMalformedSweep(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	services := runtimeapi.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for k := range methods.Len() {
			m := methods.Get(k)
			name := "/" + string(services.Get(i).FullName()) + "/" + string(m.Name())
			if name == runtimeapi.RuntimeService_GetContainerEvents_FullMethodName {
				continue // has a test of its own
			}
			if m.IsStreamingServer() {
				// The front answers these over the unary lists.
				if _, err := c.Stream(t.Context(), name); status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), string(m.Name())) {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			for _, body := range [][]byte{nil, hollow(m.Input(), 6), {0xff}, protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte{0xff})} {
				sweepOne(t, c, name, body)
			}
		}
	}
	err := c.try(runtimeService+"FutureMethod", discard())
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "FutureMethod") {
		t.Errorf("unknown method: %v", err)
	}
}

func sweepOne(t *testing.T, c cri, method string, body []byte) {
	t.Helper()
	frame := backends.NewFrame(body)
	c.Bound(method, frame)
	answer, err := c.Invoke(t.Context(), &backends.Call{Method: method, Request: frame, Journal: backends.NoJournal})
	switch {
	case err == nil:
		answer.Body.Free()
	case status.Code(err) == codes.Unknown, status.Code(err) == codes.Internal:
		t.Errorf("%s(%x): %v", method, body, err)
	case status.Code(err) == codes.Unimplemented && !strings.Contains(err.Error(), method[strings.LastIndex(method, "/")+1:]):
		t.Errorf("%s(%x) does not name itself: %v", method, body, err)
	}
}

// hollow is a message with all its messages present, down to a depth, and
// nothing in them.
func hollow(d protoreflect.MessageDescriptor, depth int) []byte {
	var out []byte
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if f.Kind() != protoreflect.MessageKind || f.IsMap() || depth == 0 {
			continue
		}
		out = protowire.AppendTag(out, f.Number(), protowire.BytesType)
		out = protowire.AppendBytes(out, hollow(f.Message(), depth-1))
	}
	return out
}

// TestRefusedPodsLeaveNothing: what is refused is named, and has no effect.
func TestRefusedPodsLeaveNothing(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	for field, change := range map[string]func(*runtimeapi.RunPodSandboxRequest){
		"config.metadata":     func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata = nil },
		"config.metadata.uid": func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata.Uid = "" },
		"runtime_handler":     func(r *runtimeapi.RunPodSandboxRequest) { r.RuntimeHandler = "nothing" },
		"userns_options": func(r *runtimeapi.RunPodSandboxRequest) {
			r.Config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}
		},
		"crimux.dev/op": func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Labels["crimux.dev/op"] = "x" },
	} {
		r := &runtimeapi.RunPodSandboxRequest{Config: pod(t)}
		change(r)
		err := c.try(runtimeService+"RunPodSandbox", proto.Message(r))
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
