package docker

import (
	"context"
	"io"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/crimux/crimux/backends/docker/crilog"
	"github.com/crimux/crimux/backends/docker/streaming"
	"github.com/crimux/crimux/cni"
)

// engine is what the backend needs of the Docker Engine's API client.
type engine interface {
	streaming.Engine

	ContainerCreate(ctx context.Context, config *container.Config, host *container.HostConfig, net *network.NetworkingConfig, platform *ocispec.Platform, name string) (container.CreateResponse, error)
	ContainerStart(ctx context.Context, id string, o container.StartOptions) error
	ContainerStop(ctx context.Context, id string, o container.StopOptions) error
	ContainerKill(ctx context.Context, id, signal string) error
	ContainerRemove(ctx context.Context, id string, o container.RemoveOptions) error
	ContainerUpdate(ctx context.Context, id string, u container.UpdateConfig) (container.UpdateResponse, error)
	ContainerWait(ctx context.Context, id string, c container.WaitCondition) (<-chan container.WaitResponse, <-chan error)
	ContainerList(ctx context.Context, o container.ListOptions) ([]container.Summary, error)

	ImageInspect(ctx context.Context, ref string, o ...client.ImageInspectOption) (image.InspectResponse, error)
	ImageList(ctx context.Context, o image.ListOptions) ([]image.Summary, error)
	ImageLoad(ctx context.Context, archive io.Reader, o ...client.ImageLoadOption) (image.LoadResponse, error)
	ImagePull(ctx context.Context, ref string, o image.PullOptions) (io.ReadCloser, error)
	ImageRemove(ctx context.Context, ref string, o image.RemoveOptions) ([]image.DeleteResponse, error)
	ImageSave(ctx context.Context, ids []string, o ...client.ImageSaveOption) (io.ReadCloser, error)
	ImageTag(ctx context.Context, id, name string) error

	DiskUsage(ctx context.Context, o types.DiskUsageOptions) (types.DiskUsage, error)
	Events(ctx context.Context, o events.ListOptions) (<-chan events.Message, <-chan error)
	Info(ctx context.Context) (system.Info, error)
	pinger
	Close() error
}

// networks is what the backend needs of package cni.
type networks interface {
	Run(ctx context.Context)
	Status(ctx context.Context) error
	Skipped() []error
	PodCIDR() string
	SetPodCIDR(text string) error
	GC(ctx context.Context, keep []string) (removed []string, err error)
	Plan(a cni.Attachment) (*cni.Plan, error)
	Add(ctx context.Context, p *cni.Plan) (cni.Result, error)
	Del(ctx context.Context, p *cni.Plan, netns string) error
	Cached(id string) (*cni.Plan, cni.Result, bool, error)
	Quiesce(ctx context.Context, id string) error
}

// logs is what the backend needs of package crilog.
type logs interface {
	Convert(ctx context.Context, f crilog.File) error
	Follow(f crilog.File) error
	Drain(ctx context.Context, id string) error
	Reopen(ctx context.Context, id string) error
	Finish(ctx context.Context, id string) error
	Forget(id string)
	Close() error
}

var (
	_ networks = (*cni.Networks)(nil)
	_ logs     = (*crilog.Manager)(nil)
)
