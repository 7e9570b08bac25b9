package backends

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Set is the backends of a node, in the order of the configuration.
type Set struct {
	members []*Member
	byName  map[string]*Member
}

// NewSet returns a set of the given backends, whose names must differ.
// Nothing is contacted before Run.
func NewSet(p Probing, list ...Backend) (*Set, error) {
	s := &Set{byName: make(map[string]*Member, len(list))}
	for _, b := range list {
		if s.byName[b.Name()] != nil {
			return nil, fmt.Errorf("backend %q occurs twice", b.Name())
		}
		m := newMember(b, p)
		s.members = append(s.members, m)
		s.byName[b.Name()] = m
	}
	return s, nil
}

// Get returns the backend of that name, or nil.
func (s *Set) Get(name string) *Member { return s.byName[name] }

// All returns the members in order. The slice must not be changed.
func (s *Set) All() []*Member { return s.members }

// OnChange names the function that is told of each change of health, one
// change of a member at a time. It must be called before Run.
func (s *Set) OnChange(fn func(*Member, Health)) {
	for _, m := range s.members {
		m.changed = fn
	}
}

// Run probes the backends and runs those that work in the background, until
// ctx is done or the first of them fails.
func (s *Set) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, m := range s.members {
		wg.Go(func() { m.run(ctx) })
		r, ok := m.Backend.(Runner)
		if !ok {
			continue
		}
		wg.Go(func() {
			if err := r.Run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("backend %q: %w", m.Name(), err))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Close closes every backend.
func (s *Set) Close() error {
	var errs []error
	for _, m := range s.members {
		if err := m.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close backend %q: %w", m.Name(), err))
		}
	}
	return errors.Join(errs...)
}
