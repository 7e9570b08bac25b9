package docker

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Run implements [backends.Runner]: it serves exec, attach and port-forward,
// follows the Engine's events, copies container logs and measures the disk,
// until ctx is done. Reads wait for it.
func (b *Backend) Run(ctx context.Context) error {
	b.ran.Store(true)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := b.srv.streams.Run(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("backend %s: streaming server: %w", b.name, err)
		}
		return nil
	})
	group.Go(func() error {
		b.srv.keepFed(ctx)
		return nil
	})
	group.Go(func() error {
		b.srv.pods.net.Run(ctx)
		return nil
	})
	group.Go(func() error {
		if b.srv.api.await(ctx) {
			b.srv.measureUsage(ctx)
		}
		return nil
	})
	group.Go(func() error { return b.srv.stats.Run(ctx) })
	return group.Wait()
}
