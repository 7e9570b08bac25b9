package docker

import (
	"context"
	"io"

	"github.com/distribution/reference"
	"github.com/docker/docker/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
)

var (
	_ backends.ImageSource = (*Backend)(nil)
	_ backends.ImageSink   = (*Backend)(nil)
)

// ExportImage implements [backends.ImageSource]. The image is exported by its
// id, so that the archive has no names and is of the image that was looked at.
func (b *Backend) ExportImage(ctx context.Context, ref string) (io.ReadCloser, backends.ImageInfo, error) {
	var none backends.ImageInfo
	s := b.srv
	img, ok, err := s.findImage(ctx, ref)
	if err != nil {
		return nil, none, err
	}
	if !ok {
		return nil, none, notFound("image", ref)
	}
	names, err := fullNames(append(named(img.RepoTags), named(img.RepoDigests)...))
	if err != nil {
		return nil, none, s.fail(err, "export image %q", ref)
	}
	archive, err := s.engine.ImageSave(ctx, []string{img.ID})
	if err != nil {
		return nil, none, s.fail(err, "export image %q", ref)
	}
	return archive, backends.ImageInfo{ID: img.ID, Names: names}, nil
}

// fullNames are the names with their registry: the Engine leaves out its own.
func fullNames(names []string) ([]string, error) {
	full := make([]string, len(names))
	for i, n := range names {
		named, err := reference.ParseNormalizedNamed(n)
		if err != nil {
			return nil, err
		}
		full[i] = named.String()
	}
	return full, nil
}

// ImportImage implements [backends.ImageSink]. The names by digest are left
// out: the Engine knows digests only of what it has pulled itself.
func (b *Backend) ImportImage(ctx context.Context, archive io.Reader, info backends.ImageInfo) error {
	s := b.srv
	answer, err := s.engine.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return s.fail(err, "load image %s", info.ID)
	}
	if err := watchPull(answer.Body); err != nil {
		return s.fail(err, "load image %s", info.ID)
	}
	id, err := s.loaded(ctx, info)
	if err != nil {
		return err
	}
	for _, n := range info.Names {
		if err := s.addTag(ctx, id, n); err != nil {
			return err
		}
	}
	return nil
}

// loaded returns the id that the Engine gave the image: that of its config,
// or of its manifest where it keeps its images in a containerd.
func (s *server) loaded(ctx context.Context, info backends.ImageInfo) (string, error) {
	for _, id := range []string{info.ID, info.Digest} {
		if id == "" {
			continue
		}
		img, ok, err := s.findImage(ctx, id)
		if err != nil {
			return "", err
		}
		if ok {
			return img.ID, nil
		}
	}
	return "", status.Errorf(codes.DataLoss, "load image %s: the docker engine has no image of that id afterwards", info.ID)
}

// addTag names an image, unless the name is a digest or another's.
func (s *server) addTag(ctx context.Context, id, name string) error {
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return invalid("image.image", "%q is no image name: %v", name, err)
	}
	if _, byDigest := n.(reference.Digested); byDigest {
		return nil
	}
	if _, taken, err := s.findImage(ctx, name); err != nil || taken {
		return err
	}
	if err := s.engine.ImageTag(ctx, id, name); err != nil {
		return s.fail(err, "name image %s %s", id, name)
	}
	return nil
}

func (l *liveClient) ImageSave(ctx context.Context, ids []string, o ...client.ImageSaveOption) (io.ReadCloser, error) {
	return l.now().ImageSave(ctx, ids, o...)
}

func (l *liveClient) ImageTag(ctx context.Context, id, name string) error {
	return l.now().ImageTag(ctx, id, name)
}
