package cri

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// CRI has no call that takes an image from anywhere but a registry. Of the
// runtimes behind it containerd has one, on the same socket; of any other one
// an image can only be asked for by a pull.

var (
	_ backends.ImageSource = (*Backend)(nil)
	_ backends.ImageSink   = (*Backend)(nil)
)

const (
	// containerdName is what containerd calls itself in Version.
	containerdName = "containerd"
	// criNamespace is where containerd's CRI keeps its images.
	criNamespace = "k8s.io"
	// seenWithin is how long containerd's CRI may take to learn of an image
	// that it did not bring itself, which it does from containerd's events.
	seenWithin = 10 * time.Second
	seenAgain  = 20 * time.Millisecond
	// releaseBound is how long giving a lease back may take. One that is not
	// given back ends by itself.
	releaseBound = 10 * time.Second
)

// ExportImage implements [backends.ImageSource].
func (b *Backend) ExportImage(ctx context.Context, ref string) (io.ReadCloser, backends.ImageInfo, error) {
	var none backends.ImageInfo
	if err := b.needContainerd(ctx); err != nil {
		return nil, none, err
	}
	img, err := b.image(ctx, ref)
	if err != nil {
		return nil, none, err
	}
	if img == nil {
		return nil, none, status.Errorf(codes.NotFound, "image %q: not found on backend %q", ref, b.name)
	}
	c, err := b.containerd()
	if err != nil {
		return nil, none, b.failed(err, "export image %q", ref)
	}
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(ctx, criNamespace))
	// The lease keeps the image's content for as long as it is read.
	leased, release, err := c.WithLease(ctx)
	if err != nil {
		cancel()
		return nil, none, errors.Join(b.failed(err, "export image %q", ref), c.Close())
	}
	e := &export{cancel: cancel, done: make(chan struct{}), client: c}
	e.release = func() error { return letGo(leased, release) }
	// CRI keeps a record of each image under its id too.
	record, err := c.ImageService().Get(leased, img.Id)
	if err != nil {
		close(e.done)
		return nil, none, errors.Join(b.failed(err, "export image %q", ref), e.Close())
	}
	var w *io.PipeWriter
	e.PipeReader, w = io.Pipe()
	go func() {
		defer close(e.done)
		err := c.Export(leased, w, archive.WithManifest(record.Target), archive.WithPlatform(platforms.Default()))
		if err != nil {
			err = b.failed(err, "export image %q", ref)
		}
		w.CloseWithError(err)
	}()
	return e, backends.ImageInfo{
		ID: img.Id, Digest: record.Target.Digest.String(), Names: append(img.RepoTags, img.RepoDigests...),
	}, nil
}

// export is an archive under way.
type export struct {
	*io.PipeReader
	cancel  context.CancelFunc
	done    chan struct{}
	release func() error
	client  *containerd.Client
	once    sync.Once
	err     error
}

// Close ends the export and lets go of what it held. It may be called again:
// an HTTP client closes what it has sent.
func (e *export) Close() error {
	e.once.Do(func() { e.err = e.end() })
	return e.err
}

func (e *export) end() error {
	var err error
	if e.PipeReader != nil {
		err = e.PipeReader.Close()
	}
	e.cancel()
	<-e.done
	return errors.Join(err, e.release(), e.client.Close())
}

// ImportImage implements [backends.ImageSink]. The image is not unpacked:
// CRI does so when it makes the first container of it, with the snapshotter
// that it is configured for.
func (b *Backend) ImportImage(ctx context.Context, from io.Reader, info backends.ImageInfo) (err error) {
	if err := b.needContainerd(ctx); err != nil {
		return err
	}
	c, err := b.containerd()
	if err != nil {
		return b.failed(err, "import an image")
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	nctx, release, err := c.WithLease(namespaces.WithNamespace(ctx, criNamespace))
	if err != nil {
		return b.failed(err, "import an image")
	}
	// The lease keeps what has no name yet.
	defer func() { err = errors.Join(err, letGo(nctx, release)) }()
	names, err := freeNames(nctx, c.ImageService(), info)
	if err != nil {
		return b.failed(err, "import an image: look its names up")
	}
	made, err := c.Import(nctx, from,
		containerd.WithAllPlatforms(true),
		containerd.WithSkipMissing(),
		containerd.WithDigestRef(func(digest.Digest) string { return names[0] }))
	if err != nil {
		return b.failed(err, "import image %s", names[0])
	}
	if len(made) == 0 {
		return status.Errorf(codes.DataLoss, "backend %q: import image %s: the archive holds no image", b.name, names[0])
	}
	target := made[len(made)-1].Target
	for _, n := range names[1:] {
		if _, err := c.ImageService().Create(nctx, images.Image{Name: n, Target: target}); err != nil && !errdefs.IsAlreadyExists(err) {
			return b.failed(err, "name the imported image %s", n)
		}
	}
	return b.awaitSeen(ctx, names[0])
}

// letGo gives a lease back, also where ctx is done, but does not wait for a
// runtime that hangs: all who want the same image would.
func letGo(ctx context.Context, release func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseBound)
	defer cancel()
	return release(ctx)
}

// freeNames are the names that the image can have without taking them from
// another, and at least one: containerd lets go of what has none.
func freeNames(ctx context.Context, all images.Store, info backends.ImageInfo) ([]string, error) {
	var free []string
	for _, n := range info.Names {
		_, err := all.Get(ctx, n)
		switch {
		case errdefs.IsNotFound(err):
			free = append(free, n)
		case err != nil:
			return nil, err
		}
	}
	if len(free) == 0 {
		free = append(free, info.ID)
	}
	return free, nil
}

// awaitSeen returns when CRI knows the image.
func (b *Backend) awaitSeen(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, seenWithin)
	defer cancel()
	for {
		img, err := b.image(ctx, name)
		if err == nil && img != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = status.Errorf(codes.Unavailable, "backend %q: image %s was imported, but its CRI has not taken notice of it", b.name, name)
			}
			return err
		case <-time.After(seenAgain):
		}
	}
}

// image asks the runtime for an image; nil where it has none of that name.
func (b *Backend) image(ctx context.Context, ref string) (*runtimeapi.Image, error) {
	var resp runtimeapi.ImageStatusResponse
	req := &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}}
	if err := b.call(ctx, runtimeapi.ImageService_ImageStatus_FullMethodName, req, &resp); err != nil {
		return nil, err
	}
	return resp.Image, nil
}

// needContainerd returns an error unless the runtime is containerd. It asks
// each time: what listens on a socket may change.
func (b *Backend) needContainerd(ctx context.Context) error {
	var v runtimeapi.VersionResponse
	if err := b.call(ctx, runtimeapi.RuntimeService_Version_FullMethodName, &runtimeapi.VersionRequest{}, &v); err != nil {
		return err
	}
	if v.RuntimeName != containerdName {
		return status.Errorf(codes.Unimplemented, "backend %q is %s, which images cannot be copied to or from: they can only be pulled", b.name, v.RuntimeName)
	}
	return nil
}

// call carries out a call of this package's own.
func (b *Backend) call(ctx context.Context, method string, req, resp proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return status.Errorf(codes.Internal, "encode %s: %v", method, err)
	}
	a, err := b.Invoke(ctx, &backends.Call{Method: method, Request: backends.NewFrame(body), Journal: backends.NoJournal})
	if err != nil {
		return err
	}
	defer a.Body.Free()
	if err := proto.Unmarshal(a.Body.Bytes(), resp); err != nil {
		return status.Errorf(codes.Internal, "backend %q: decode the answer to %s: %v", b.name, method, err)
	}
	return nil
}

// containerd returns a client of containerd's own API. It has a connection of
// its own: an image must not stand in the way of the kubelet's calls.
func (b *Backend) containerd() (*containerd.Client, error) {
	return containerd.New(strings.TrimPrefix(b.endpoint, "unix://"))
}

// failed makes a gRPC status of an error of containerd's client.
func (b *Backend) failed(err error, format string, args ...any) error {
	st := status.Convert(errgrpc.ToGRPC(err))
	return status.Errorf(st.Code(), "backend %q: "+format+": %s", append(append([]any{b.name}, args...), st.Message())...)
}
