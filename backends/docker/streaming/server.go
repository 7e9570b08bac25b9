package streaming

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
)

const (
	// idleTimeout ends a session over which nothing has gone for so long: what
	// other runtimes have.
	idleTimeout = 4 * time.Hour
	// headerTimeout bounds how long a client may take to send its request.
	headerTimeout = 10 * time.Second
)

// Server serves exec, attach and port-forward. Its methods may be called
// concurrently, and Exec, Attach, PortForward and ExecSync before Run.
type Server struct {
	engine   Engine
	pid      func(ctx context.Context, sandboxID string) (int, error)
	listener net.Listener
	tokens   tokens
	conns    conns
	sessions gate
}

// silence has the streaming libraries log nothing. They print each session that
// fails to stderr, past the daemon's log and with whatever the command or the
// Engine said. The session's client is told, who alone can do something about
// it.
var silence = sync.OnceFunc(func() { klog.SetSlogLogger(slog.New(slog.DiscardHandler)) })

// New returns a server that listens already, so that its URLs hold, and begins
// to serve with [Server.Run]. It refuses an address that is not of a loopback
// interface: the URLs carry no other protection than their token.
func New(o Options) (*Server, error) {
	if o.Engine == nil || o.SandboxPID == nil {
		return nil, errors.New("streaming: Engine and SandboxPID are needed")
	}
	silence()
	address := o.Listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("streaming: listen address %q: %w", address, err)
	}
	if !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("streaming: listen address %q is not a loopback address: use 127.0.0.1:0 or [::1]:0", address)
	}
	l, err := net.ListenTCP("tcp", tcp)
	if err != nil {
		return nil, fmt.Errorf("streaming: listen: %w", err)
	}
	return &Server{engine: o.Engine, pid: o.SandboxPID, listener: l}, nil
}

// Run serves until ctx ends, and returns when all sessions have ended and no
// more can begin. The server cannot be run again.
func (s *Server) Run(ctx context.Context) error {
	web := &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: headerTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() {
		// It closes the listener and idle connections; its error says nothing
		// that Serve does not.
		_ = web.Close()
		s.conns.closeAll()
	})
	defer stop()
	err := web.Serve(s.listener)
	if ctx.Err() == nil {
		return fmt.Errorf("streaming: serve: %w", err)
	}
	s.sessions.close()
	return nil
}

// Exec returns the URL of a session that will run the command.
func (s *Server) Exec(r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	o := &remotecommand.Options{Stdin: r.GetStdin(), Stdout: r.GetStdout(), Stderr: r.GetStderr(), TTY: r.GetTty()}
	if err := checkStreams(r.GetContainerId(), o); err != nil {
		return nil, err
	}
	if len(r.GetCmd()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "exec needs a command")
	}
	u, err := s.hand("exec", func(w http.ResponseWriter, req *http.Request) {
		remotecommand.ServeExec(w, req, executor{s, o}, "", "", r.GetContainerId(), r.GetCmd(), o,
			idleTimeout, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
	})
	return &runtimeapi.ExecResponse{Url: u}, err
}

// Attach returns the URL of a session on the streams of a running container.
func (s *Server) Attach(r *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	o := &remotecommand.Options{Stdin: r.GetStdin(), Stdout: r.GetStdout(), Stderr: r.GetStderr(), TTY: r.GetTty()}
	if err := checkStreams(r.GetContainerId(), o); err != nil {
		return nil, err
	}
	u, err := s.hand("attach", func(w http.ResponseWriter, req *http.Request) {
		remotecommand.ServeAttach(w, req, attacher{s, o}, "", "", r.GetContainerId(), o,
			idleTimeout, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
	})
	return &runtimeapi.AttachResponse{Url: u}, err
}

// PortForward returns the URL of a session to ports of a sandbox. The ports of
// the request are those of a WebSocket client; a SPDY client names its own.
func (s *Server) PortForward(r *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if r.GetPodSandboxId() == "" {
		return nil, status.Error(codes.InvalidArgument, "port-forward needs a pod_sandbox_id")
	}
	o, err := portforward.BuildV4Options(r.GetPort())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "port-forward: %v", err)
	}
	u, err := s.hand("portforward", func(w http.ResponseWriter, req *http.Request) {
		portforward.ServePortForward(w, req, forwarder{s, req.Context()}, r.GetPodSandboxId(), "", o,
			idleTimeout, remotecommand.DefaultStreamCreationTimeout, portforward.SupportedProtocols)
	})
	return &runtimeapi.PortForwardResponse{Url: u}, err
}

// checkStreams refuses what the protocols cannot carry.
func checkStreams(containerID string, o *remotecommand.Options) error {
	switch {
	case containerID == "":
		return status.Error(codes.InvalidArgument, "a container_id is needed")
	case o.TTY && o.Stderr:
		return status.Error(codes.InvalidArgument, "tty and stderr exclude each other: a terminal has one output")
	case !o.Stdin && !o.Stdout && !o.Stderr:
		return status.Error(codes.InvalidArgument, "one of stdin, stdout and stderr is needed")
	}
	return nil
}

// hand stores a session and returns the URL that begins it.
func (s *Server) hand(kind string, serve http.HandlerFunc) (string, error) {
	token, err := s.tokens.add(serve)
	if err != nil {
		return "", err
	}
	u := url.URL{Scheme: "http", Host: s.listener.Addr().String(), Path: "/" + kind + "/" + token}
	return u.String(), nil
}

// serve begins the session that the request's token stands for. It answers
// 404 to everything else, and says no more.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if len(parts) != 2 || r.Method != http.MethodGet && r.Method != http.MethodPost {
		http.NotFound(w, r)
		return
	}
	serve, ok := s.tokens.take(parts[1])
	if !ok {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	t := &takeover{ResponseWriter: w, conns: &s.conns, gone: cancel}
	defer t.finish()
	serve(t, r.WithContext(ctx))
}
