package docker

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// liveClient is a client of whatever Engine runs now. The library's client
// settles on an API version once: after an upgrade or a downgrade of the
// Engine that version may be refused, so there must be a new one.
type liveClient struct {
	opts []client.Opt

	mu     sync.RWMutex
	client *client.Client
	// version is the newest one that the Engine said it speaks.
	version string
}

var _ engine = (*liveClient)(nil)

func newLiveClient(opts ...client.Opt) (*liveClient, error) {
	c, err := client.NewClientWithOpts(append(opts, client.WithAPIVersionNegotiation())...)
	if err != nil {
		return nil, err
	}
	return &liveClient{opts: opts, client: c}, nil
}

func (l *liveClient) now() *client.Client {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.client
}

// NegotiateAPIVersionPing settles on a version with the Engine that answered
// p. Calls under way end as they began.
func (l *liveClient) NegotiateAPIVersionPing(p types.Ping) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.version == p.APIVersion {
		return
	}
	c, err := client.NewClientWithOpts(append(l.opts, client.WithAPIVersionNegotiation())...)
	if err != nil {
		return // the options were good once: the old client goes on
	}
	c.NegotiateAPIVersionPing(p)
	l.client, l.version = c, p.APIVersion
}

// The rest is the client's own.

func (l *liveClient) Close() error          { return l.now().Close() }
func (l *liveClient) ClientVersion() string { return l.now().ClientVersion() }

func (l *liveClient) Dialer() func(context.Context) (net.Conn, error) { return l.now().Dialer() }

func (l *liveClient) Ping(ctx context.Context) (types.Ping, error) { return l.now().Ping(ctx) }

func (l *liveClient) Info(ctx context.Context) (system.Info, error) { return l.now().Info(ctx) }

func (l *liveClient) Events(ctx context.Context, o events.ListOptions) (<-chan events.Message, <-chan error) {
	return l.now().Events(ctx, o)
}

func (l *liveClient) DiskUsage(ctx context.Context, o types.DiskUsageOptions) (types.DiskUsage, error) {
	return l.now().DiskUsage(ctx, o)
}

func (l *liveClient) ContainerCreate(ctx context.Context, c *container.Config, h *container.HostConfig, n *network.NetworkingConfig, p *ocispec.Platform, name string) (container.CreateResponse, error) {
	return l.now().ContainerCreate(ctx, c, h, n, p, name)
}

func (l *liveClient) ContainerStart(ctx context.Context, id string, o container.StartOptions) error {
	return l.now().ContainerStart(ctx, id, o)
}

func (l *liveClient) ContainerStop(ctx context.Context, id string, o container.StopOptions) error {
	return l.now().ContainerStop(ctx, id, o)
}

func (l *liveClient) ContainerKill(ctx context.Context, id, signal string) error {
	return l.now().ContainerKill(ctx, id, signal)
}

func (l *liveClient) ContainerRemove(ctx context.Context, id string, o container.RemoveOptions) error {
	return l.now().ContainerRemove(ctx, id, o)
}

func (l *liveClient) ContainerUpdate(ctx context.Context, id string, u container.UpdateConfig) (container.UpdateResponse, error) {
	return l.now().ContainerUpdate(ctx, id, u)
}

func (l *liveClient) ContainerWait(ctx context.Context, id string, c container.WaitCondition) (<-chan container.WaitResponse, <-chan error) {
	return l.now().ContainerWait(ctx, id, c)
}

func (l *liveClient) ContainerList(ctx context.Context, o container.ListOptions) ([]container.Summary, error) {
	return l.now().ContainerList(ctx, o)
}

func (l *liveClient) ContainerInspect(ctx context.Context, id string) (container.InspectResponse, error) {
	return l.now().ContainerInspect(ctx, id)
}

func (l *liveClient) ContainerResize(ctx context.Context, id string, o container.ResizeOptions) error {
	return l.now().ContainerResize(ctx, id, o)
}

func (l *liveClient) ContainerExecCreate(ctx context.Context, id string, o container.ExecOptions) (container.ExecCreateResponse, error) {
	return l.now().ContainerExecCreate(ctx, id, o)
}

func (l *liveClient) ContainerExecInspect(ctx context.Context, id string) (container.ExecInspect, error) {
	return l.now().ContainerExecInspect(ctx, id)
}

func (l *liveClient) ContainerExecResize(ctx context.Context, id string, o container.ResizeOptions) error {
	return l.now().ContainerExecResize(ctx, id, o)
}

func (l *liveClient) ImageInspect(ctx context.Context, ref string, o ...client.ImageInspectOption) (image.InspectResponse, error) {
	return l.now().ImageInspect(ctx, ref, o...)
}

func (l *liveClient) ImageList(ctx context.Context, o image.ListOptions) ([]image.Summary, error) {
	return l.now().ImageList(ctx, o)
}

func (l *liveClient) ImageLoad(ctx context.Context, archive io.Reader, o ...client.ImageLoadOption) (image.LoadResponse, error) {
	return l.now().ImageLoad(ctx, archive, o...)
}

func (l *liveClient) ImagePull(ctx context.Context, ref string, o image.PullOptions) (io.ReadCloser, error) {
	return l.now().ImagePull(ctx, ref, o)
}

func (l *liveClient) ImageRemove(ctx context.Context, ref string, o image.RemoveOptions) ([]image.DeleteResponse, error) {
	return l.now().ImageRemove(ctx, ref, o)
}
