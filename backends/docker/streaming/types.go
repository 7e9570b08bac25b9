package streaming

import (
	"context"
	"net"

	"github.com/docker/docker/api/types/container"
)

// Engine is what the package needs of the Docker Engine's API client;
// client.Client of github.com/docker/docker has it all. Its methods are called
// concurrently.
type Engine interface {
	ContainerInspect(ctx context.Context, containerID string) (container.InspectResponse, error)
	ContainerResize(ctx context.Context, containerID string, size container.ResizeOptions) error
	ContainerExecCreate(ctx context.Context, containerID string, o container.ExecOptions) (container.ExecCreateResponse, error)
	ContainerExecInspect(ctx context.Context, execID string) (container.ExecInspect, error)
	ContainerExecResize(ctx context.Context, execID string, size container.ResizeOptions) error
	// ClientVersion is the API version that was negotiated.
	ClientVersion() string
	// Dialer opens a connection of its own to the Engine, for an upgrade to a
	// raw stream: the client's own upgrade does not end when its context does.
	Dialer() func(context.Context) (net.Conn, error)
}

// Options make a [Server].
type Options struct {
	// Engine is the Docker Engine that the containers run on.
	Engine Engine
	// Listen is the address of the HTTP server, of a loopback interface; empty
	// is 127.0.0.1:0.
	Listen string
	// SandboxPID returns the process id, on the host, of a running sandbox's
	// pod infra process, through which its network namespace is entered. Its
	// error, a gRPC status (NotFound, FailedPrecondition), reaches the client.
	SandboxPID func(ctx context.Context, sandboxID string) (int, error)
}
