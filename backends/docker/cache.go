package docker

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// seen returns a sandbox or container by its id, as it was last seen.
func (s *server) seen(ctx context.Context, kind, field, id string) (*found, error) {
	return s.lookUp(ctx, kind, field, id)
}

// all returns the sandboxes or containers there are, as they were last seen.
func (s *server) all(ctx context.Context, kind string) ([]*found, error) {
	items, err := s.list(ctx, kind)
	if err != nil {
		return nil, err
	}
	out := make([]*found, 0, len(items))
	for _, i := range items {
		f, err := s.inspect(ctx, kind, i.ID)
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}
