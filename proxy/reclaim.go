package proxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store/eventpb"
)

// reclaim has what vanished sandboxes left behind given back, before it is
// recorded that they are gone. One for which that fails stays known, so that
// it is tried again at the next look, and after a restart.
func (s *Server) reclaim(ctx context.Context, m *backends.Member, o *eventpb.Observed) error {
	r, ok := m.Backend.(backends.Reclaimer)
	if !ok {
		return nil
	}
	var errs []error
	o.GoneSandboxes = kept(o.GoneSandboxes, func(id string) bool {
		err := r.Reclaim(ctx, id)
		if err != nil {
			errs = append(errs, fmt.Errorf("sandbox %s was removed by somebody, and what it left cannot be given back: %w", id, err))
		}
		return err == nil
	})
	return errors.Join(errs...)
}
