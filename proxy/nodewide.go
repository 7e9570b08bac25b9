package proxy

import (
	"context"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// Version of the kubelet's runtime API as each runtime reports it, and the
// CRI version that crimux speaks.
const (
	kubeletAPIVersion = "0.1.0"
	criAPIVersion     = "v1"
)

// nodeWide answers the calls that are about the node as one runtime.
func (s *Server) nodeWide(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	var msg proto.Message
	var err error
	switch m.full {
	case runtimeapi.RuntimeService_Version_FullMethodName:
		msg = s.versionAnswer()
	case runtimeapi.RuntimeService_Status_FullMethodName:
		msg, err = s.status(ctx, frame)
	case runtimeapi.RuntimeService_RuntimeConfig_FullMethodName:
		return s.runtimeConfig(ctx, m, frame)
	default:
		return s.updateRuntimeConfig(ctx, m, frame)
	}
	if err != nil {
		return backends.Answer{}, err
	}
	f, err := encoded(msg)
	return backends.Answer{Body: f}, err
}

// versionAnswer needs no backend: the kubelet exits at start where Version is
// not answered, and it must start while a runtime is away. The runtime name
// is the configured one, since tools on the node parse it.
func (s *Server) versionAnswer() *runtimeapi.VersionResponse {
	return &runtimeapi.VersionResponse{
		Version:           kubeletAPIVersion,
		RuntimeName:       s.config.RuntimeName,
		RuntimeVersion:    s.version,
		RuntimeApiVersion: criAPIVersion,
	}
}

// runtimeConfig is that of the default backend, in its own words if it does
// not have the call, which tells the kubelet to go by its own setting; of
// another one as long as that one does not answer, unless that is known to
// differ. A node has one cgroup driver.
func (s *Server) runtimeConfig(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	parts := ask(ctx, s.defaultFirst(), m.full, frame)
	for _, p := range parts {
		if (p.err == nil || !absent(p.err)) && s.fence(p.member) == "" {
			return p.ans, p.err
		}
	}
	return parts[0].ans, parts[0].err
}
