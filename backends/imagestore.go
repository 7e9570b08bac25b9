package backends

import (
	"context"
	"io"
)

// ImageInfo is what the runtime that an image is copied from says of it.
type ImageInfo struct {
	// ID is the image's id there: the digest of its config, or, of an Engine
	// that keeps its images in a containerd, that of its manifest.
	ID string
	// Digest is that of the manifest or index that the archive holds, ""
	// where the archive was made without one.
	Digest string
	// Names are the tags and digests that the image has there, with their
	// registry: registry.example/web:1, registry.example/web@sha256:….
	Names []string
}

// ImageSource is a backend that can give an image to another runtime of the
// node, so that it need not be pulled twice.
type ImageSource interface {
	// ExportImage returns the image that ref names, by tag, digest or id, as
	// a tar archive in the format of docker save, which every runtime reads.
	// The archive holds this node's platform and names nothing: a name in it
	// would be taken from the image that has it on the other side. The
	// caller closes it; what goes wrong meanwhile is told by its Read. The
	// error is NotFound where there is no such image, and Unimplemented
	// where the runtime has no way to give one.
	ExportImage(ctx context.Context, ref string) (io.ReadCloser, ImageInfo, error)
}

// ImageSink is a backend that can take an image over from another runtime.
type ImageSink interface {
	// ImportImage takes in an archive as ExportImage gives it. The image gets
	// those of info.Names that no other image of the runtime has. When it
	// returns nil the runtime's own CRI knows the image. The error is
	// Unimplemented, and nothing was read, where the runtime has no way to
	// take one.
	ImportImage(ctx context.Context, archive io.Reader, info ImageInfo) error
}
