package proxy

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store/eventpb"
)

// What an intent holds of a request is an allow-list: names, ids, labels, the
// annotations below, the image, the log's place. Commands, arguments and
// credentials are not read at all, and the environment only where it is
// configured.

// sandboxIntent records a new sandbox and where the policy puts it.
func (s *Server) sandboxIntent(m *method, config wire.Message, pod *eventpb.PodKey, r policy.Route) *eventpb.Intent {
	return &eventpb.Intent{
		Method: m.name,
		Pod:    pod,
		Route: &eventpb.Route{
			Handler: r.Handler, Backend: r.Backend, BackendHandler: r.BackendHandler, Rule: r.Rule, Epoch: r.Epoch,
		},
		Labels:       text(config.Map(6)),
		Annotations:  s.annotations(config.Map(7)),
		LogDirectory: valid(config.String(3)),
	}
}

// sandboxCallIntent records a call about a sandbox, which the state may not
// know.
func sandboxCallIntent(m *method, id string, sb *eventpb.Sandbox) *eventpb.Intent {
	in := &eventpb.Intent{Method: m.name, SandboxId: valid(id)}
	if sb != nil {
		in.SandboxId, in.Pod = sb.GetId(), sb.GetPod()
	}
	return in
}

// containerCallIntent records a call about a container, which the state may
// not know.
func containerCallIntent(m *method, id string, ctr *eventpb.Container, sb *eventpb.Sandbox) *eventpb.Intent {
	in := sandboxCallIntent(m, "", sb)
	in.ContainerId = valid(id)
	if ctr != nil {
		in.ContainerId, in.SandboxId = ctr.GetId(), ctr.GetSandboxId()
		in.ContainerName, in.ContainerAttempt = ctr.GetName(), ctr.GetAttempt()
	}
	return in
}

// containerIntent adds to in what is recorded of a ContainerConfig.
func (s *Server) containerIntent(in *eventpb.Intent, config wire.Message) {
	meta, image := config.Msg(1), config.Msg(2)
	in.ContainerName, in.ContainerAttempt = valid(meta.String(1)), uint32(meta.Uint(2))
	in.Image = valid(image.String(1))
	in.Labels, in.Annotations = text(config.Map(9)), s.annotations(config.Map(10))
	in.LogPath = valid(config.String(11))
	in.Environment = s.environment(config)
}

// environment keeps of a container's environment what the operator wants kept.
func (s *Server) environment(config wire.Message) (kept []*eventpb.EnvVar) {
	names := s.config.Record.Environment == policy.EnvironmentNames
	values := s.config.Record.Environment == policy.EnvironmentValues
	if !names && !values {
		return nil
	}
	config.Each(6, func(kv wire.Message) bool {
		v := &eventpb.EnvVar{Name: valid(kv.String(1))}
		if values {
			v.Value = valid(kv.String(2))
		}
		kept = append(kept, v)
		return true
	})
	return kept
}

// annotations keeps the keys that may be recorded: those of Kubernetes' own
// node components, what the operator configured, and those by which the
// requests about a pod's images are told apart.
func (s *Server) annotations(all map[string]string) map[string]string {
	kept := make(map[string]string)
	for k, v := range all {
		if slices.Contains(configKeys, k) || s.config.Record.Keeps(k) {
			kept[valid(k)] = valid(v)
		}
	}
	return kept
}

// text makes a map fit for the log, whose strings are UTF-8.
func text(kv map[string]string) map[string]string {
	out := make(map[string]string, len(kv))
	for k, v := range kv {
		out[valid(k)] = valid(v)
	}
	return out
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// recordBehind carries out a call that changes no lifecycle and notes it
// without making anybody wait.
func (s *Server) recordBehind(ctx context.Context, c *call) (backends.Answer, error) {
	began := time.Now()
	a, err := read(ctx, c.target, c.method.full, c.frame)
	s.noteCalled(c.target.Name(), c.method, c.intent, err, time.Since(began))
	return a, err
}

// noteCalled records that a call was made, and its code: never its message,
// which may quote the command.
func (s *Server) noteCalled(backend string, m *method, in *eventpb.Intent, err error, took time.Duration) {
	s.log.Append(&eventpb.Event{Backend: backend, Kind: &eventpb.Event_Called{Called: &eventpb.Called{
		Method: m.name, SandboxId: in.GetSandboxId(), ContainerId: in.GetContainerId(),
		Code: uint32(status.Code(err)), Duration: int64(took),
	}}})
}

// maxMessage bounds an error message in the log.
const maxMessage = 1 << 10

// clean makes an error message fit for the log: what of the request is not
// recorded is struck out where the backend quotes it, and the rest is cut.
func clean(msg string, c *call) string {
	for _, secret := range notRecordedValues(c) {
		msg = strings.ReplaceAll(msg, secret, "[not recorded]")
	}
	msg = valid(msg)
	if len(msg) > maxMessage {
		msg = strings.ToValidUTF8(msg[:maxMessage], "") + "…"
	}
	return msg
}

// minSecret is the length below which a value is no secret and striking it
// out would only garble the message.
const minSecret = 4

// authServer is AuthConfig.server_address, the one field that is no secret.
const authServer protowire.Number = 4

// notRecordedValues returns the values of a request that must not be in the log.
func notRecordedValues(c *call) []string {
	req := wire.Message(c.frame.Bytes())
	var values []string
	add := func(v string) {
		if len(v) >= minSecret {
			values = append(values, v)
		}
	}
	switch c.method.name {
	case "CreateContainer":
		config := req.Msg(2)
		config.Each(6, func(env wire.Message) bool { add(env.String(2)); return true })
		config.Each(3, func(v wire.Message) bool { add(string(v)); return true })
		config.Each(4, func(v wire.Message) bool { add(string(v)); return true })
	case "PullImage":
		auth := req.Msg(2)
		for num := protowire.Number(1); num <= 6; num++ {
			if num != authServer {
				add(auth.String(num))
			}
		}
	}
	return values
}
