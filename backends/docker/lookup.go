package docker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// found is one of the pods' containers as the Engine showed it at a time. It
// is shared, and never changed.
type found struct {
	container.InspectResponse
	object
	// asked is when the Engine was asked.
	asked time.Time
	// user is who the container's first process ran as when it was first seen;
	// nil where it never was.
	user *runtimeapi.ContainerUser
	// item is the encoded item of its list, without the state.
	item []byte
}

// seen returns a sandbox or container by its id, or the beginning of it, as it
// was last seen. Whatever else the Engine has under that id or name is none of
// the kubelet's business: not found.
func (s *server) seen(ctx context.Context, kind, field, id string) (*found, error) {
	if id == "" {
		return nil, invalid(field, "is required")
	}
	if err := s.cache.await(ctx); err != nil {
		return nil, s.fail(err, "%s %s", kindName(kind), id)
	}
	f := s.cache.get(id)
	if f == nil || f.kind != kind || s.ops.look(f.op) == hidden {
		return nil, notFound(kindName(kind), id)
	}
	return f, nil
}

// all returns the sandboxes or containers there are, newest first, as they
// were last seen.
func (s *server) all(ctx context.Context, kind string) ([]*found, error) {
	if err := s.cache.await(ctx); err != nil {
		return nil, s.fail(err, "list %ss", kindName(kind))
	}
	all := s.cache.all(kind)
	out := make([]*found, 0, len(all))
	for _, f := range all {
		if s.ops.look(f.op) != hidden {
			out = append(out, f)
		}
	}
	return out, nil
}

// lookUp is seen for those who are about to change something: it asks the
// Engine.
func (s *server) lookUp(ctx context.Context, kind, field, id string) (*found, error) {
	if id == "" {
		return nil, invalid(field, "is required")
	}
	f, err := s.inspect(ctx, kind, id)
	if err != nil {
		return nil, err
	}
	if s.ops.look(f.op) == hidden {
		return nil, notFound(kindName(kind), id)
	}
	return f, nil
}

// inspect is lookUp for ids that are known to be some, whatever the operation
// that made them. The kind "" is either. What it learns, the cache knows.
func (s *server) inspect(ctx context.Context, kind, id string) (*found, error) {
	asked := time.Now()
	// A name, or a path in the Engine's API, is no id.
	if strings.Trim(id, "0123456789abcdef") != "" {
		return nil, notFound(kindName(kind), id)
	}
	c, err := s.engine.ContainerInspect(ctx, id)
	if cerrdefs.IsNotFound(err) {
		if s.cache.peek(id) != nil {
			s.forget(id)
		}
		return nil, notFound(kindName(kind), id)
	}
	if err != nil {
		return nil, s.fail(err, "inspect %s %s", kindName(kind), id)
	}
	f, ok := s.newFound(c, asked)
	if !ok || kind != "" && f.kind != kind || !strings.HasPrefix(f.ID, id) {
		return nil, notFound(kindName(kind), id)
	}
	s.adopt(ctx, f)
	if f.item, err = f.encodeItem(); err != nil {
		return nil, s.fail(err, "encode %s %s", kindName(kind), id)
	}
	s.cache.put(f)
	return f, nil
}

// newFound reads what the Engine says; ok is false for what is no pod's.
func (s *server) newFound(c container.InspectResponse, asked time.Time) (f *found, ok bool) {
	o, ok := decodeObject(c.Name, c.Config.Labels)
	if !ok {
		return nil, false
	}
	// Nobody needs it, and it may hold secrets.
	c.Config.Env = nil
	c.State.OOMKilled = c.State.OOMKilled || s.memory.has(c.ID)
	s.pointed.correct(c.ID, c.State)
	f = &found{InspectResponse: c, object: o, asked: asked}
	if f.kind == typeContainer {
		f.user = s.firstUser(f)
	}
	return f, true
}

// firstUser is who the container began as. It is looked up once: what the
// process makes of itself later is its own business.
func (s *server) firstUser(f *found) *runtimeapi.ContainerUser {
	if before := s.cache.peek(f.ID); before != nil && before.user != nil && before.State.StartedAt == f.State.StartedAt {
		return before.user
	}
	if !f.State.Running {
		return nil
	}
	// It may end at any time; that its user is not known then is no error.
	user, err := s.node.proc.userOf(f.State.Pid, f.ID)
	if err != nil && !errors.Is(err, errEnded) {
		s.log.Debug("user of a container is not known", "container", f.ID, "error", err)
	}
	return user
}

func kindName(kind string) string {
	if kind == typeSandbox {
		return "sandbox"
	}
	return "container"
}

// listed is one of the pods' containers as the Engine lists it, be it shown
// to the kubelet or not.
type listed struct {
	container.Summary
	object
}

// decodeSummary reads a listed container, which may have names of links too.
func decodeSummary(c container.Summary) (object, bool) {
	i := slices.IndexFunc(c.Names, func(n string) bool { return strings.Count(n, "/") == 1 })
	if i < 0 {
		return object{}, false
	}
	return decodeObject(c.Names[i], c.Labels)
}

// engineTime reads one of the Engine's times; 0 for none.
func engineTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// nanos is a time as the CRI writes it.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// created is the CRI's created_at.
func (f *found) createdAtNanos() int64 {
	return f.createdAt(engineTime(f.Created))
}

// matches applies a label selector exactly.
func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
