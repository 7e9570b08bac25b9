package streaming

import (
	"context"
	"errors"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var errStub = errors.New("not built yet")

// Server serves exec, attach and port-forward.
type Server struct{}

// New returns a server that listens already; Run serves.
func New(o Options) (*Server, error) { return nil, errStub }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error { return errStub }

// Exec returns the URL for an exec.
func (s *Server) Exec(r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) { return nil, errStub }

// Attach returns the URL for an attach.
func (s *Server) Attach(r *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return nil, errStub
}

// PortForward returns the URL for a port-forward.
func (s *Server) PortForward(r *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return nil, errStub
}

// ExecSync runs cmd to its end.
func (s *Server) ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (*runtimeapi.ExecSyncResponse, error) {
	return nil, errStub
}
