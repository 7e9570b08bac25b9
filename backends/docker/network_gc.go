package docker

import (
	"context"
	"errors"
	"slices"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/crimux/crimux/backends"
)

var _ backends.NetworkCollector = (*Backend)(nil)

// CollectNetworks implements [backends.NetworkCollector]. Besides those that it
// is told of it keeps every sandbox that the Engine has: to take the network
// from a pod that runs would be worse than to leave something behind.
func (b *Backend) CollectNetworks(ctx context.Context, keep []string) error {
	s := b.srv
	if !s.collect {
		return nil
	}
	if err := s.api.ensure(ctx); err != nil {
		return s.fail(err, "collect networks")
	}
	all, err := s.engine.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelType+"="+typeSandbox)),
	})
	if err != nil {
		return s.fail(err, "collect networks: list sandboxes")
	}
	keep = slices.Clone(keep)
	for _, c := range all {
		keep = append(keep, c.ID)
	}
	removed, err := s.pods.net.GC(ctx, keep)
	for _, id := range removed {
		err = errors.Join(err, s.pods.pins.unpin(id))
		s.pods.forget(id)
	}
	if err != nil {
		return s.fail(err, "collect networks")
	}
	return nil
}
