package proxy

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store/eventpb"
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

// status merges the backends' status.
func (s *Server) status(ctx context.Context, frame *backends.Frame) (*runtimeapi.StatusResponse, error) {
	parts := ask(ctx, s.set.All(), runtimeapi.RuntimeService_Status_FullMethodName, frame)
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	list := make([]backendStatus, len(parts))
	for i, p := range parts {
		list[i] = backendStatus{name: p.member.Name(), err: p.err}
		if p.err != nil {
			continue
		}
		list[i].resp = new(runtimeapi.StatusResponse)
		if err := proto.Unmarshal(p.ans.Body.Bytes(), list[i].resp); err != nil {
			list[i].resp, list[i].err = nil, fmt.Errorf("its status cannot be decoded: %w", err)
		}
	}
	return s.mergeStatus(list), nil
}

// backendStatus is one backend's status: either resp or err is set.
type backendStatus struct {
	name string
	resp *runtimeapi.StatusResponse
	err  error
}

// mergeStatus makes one node status. RuntimeReady and NetworkReady are false
// only when no backend has them, since on false the kubelet stops syncing
// every pod; what is wrong with one backend is said in a condition of its own.
func (s *Server) mergeStatus(list []backendStatus) *runtimeapi.StatusResponse {
	out := &runtimeapi.StatusResponse{Status: new(runtimeapi.RuntimeStatus)}
	for _, name := range []string{runtimeapi.RuntimeReady, runtimeapi.NetworkReady} {
		out.Status.Conditions = append(out.Status.Conditions, anyCondition(name, list))
	}
	for _, b := range list {
		out.Status.Conditions = append(out.Status.Conditions, backendCondition(b))
	}
	out.RuntimeHandlers = s.mergeHandlers(list)
	out.Features = mergeFeatures(list)
	out.Info = mergeInfo(list)
	return out
}

// anyCondition is true where one backend has it true, and otherwise says for
// each why not.
func anyCondition(name string, list []backendStatus) *runtimeapi.RuntimeCondition {
	out := &runtimeapi.RuntimeCondition{Type: name, Reason: "NoBackendReady"}
	var why []string
	for _, b := range list {
		c := condition(b.resp, name)
		switch {
		case c.GetStatus():
			return &runtimeapi.RuntimeCondition{Type: name, Status: true}
		case b.err != nil:
			why = append(why, fmt.Sprintf("%s: %s", b.name, status.Convert(b.err).Message()))
		default:
			why = append(why, fmt.Sprintf("%s: %s", b.name, c.GetMessage()))
		}
	}
	out.Message = strings.Join(why, "; ")
	return out
}

func condition(resp *runtimeapi.StatusResponse, name string) *runtimeapi.RuntimeCondition {
	for _, c := range resp.GetStatus().GetConditions() {
		if c.GetType() == name {
			return c
		}
	}
	return nil
}

// backendCondition tells how one backend is, as Backend/NAME.
func backendCondition(b backendStatus) *runtimeapi.RuntimeCondition {
	out := &runtimeapi.RuntimeCondition{Type: "Backend/" + b.name}
	if b.err != nil {
		out.Reason, out.Message = "NotAnswering", status.Convert(b.err).Message()
		return out
	}
	for _, name := range []string{runtimeapi.RuntimeReady, runtimeapi.NetworkReady} {
		if c := condition(b.resp, name); !c.GetStatus() {
			out.Reason = name + "False"
			out.Message = fmt.Sprintf("%s is false: %s", name, c.GetMessage())
			return out
		}
	}
	out.Status = true
	return out
}

// mergeHandlers names each backend's handlers as the routes do. Where one
// front handler is served by two runtimes, as that of pods without a
// RuntimeClass during a migration, it has the features that both have.
func (s *Server) mergeHandlers(list []backendStatus) []*runtimeapi.RuntimeHandler {
	byName := make(map[string]*runtimeapi.RuntimeHandler)
	var out []*runtimeapi.RuntimeHandler
	for _, b := range list {
		for _, h := range b.resp.GetRuntimeHandlers() {
			for _, front := range s.config.FrontHandlers(b.name, h.GetName()) {
				if have := byName[front]; have != nil {
					have.Features = bothFeatures(have.Features, h.Features)
					continue
				}
				byName[front] = &runtimeapi.RuntimeHandler{Name: front, Features: bothFeatures(h.Features, h.Features)}
				out = append(out, byName[front])
			}
		}
	}
	return out
}

func bothFeatures(a, b *runtimeapi.RuntimeHandlerFeatures) *runtimeapi.RuntimeHandlerFeatures {
	return &runtimeapi.RuntimeHandlerFeatures{
		RecursiveReadOnlyMounts: a.GetRecursiveReadOnlyMounts() && b.GetRecursiveReadOnlyMounts(),
		UserNamespaces:          a.GetUserNamespaces() && b.GetUserNamespaces(),
	}
}

// mergeFeatures are the node-wide features: those that all backends have.
func mergeFeatures(list []backendStatus) *runtimeapi.RuntimeFeatures {
	var out *runtimeapi.RuntimeFeatures
	for _, b := range list {
		if b.resp == nil {
			continue
		}
		f := b.resp.GetFeatures()
		if out == nil {
			out = &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, UserNamespacesHostNetwork: true, MountOptions: true}
		}
		out.SupplementalGroupsPolicy = out.SupplementalGroupsPolicy && f.GetSupplementalGroupsPolicy()
		out.UserNamespacesHostNetwork = out.UserNamespacesHostNetwork && f.GetUserNamespacesHostNetwork()
		out.MountOptions = out.MountOptions && f.GetMountOptions()
	}
	return out
}

// mergeInfo is the verbose information, each key under its backend's name.
func mergeInfo(list []backendStatus) map[string]string {
	var out map[string]string
	for _, b := range list {
		for k, v := range b.resp.GetInfo() {
			if out == nil {
				out = make(map[string]string)
			}
			out[b.name+"/"+k] = v
		}
	}
	return out
}

// runtimeConfig is that of the default backend, in its own words if it does
// not have the call, which tells the kubelet to go by its own setting; of
// another one as long as that one does not answer. A node has one cgroup
// driver.
func (s *Server) runtimeConfig(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	parts := ask(ctx, s.defaultFirst(), m.full, frame)
	for _, p := range parts {
		if p.err == nil || !absent(p.err) {
			return p.ans, p.err
		}
	}
	return parts[0].ans, parts[0].err
}

// updateRuntimeConfig tells every backend, such as the node's pod CIDR. A
// backend that has no use for it may say Unimplemented.
func (s *Server) updateRuntimeConfig(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	began := time.Now()
	ans := backends.Answer{Body: backends.NewFrame(nil)}
	var failed error
	for _, p := range ask(ctx, s.set.All(), m.full, frame) {
		s.noteCalled(p.member.Name(), m, new(eventpb.Intent), p.err, time.Since(began))
		if p.err != nil && status.Code(p.err) != codes.Unimplemented && failed == nil {
			ans, failed = p.ans, p.err
		}
	}
	return ans, failed
}
