package backends

import "context"

// Reclaimer is a backend that holds things for its sandboxes which do not go
// with them, such as their networks. Where somebody removed a sandbox behind
// crimux's back, nobody will ever ask to remove it.
type Reclaimer interface {
	// Reclaim gives back what a sandbox has left that is gone. It may be
	// repeated, and does nothing for one that is still there.
	Reclaim(ctx context.Context, sandboxID string) error
}
