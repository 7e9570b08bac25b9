package cni

import (
	"context"
	"fmt"
	"time"
)

// letFinish runs plugins. When ctx ends in the middle they have a grace to finish,
// as orphaned ones have: what is killed halfway leaves what no DEL finds, or what
// every DEL fails at.
func letFinish(ctx context.Context, grace time.Duration, plugins func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-run.Done():
		}
	})()
	err := plugins(run)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}
