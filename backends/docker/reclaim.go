package docker

import (
	"context"

	"github.com/crimux/crimux/backends"
)

var _ backends.Reclaimer = (*Backend)(nil)

// Reclaim implements [backends.Reclaimer]: the network, its kept namespace and
// the checkpoint.
func (b *Backend) Reclaim(ctx context.Context, sandboxID string) error {
	s := b.srv
	if err := s.api.ensure(ctx); err != nil {
		return s.fail(err, "clean up sandbox %s", sandboxID)
	}
	return s.onSandbox(ctx, sandboxID, func(context.Context, *found) error { return nil })
}
