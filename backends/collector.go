package backends

import "context"

// NetworkCollector is a backend that can have its network plugins give back
// what belongs to no sandbox any more: the verb GC of CNI 1.1.
type NetworkCollector interface {
	// CollectNetworks takes away what is not of one of the sandboxes in keep.
	// These must be all sandboxes of the node, on whichever backend, ready or
	// not, since runtimes may share a network and its plugins: it must not be
	// called while any backend's sandboxes are not known. Sandboxes that the
	// backend is making are kept without being named. It does nothing unless
	// it is configured.
	CollectNetworks(ctx context.Context, keep []string) error
}
