package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store"
)

// window is the flow-control window towards the kubelet; see package cri.
const window = 4 << 20

// streamWorkers are the goroutines kept for calls: as many as a kubelet has
// under way when nothing is slow.
const streamWorkers = 8

// Options are what a Server is made of. All fields are needed.
type Options struct {
	Config   *policy.Config
	Backends *backends.Set
	Log      *store.Log
	// Version is crimux's own, as Version reports it in runtime_version.
	Version string
	Logger  *slog.Logger
}

// Server is the CRI front.
type Server struct {
	config  *policy.Config
	set     *backends.Set
	log     *store.Log
	version string
	logger  *slog.Logger

	grpc    *grpc.Server
	health  *health.Server
	flights flights
	probes  probes
	late    late
	recent  recentOps
	lanes   map[string]*lane
	bringer bringer
	givenBy givenBy
	// rehearsals are what the kubelet must not see, and what is left of them.
	rehearsals *rehearsals
	// attendants keep what answers for the node as a whole need of each
	// backend; settings is what the kubelet has said to all of them, announced
	// what it was told of their metrics.
	attendants map[string]*attendant
	settings   nodeSettings
	announced  announced
	// feeds bring the containers' events of each backend in, events hands
	// them out.
	feeds  map[string]*feed
	events hub
	// collector cleans up after network plugins, where that is configured.
	collector *collector
	// operations counts those that go on without their caller.
	operations sync.WaitGroup
	// startSeq is the last event of the runs before this one: an operation
	// that began at or before it is not in flight any more.
	startSeq uint64
}

// New returns a Server and records the start of this run. It contacts no
// backend. A configuration that lacks a backend on which, as far as the log
// knows, something still lives is refused.
func New(o Options) (*Server, error) {
	s := &Server{
		config: o.Config, set: o.Backends, log: o.Log, version: o.Version, logger: o.Logger,
		lanes: make(map[string]*lane, len(o.Backends.All())), feeds: make(map[string]*feed, len(o.Backends.All())),
	}
	s.rehearsals = s.newRehearsals()
	for _, m := range s.set.All() {
		s.lanes[m.Name()] = newLane()
		s.feeds[m.Name()] = newFeed(s, m)
	}
	s.collector = newCollector(s)
	s.bringer.credentials = newCredentials()
	s.attendants = make(map[string]*attendant, len(s.set.All()))
	for _, m := range s.set.All() {
		s.attendants[m.Name()] = newAttendant(s, m)
	}
	if err := s.checkBackends(); err != nil {
		return nil, err
	}
	s.startSeq = s.log.Last()
	if err := s.recordStart(); err != nil {
		return nil, fmt.Errorf("record the start of this run: %w", err)
	}
	s.set.OnChange(func(m *backends.Member, h backends.Health) {
		s.healthChanged(m, h)
		s.attendants[m.Name()].healthChanged(h)
	})
	s.hearNotices()
	s.grpc = grpc.NewServer(
		grpc.ForceServerCodecV2(backends.NewCodec()),
		grpc.UnknownServiceHandler(s.handle),
		grpc.MaxRecvMsgSize(backends.MaxMessage),
		grpc.MaxSendMsgSize(backends.MaxMessage),
		grpc.InitialWindowSize(window),
		grpc.InitialConnWindowSize(window),
		// Workers keep the stacks that their calls have grown. A call that
		// finds none free gets a goroutine of its own.
		grpc.NumStreamWorkers(streamWorkers),
	)
	s.health = health.NewServer()
	healthpb.RegisterHealthServer(s.grpc, s.health)
	return s, nil
}

// Run does the work off the request path until ctx is done: probing the
// backends, recovering what a crash left open, and observing.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, m := range s.set.All() {
		wg.Go(func() { s.watch(ctx, m) })
		wg.Go(func() { s.attendants[m.Name()].run(ctx) })
		wg.Go(func() { s.feeds[m.Name()].run(ctx) })
	}
	wg.Go(func() { s.collector.run(ctx) })
	wg.Go(func() { s.sweepRehearsals(ctx) })
	return s.set.Run(ctx)
}

// Serve answers calls on l until Shutdown. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(l); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Shutdown ends Serve: no new calls are taken, and those in flight have until
// ctx is done. An operation that is not done by then is left to recovery.
func (s *Server) Shutdown(ctx context.Context) {
	s.health.Shutdown()
	s.events.close()
	s.rehearsals.shut(ctx)
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		s.operations.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.grpc.Stop()
	}
	s.flushProbes()
	s.late.flush(s.log)
	s.recordStop()
}

// handle is the one way in: it receives every call, known to this version of
// CRI or not, as frames.
func (s *Server) handle(_ any, ss grpc.ServerStream) error {
	full, ok := grpc.MethodFromServerStream(ss)
	if !ok {
		return status.Error(codes.Internal, "call without a method")
	}
	ctx := forward(ss.Context())
	m, known := methods[full]
	if !known {
		return s.passUnknown(ctx, full, ss)
	}
	req := new(backends.Frame)
	if err := ss.RecvMsg(req); err != nil {
		return err
	}
	defer req.Free()
	if m.streams {
		return s.stream(ctx, m, req, ss)
	}
	a, err := s.unary(ctx, m, req)
	return answer(ss, a, err)
}

// answer sends what a backend answered, errors with their header and trailer
// included.
func answer(ss grpc.ServerStream, a backends.Answer, err error) error {
	ss.SetTrailer(a.Trailer)
	if len(a.Header) > 0 {
		if herr := ss.SetHeader(replyHeader(a.Header)); herr != nil {
			return herr
		}
	}
	if err != nil {
		return err
	}
	defer a.Body.Free()
	return ss.SendMsg(a.Body)
}

// now is the wall clock in the unit of the log.
func now() int64 { return time.Now().UnixNano() }
