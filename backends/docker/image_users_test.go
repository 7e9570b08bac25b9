package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// storeEngine is the fake Engine with images in it: users by id, names by id.
type storeEngine struct {
	*fakeEngine
	users map[string]string
	names map[string][]string
	using []container.Summary
	// asked, if set, is called by a list of containers, and by each removal.
	asked     func()
	inspected atomic.Int64
}

func (e *storeEngine) ImageList(context.Context, image.ListOptions) (all []image.Summary, err error) {
	return all, e.call("images", func() error {
		for id := range e.users {
			all = append(all, image.Summary{ID: id, RepoTags: e.names[id], RepoDigests: []string{"<none>@<none>"}, Size: 1})
		}
		return nil
	})
}

func (e *storeEngine) ImageInspect(_ context.Context, ref string, _ ...client.ImageInspectOption) (img image.InspectResponse, err error) {
	e.inspected.Add(1)
	return img, e.call("image", func() error {
		for id, user := range e.users {
			if id == ref || strings.Contains(" "+strings.Join(e.names[id], " ")+" ", " "+ref+" ") {
				img = image.InspectResponse{ID: id, RepoTags: e.names[id], Config: &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{User: user}}}
				return nil
			}
		}
		return fmt.Errorf("no such image: %w", cerrdefs.ErrNotFound)
	})
}

func (e *storeEngine) ImageRemove(_ context.Context, ref string, _ image.RemoveOptions) ([]image.DeleteResponse, error) {
	err := e.call("rmi "+ref, func() error {
		for id, names := range e.names {
			if id == ref && len(names) > 1 {
				return fmt.Errorf("it has several names: %w", cerrdefs.ErrConflict)
			}
			for i, n := range names {
				if n == ref {
					e.names[id] = append(append([]string{}, names[:i]...), names[i+1:]...)
					return nil
				}
			}
			if id == ref {
				delete(e.users, id)
				delete(e.names, id)
				return nil
			}
		}
		return fmt.Errorf("no such image: %w", cerrdefs.ErrNotFound)
	})
	if e.asked != nil {
		e.asked()
	}
	return nil, err
}

func (e *storeEngine) ContainerList(context.Context, container.ListOptions) ([]container.Summary, error) {
	if e.asked != nil {
		e.asked()
	}
	return e.using, nil
}

func imageID(n int) string { return fmt.Sprintf("sha256:%064x", n) }

func newStore(t *testing.T) (*bench, *storeEngine) {
	b := newBench(t)
	e := &storeEngine{fakeEngine: b.engine,
		users: map[string]string{imageID(1): "1000:5", imageID(2): "www", imageID(3): ""},
		names: map[string][]string{imageID(1): {"a:1", "b:1"}, imageID(2): {"c:1"}, imageID(3): {"d:1"}}}
	b.server.engine = e
	return b, e
}

// TestListedUsers: the kubelet takes an image without a user for one of root,
// and only the first list costs an inspection for each image.
func TestListedUsers(t *testing.T) {
	b, e := newStore(t)
	for range 2 {
		r, err := b.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
		if err != nil || len(r.Images) != 3 {
			t.Fatal(r, err)
		}
		for _, i := range r.Images {
			st, err := b.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: i.Id}})
			if err != nil || st.Image.GetUid().GetValue() != i.Uid.GetValue() || (st.Image.GetUid() == nil) != (i.Uid == nil) || st.Image.GetUsername() != i.Username {
				t.Errorf("listed %v, status %v, %v", i, st, err)
			}
			if i.Id == imageID(1) && i.Uid.GetValue() != 1000 || i.Id == imageID(2) && i.Username != "www" {
				t.Errorf("user of %v", i)
			}
		}
	}
	if n := e.inspected.Load() - 6; n != 3 {
		t.Errorf("%d inspections for two lists of 3 images", n)
	}
	delete(e.users, imageID(1))
	if r, err := b.ListImages(t.Context(), &runtimeapi.ListImagesRequest{}); err != nil || len(r.Images) != 2 {
		t.Error(r, err)
	}
	if n := len(b.imageUsers.byID); n != 2 {
		t.Errorf("%d images are remembered", n)
	}
}

// TestUsedImageStays: with all its names, and whoever uses it is named.
func TestUsedImageStays(t *testing.T) {
	b, e := newStore(t)
	e.using = []container.Summary{{ID: "0123", Names: []string{"/k8s_web"}, ImageID: imageID(1)}}
	_, err := b.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: imageID(1)}})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "k8s_web (0123)") || len(e.names[imageID(1)]) != 2 {
		t.Errorf("%v, names %q", err, e.names[imageID(1)])
	}
	// By one name of two, it stays with the other.
	if _, err := b.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "a:1"}}); err != nil || len(e.names[imageID(1)]) != 1 {
		t.Errorf("%v, names %q", err, e.names[imageID(1)])
	}
	e.before["rmi b:1"] = cerrdefs.ErrConflict
	_, err = b.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "b:1"}})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "k8s_web") {
		t.Errorf("%v", err)
	}
	for _, ref := range []string{"nothere", imageID(9)} {
		if _, err := b.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}}); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

// TestRemovedWhilePulled: a name that a pull gives to another image, while the
// one that had it is removed, stays with that other image.
func TestRemovedWhilePulled(t *testing.T) {
	for _, c := range []struct {
		id, name string
		after    int // calls of the Engine
	}{{imageID(3), "d:1", 1}, {imageID(1), "b:1", 1}, {imageID(1), "b:1", 2}, {imageID(1), "b:1", 3}} {
		b, e := newStore(t)
		calls := 0
		e.asked = func() {
			if calls++; calls == c.after {
				e.names[c.id] = slices.DeleteFunc(slices.Clone(e.names[c.id]), func(n string) bool { return n == c.name })
				e.names[imageID(2)] = append(e.names[imageID(2)], c.name)
			}
		}
		if _, err := b.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: c.id}}); err != nil {
			t.Errorf("%v: %v", c, err)
		}
		if _, left := e.users[c.id]; left || !slices.Contains(e.names[imageID(2)], c.name) {
			t.Errorf("%v: left %v, names %q", c, left, e.names)
		}
	}
}
