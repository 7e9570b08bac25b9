package docker

import (
	"context"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
)

// found is one of the pods' containers as the Engine shows it.
type found struct {
	container.InspectResponse
	object
	// asked is when the Engine was asked.
	asked time.Time
}

// lookUp returns a sandbox or container by its id. Whatever else the Engine
// has under that id or name is none of the kubelet's business: not found.
func (s *server) lookUp(ctx context.Context, kind, field, id string) (*found, error) {
	if id == "" {
		return nil, invalid(field, "is required")
	}
	f, err := s.inspect(ctx, kind, id)
	if err != nil {
		return nil, err
	}
	if s.ops.look(f.op, f.asked) == hidden {
		return nil, notFound(kindName(kind), id)
	}
	return f, nil
}

// inspect is lookUp for ids that are known to be some, whatever the operation
// that made them.
func (s *server) inspect(ctx context.Context, kind, id string) (*found, error) {
	asked := time.Now()
	// A name, or a path in the Engine's API, is no id.
	if strings.Trim(id, "0123456789abcdef") != "" {
		return nil, notFound(kindName(kind), id)
	}
	c, err := s.engine.ContainerInspect(ctx, id)
	if cerrdefs.IsNotFound(err) {
		return nil, notFound(kindName(kind), id)
	}
	if err != nil {
		return nil, s.fail(err, "inspect %s %s", kindName(kind), id)
	}
	o, ok := decodeObject(c.Name, c.Config.Labels)
	if !ok || o.kind != kind || !strings.HasPrefix(c.ID, id) {
		return nil, notFound(kindName(kind), id)
	}
	c.State.OOMKilled = c.State.OOMKilled || s.memory.has(c.ID)
	return &found{InspectResponse: c, object: o, asked: asked}, nil
}

func kindName(kind string) string {
	if kind == typeSandbox {
		return "sandbox"
	}
	return "container"
}

// listed is one of the pods' containers as the Engine lists it.
type listed struct {
	container.Summary
	object
	view visibility
}

// list returns what the Engine has of a kind and is to be seen.
func (s *server) list(ctx context.Context, kind string, more ...filters.KeyValuePair) ([]listed, error) {
	asked := time.Now()
	args := append([]filters.KeyValuePair{filters.Arg("label", labelType+"="+kind)}, more...)
	all, err := s.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(args...)})
	if err != nil {
		return nil, s.fail(err, "list %ss", kindName(kind))
	}
	out := make([]listed, 0, len(all))
	for _, c := range all {
		o, ok := decodeSummary(c)
		if !ok || o.kind != kind {
			continue
		}
		if v := s.ops.look(o.op, asked); v != hidden {
			out = append(out, listed{Summary: c, object: o, view: v})
		}
	}
	return out, nil
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
	return f.createdAt(engineTime(f.Created).Unix())
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
