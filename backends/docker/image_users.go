package docker

import (
	"context"
	"sync"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"golang.org/x/sync/errgroup"
)

// imageUsers are the users that the images run as, by id. A list of images
// does not say, an inspection does; and what an id stands for never changes.
type imageUsers struct {
	mu   sync.Mutex
	byID map[string]string
}

// inspectionsAtOnce bounds what the first list asks of the Engine.
const inspectionsAtOnce = 4

// of returns the users of the images. It keeps those and no others, so there
// are never more than the node has images.
func (u *imageUsers) of(ctx context.Context, s *server, all []image.Summary) (map[string]string, error) {
	u.mu.Lock()
	known := u.byID
	u.mu.Unlock()
	var lock sync.Mutex
	users := make(map[string]string, len(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inspectionsAtOnce)
	for _, i := range all {
		if user, ok := known[i.ID]; ok {
			lock.Lock()
			users[i.ID] = user
			lock.Unlock()
			continue
		}
		group.Go(func() error {
			return safely(func() error {
				img, err := s.engine.ImageInspect(ctx, i.ID)
				if cerrdefs.IsNotFound(err) {
					return nil // removed meanwhile
				}
				if err != nil {
					return s.fail(err, "inspect image %q", i.ID)
				}
				lock.Lock()
				defer lock.Unlock()
				users[i.ID] = ""
				if img.Config != nil {
					users[i.ID] = img.Config.User
				}
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	// Never changed once it is here: others may be reading it.
	u.byID = users
	return users, nil
}
