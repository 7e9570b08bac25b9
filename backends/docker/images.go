package docker

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListImages implements the ImageService.
func (s *server) ListImages(ctx context.Context, r *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	if ref := r.GetFilter().GetImage().GetImage(); ref != "" {
		img, ok, err := s.findImage(ctx, ref)
		if err != nil || !ok {
			return &runtimeapi.ListImagesResponse{}, err
		}
		return &runtimeapi.ListImagesResponse{Images: []*runtimeapi.Image{s.criImage(img)}}, nil
	}
	all, err := s.engine.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return nil, s.fail(err, "list images")
	}
	users, err := s.imageUsers.of(ctx, s, all)
	if err != nil {
		return nil, err
	}
	out := &runtimeapi.ListImagesResponse{}
	for _, i := range all {
		tags, digests := named(i.RepoTags), named(i.RepoDigests)
		img := &runtimeapi.Image{
			Id: i.ID, RepoTags: tags, RepoDigests: digests, Size: uint64(max(i.Size, 0)),
			Pinned: s.infra.pinned(append(slices.Clone(tags), digests...)),
		}
		img.Uid, img.Username = imageUser(users[i.ID])
		out.Images = append(out.Images, img)
	}
	return out, nil
}

// ImageStatus implements the ImageService. An image that is not there is an
// answer without an image.
func (s *server) ImageStatus(ctx context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	ref := r.GetImage().GetImage()
	if ref == "" {
		return nil, invalid("image.image", "is required")
	}
	img, ok, err := s.findImage(ctx, ref)
	if err != nil || !ok {
		return &runtimeapi.ImageStatusResponse{}, err
	}
	out := &runtimeapi.ImageStatusResponse{Image: s.criImage(img)}
	if r.GetVerbose() {
		info, err := verboseImage(img)
		if err != nil {
			return nil, err
		}
		out.Info = info
	}
	return out, nil
}

// findImage looks for an image by name, digest or id.
func (s *server) findImage(ctx context.Context, ref string) (img image.InspectResponse, ok bool, err error) {
	img, err = s.engine.ImageInspect(ctx, ref)
	switch {
	case cerrdefs.IsNotFound(err):
		return img, false, nil
	case err != nil:
		return img, false, s.fail(err, "inspect image %q", ref)
	}
	return img, !shortID(ref, img), nil
}

// shortID reports whether the Engine has taken a name for the beginning of an
// id: cafe is an image that may not be here, while an id here begins so.
func shortID(ref string, img image.InspectResponse) bool {
	const long = 12 // what tools shorten ids to
	return len(ref) < long && isImageID(ref, img.ID) && !slices.Contains(img.RepoTags, ref+":latest")
}

// criImage is the image as the CRI sees it.
func (s *server) criImage(i image.InspectResponse) *runtimeapi.Image {
	tags, digests := named(i.RepoTags), named(i.RepoDigests)
	out := &runtimeapi.Image{
		Id: i.ID, RepoTags: tags, RepoDigests: digests, Size: uint64(max(i.Size, 0)),
		Pinned: s.infra.pinned(append(slices.Clone(tags), digests...)),
	}
	if i.Config != nil {
		out.Uid, out.Username = imageUser(i.Config.User)
	}
	return out
}

// imageUser is the user that the image runs as, as number or name.
func imageUser(user string) (*runtimeapi.Int64Value, string) {
	user, _, _ = strings.Cut(user, ":")
	if user == "" {
		return nil, ""
	}
	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		return &runtimeapi.Int64Value{Value: uid}, ""
	}
	return nil, user
}

// named leaves out the Engine's placeholders for images without a name.
func named(names []string) []string {
	var out []string
	for _, n := range names {
		if !strings.HasPrefix(n, "<none>") && !strings.HasSuffix(n, "<none>") {
			out = append(out, n)
		}
	}
	return out
}

// verboseImage is the info of a verbose ImageStatus: JSON under one key. The
// image's environment may hold what its maker would rather not see in a log.
func verboseImage(i image.InspectResponse) (map[string]string, error) {
	b, err := json.Marshal(map[string]any{
		"architecture": i.Architecture, "os": i.Os, "created": i.Created, "layers": len(i.RootFS.Layers),
	})
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode verbose image status: %v", err)
	}
	return map[string]string{"info": string(b)}, nil
}

// RemoveImage implements the ImageService. A name takes away that name, and
// the image with its last one; an id takes away all names. That it is gone
// already is as good.
func (s *server) RemoveImage(ctx context.Context, r *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	ref := r.GetImage().GetImage()
	if ref == "" {
		return nil, invalid("image.image", "is required")
	}
	img, ok, err := s.findImage(ctx, ref)
	if err != nil || !ok {
		return &runtimeapi.RemoveImageResponse{}, err
	}
	if !isImageID(ref, img.ID) {
		if err := s.removeImageName(ctx, ref); err != nil {
			return nil, err
		}
		return &runtimeapi.RemoveImageResponse{}, nil
	}
	// Before the first name is gone: half a removal helps nobody.
	if err := s.checkUnused(ctx, ref, img.ID); err != nil {
		return nil, err
	}
	if err := s.removeImageID(ctx, img); err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveImageResponse{}, nil
}

// removeImageID removes an image with all its names. A pull may make one of them
// another image's at any time, and that one must keep it. So they go with the
// image, or where it has several, for which the Engine refuses that, as long as
// they are its own.
func (s *server) removeImageID(ctx context.Context, img image.InspectResponse) error {
	_, err := s.engine.ImageRemove(ctx, img.ID, image.RemoveOptions{PruneChildren: true})
	if err == nil || cerrdefs.IsNotFound(err) {
		return nil
	}
	for _, n := range append(named(img.RepoTags), named(img.RepoDigests)...) {
		now, ok, err := s.findImage(ctx, n)
		if err != nil {
			return err
		}
		if !ok || now.ID != img.ID {
			continue
		}
		if err := s.removeImageName(ctx, n); err != nil {
			return err
		}
	}
	return s.removeImageName(ctx, img.ID)
}

// removeImageName removes a name or an id of an image.
func (s *server) removeImageName(ctx context.Context, name string) error {
	_, err := s.engine.ImageRemove(ctx, name, image.RemoveOptions{PruneChildren: true})
	if err == nil || cerrdefs.IsNotFound(err) {
		return nil
	}
	failed := s.fail(err, "remove image %q", name)
	// Another call may have been quicker, which shows as various errors.
	img, ok, err := s.findImage(ctx, name)
	if err != nil {
		return failed
	}
	if !ok {
		return nil
	}
	if used := s.checkUnused(ctx, name, img.ID); status.Code(used) == codes.FailedPrecondition {
		return used
	}
	return failed
}

// checkUnused refuses the removal of an image that containers, ended ones too,
// are made of, and names them: the Engine gives no more than half an id.
func (s *server) checkUnused(ctx context.Context, ref, id string) error {
	all, err := s.engine.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return s.fail(err, "list the containers of image %q", ref)
	}
	var users []string
	for _, c := range all {
		if c.ImageID == id {
			users = append(users, strings.TrimPrefix(strings.Join(c.Names, " "), "/")+" ("+c.ID+")")
		}
	}
	if len(users) == 0 {
		return nil
	}
	return status.Errorf(codes.FailedPrecondition, "remove image %q: it is used by %s: remove that first", ref, strings.Join(users, ", "))
}

// isImageID reports whether ref names the image by its id, with or without
// the algorithm, in full or shortened.
func isImageID(ref, id string) bool {
	algorithm, hex, ok := strings.Cut(id, ":")
	if !ok {
		return ref == id
	}
	short := strings.TrimPrefix(ref, algorithm+":")
	return short != "" && strings.HasPrefix(hex, short)
}
