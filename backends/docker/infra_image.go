package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"github.com/crimux/crimux/backends/docker/infra"
)

const (
	// infraPullBound is how long a pod waits at most for a pull of the
	// configured image before it gets the built-in one.
	infraPullBound = 20 * time.Second
	// infraPullPause is for how long after a failed pull none is tried.
	infraPullPause = 10 * time.Minute
)

// infraImage chooses the image of the pods' infra containers.
type infraImage struct {
	configured string
	engine     engine
	// missing is held while an image is fetched: one fetch serves all.
	missing *keyLocks
	failed  time.Time // of the last pull; under missing
}

func newInfraImage(configured string, e engine) *infraImage {
	return &infraImage{configured: configured, engine: e, missing: newKeyLocks()}
}

// ensure returns an image that is on the Engine.
func (i *infraImage) ensure(ctx context.Context) (image.InspectResponse, error) {
	if i.configured == "" {
		return i.builtin(ctx)
	}
	img, err := i.engine.ImageInspect(ctx, i.configured)
	if !cerrdefs.IsNotFound(err) {
		return img, err
	}
	unlock, err := i.missing.lock(ctx, i.configured)
	if err != nil {
		return image.InspectResponse{}, err
	}
	defer unlock()
	if time.Since(i.failed) < infraPullPause {
		return i.load(ctx)
	}
	img, err = i.pull(ctx)
	if err == nil {
		return img, nil
	}
	if ctx.Err() != nil {
		return image.InspectResponse{}, ctx.Err()
	}
	i.failed = time.Now()
	img, loadErr := i.load(ctx)
	if loadErr != nil {
		return img, fmt.Errorf("pod infra image %s cannot be had: %w; nor the built-in one: %w", i.configured, err, loadErr)
	}
	return img, nil
}

// pull fetches the configured image, unless another pod's call just did.
func (i *infraImage) pull(ctx context.Context) (image.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, infraPullBound)
	defer cancel()
	img, err := i.engine.ImageInspect(ctx, i.configured)
	if !cerrdefs.IsNotFound(err) {
		return img, err
	}
	progress, err := i.engine.ImagePull(ctx, i.configured, image.PullOptions{})
	if err != nil {
		return image.InspectResponse{}, err
	}
	if err := watchPull(progress); err != nil {
		return image.InspectResponse{}, err
	}
	return i.engine.ImageInspect(ctx, i.configured)
}

// builtin returns the built-in image where no other is configured.
func (i *infraImage) builtin(ctx context.Context) (image.InspectResponse, error) {
	unlock, err := i.missing.lock(ctx, infra.Reference)
	if err != nil {
		return image.InspectResponse{}, err
	}
	defer unlock()
	return i.load(ctx)
}

// load returns the built-in image, loading it where it is not on the Engine.
func (i *infraImage) load(ctx context.Context) (image.InspectResponse, error) {
	img, err := i.engine.ImageInspect(ctx, infra.Reference)
	if !cerrdefs.IsNotFound(err) {
		return img, err
	}
	archive, err := infra.Archive()
	if err != nil {
		return image.InspectResponse{}, err
	}
	answer, err := i.engine.ImageLoad(ctx, archive)
	if err != nil {
		return image.InspectResponse{}, fmt.Errorf("load the built-in pod infra image: %w", err)
	}
	_, readErr := io.Copy(io.Discard, answer.Body)
	if err := errors.Join(readErr, answer.Body.Close()); err != nil {
		return image.InspectResponse{}, fmt.Errorf("load the built-in pod infra image: %w", err)
	}
	return i.engine.ImageInspect(ctx, infra.Reference)
}

// pinned reports whether an image with these names must not be collected.
func (i *infraImage) pinned(names []string) bool {
	for _, n := range names {
		if n == infra.Reference || i.configured != "" && n == i.configured {
			return true
		}
	}
	return false
}
