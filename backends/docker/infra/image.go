package infra

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Reference is the name under which the image is loaded into the Engine. Its
// host is of the top-level domain that is reserved never to exist (RFC 2606),
// so that a pull of it by mistake cannot bring anybody's image.
const Reference = "crimux.invalid/pause:1"

// LabelBuiltin is set to "pause" on the image, so that it can be told from
// images of the operator's.
const LabelBuiltin = "dev.crimux.builtin"

// Image returns the image for the machine that crimux runs on: always the same
// bytes, and so the same id, for one release and architecture.
func Image() (v1.Image, error) { return ImageFor(runtime.GOARCH) }

// ImageFor is [Image] for another GOARCH: amd64 or arm64.
func ImageFor(goarch string) (v1.Image, error) {
	program, err := Program(goarch)
	if err != nil {
		return nil, err
	}
	files, err := layerTar(program)
	if err != nil {
		return nil, fmt.Errorf("pod infra image: layer: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)), nil
	})
	if err != nil {
		return nil, fmt.Errorf("pod infra image: layer: %w", err)
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{CreatedBy: "crimux built-in pod infra program", Created: epoch()},
	})
	if err != nil {
		return nil, fmt.Errorf("pod infra image: append layer: %w", err)
	}
	return configure(img, goarch)
}

// Archive returns the image as the docker-archive tar that the Engine's
// ImageLoad takes, tagged with [Reference].
func Archive() (io.Reader, error) {
	img, err := Image()
	if err != nil {
		return nil, err
	}
	ref, err := name.NewTag(Reference, name.StrictValidation)
	if err != nil {
		return nil, fmt.Errorf("pod infra image: %w", err)
	}
	var b bytes.Buffer
	if err := tarball.Write(ref, img, &b); err != nil {
		return nil, fmt.Errorf("pod infra image: write archive: %w", err)
	}
	return &b, nil
}

// configure gives the image its entrypoint and platform.
func configure(img v1.Image, goarch string) (v1.Image, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("pod infra image: config: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", goarch, epoch()
	file.Config = v1.Config{
		Entrypoint: []string{"/pause"},
		WorkingDir: "/",
		Labels:     map[string]string{LabelBuiltin: "pause"},
	}
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		return nil, fmt.Errorf("pod infra image: config: %w", err)
	}
	return img, nil
}

// layerTar returns the image's only layer, uncompressed.
func layerTar(program []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: "pause", Mode: 0o555, Size: int64(len(program)),
		ModTime: epoch().Time, Format: tar.FormatUSTAR,
	}
	if err := w.WriteHeader(h); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// epoch is the fixed time of everything in the image: a build time would give
// every build another id.
func epoch() v1.Time { return v1.Time{Time: time.Unix(0, 0).UTC()} }
