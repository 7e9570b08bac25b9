package proxy

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// backendStatus is one backend's status.
type backendStatus struct {
	name string
	// Either resp or err is set.
	resp *runtimeapi.StatusResponse
	err  error
	// last is resp, or where there is none what the backend said last; nil
	// where it has not said anything yet. What a runtime can do does not end
	// while it is away.
	last *runtimeapi.StatusResponse
	// routed is set where new pods may be put there.
	routed bool
	// fence says why none are all the same.
	fence string
}

// why is what err says, as text that an answer can have in it: of gRPC's
// messages nobody has made sure.
func (b *backendStatus) why() string { return valid(status.Convert(b.err).Message()) }

// status merges the backends' status.
func (s *Server) status(ctx context.Context, frame *backends.Frame) (*runtimeapi.StatusResponse, error) {
	parts := ask(ctx, s.set.All(), runtimeapi.RuntimeService_Status_FullMethodName, frame)
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	list := make([]backendStatus, len(parts))
	for i, p := range parts {
		b := backendStatus{name: p.member.Name(), err: p.err, routed: s.routed(p.member.Name()), fence: s.fence(p.member)}
		if p.err == nil {
			b.resp = new(runtimeapi.StatusResponse)
			if err := proto.Unmarshal(p.ans.Body.Bytes(), b.resp); err != nil {
				b.resp, b.err = nil, fmt.Errorf("its status cannot be decoded: %w", err)
			}
		}
		b.last = s.attendants[b.name].keepStatus(b.resp)
		list[i] = b
	}
	return s.mergeStatus(list), nil
}

// keepStatus remembers resp, unless it is nil, and returns the last one.
func (t *attendant) keepStatus(resp *runtimeapi.StatusResponse) *runtimeapi.StatusResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
	if resp != nil {
		t.status = resp
	}
	return t.status
}

// routed tells whether the policy may put new pods on a backend: as the
// default, by a route, or by the migration, at whatever percentage. One that
// is not has old pods at most.
func (s *Server) routed(backend string) bool {
	if backend == s.config.Default || backend == s.config.Migration.To {
		return true
	}
	for _, r := range s.config.Routes {
		if r.Backend == backend {
			return true
		}
	}
	return false
}

// mergeStatus makes one node status. RuntimeReady and NetworkReady are false
// only when no routed backend has them, since on false the kubelet stops
// syncing every pod; what is wrong with one backend is said in a condition of
// its own.
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
	for _, b := range list {
		if b.name == s.config.Default && b.resp != nil {
			// What is newer than this version of crimux is the default's.
			out.ProtoReflect().SetUnknown(b.resp.ProtoReflect().GetUnknown())
		}
	}
	return out
}

// anyCondition is true where one routed backend has it true, and otherwise
// says for each why not.
func anyCondition(name string, list []backendStatus) *runtimeapi.RuntimeCondition {
	out := &runtimeapi.RuntimeCondition{Type: name, Reason: "NoBackendReady"}
	var why []string
	for _, b := range list {
		if !b.routed {
			continue
		}
		c := condition(b.resp, name)
		switch {
		case c.GetStatus():
			return &runtimeapi.RuntimeCondition{Type: name, Status: true}
		case b.err != nil:
			why = append(why, fmt.Sprintf("%s: %s", b.name, b.why()))
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

// cgroupDriverDiffers is the reason of a backend that is fenced.
const cgroupDriverDiffers = "CgroupDriverDiffers"

// backendCondition tells how one backend is, as Backend/NAME.
func backendCondition(b backendStatus) *runtimeapi.RuntimeCondition {
	out := &runtimeapi.RuntimeCondition{Type: "Backend/" + b.name}
	if b.err != nil {
		out.Reason, out.Message = "NotAnswering", b.why()
		return out
	}
	if b.fence != "" {
		out.Reason, out.Message = cgroupDriverDiffers, b.fence
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

// destination is a backend and the handler that it is told.
type destination struct{ backend, handler string }

// frontHandlers are the handlers that pods can ask for, each with where its
// pods may go: those without a RuntimeClass to two runtimes in a migration.
func (s *Server) frontHandlers() (names []string, to map[string][]destination) {
	names = []string{""}
	to = map[string][]destination{"": {{s.config.Default, ""}}}
	if m := s.config.Migration; m.To != "" {
		to[""] = append(to[""], destination{m.To, m.BackendHandler})
	}
	for _, r := range s.config.Routes {
		names = append(names, r.Handler)
		to[r.Handler] = []destination{{r.Backend, r.BackendHandler}}
	}
	return names, to
}

// mergeHandlers names each backend's handlers as the routes do. A handler
// whose pods may go to two runtimes has the features that both have. Of a
// runtime that does not list its handlers, or lacks one, none is known.
func (s *Server) mergeHandlers(list []backendStatus) []*runtimeapi.RuntimeHandler {
	known := make(map[string]bool)
	features := make(map[destination]*runtimeapi.RuntimeHandler)
	for _, b := range list {
		known[b.name] = b.last != nil
		for _, h := range b.last.GetRuntimeHandlers() {
			features[destination{b.name, h.GetName()}] = h
		}
	}
	names, to := s.frontHandlers()
	var out []*runtimeapi.RuntimeHandler
	for _, name := range names {
		var merged *runtimeapi.RuntimeHandlerFeatures
		listed := false
		for _, d := range to[name] {
			h := features[d]
			listed = listed || h != nil
			switch {
			case !known[d.backend]:
			case merged == nil:
				merged = bothFeatures(h.GetFeatures(), h.GetFeatures())
			default:
				merged = bothFeatures(merged, h.GetFeatures())
			}
		}
		if listed {
			out = append(out, &runtimeapi.RuntimeHandler{Name: name, Features: merged})
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

// mergeFeatures are the node-wide features: those that all routed backends
// have.
func mergeFeatures(list []backendStatus) *runtimeapi.RuntimeFeatures {
	var out *runtimeapi.RuntimeFeatures
	for _, b := range list {
		if b.last == nil || !b.routed {
			continue
		}
		f := b.last.GetFeatures()
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
