package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/backends/docker/checkpoint"
	"github.com/crimux/crimux/backends/docker/crilog"
	"github.com/crimux/crimux/backends/docker/streaming"
	"github.com/crimux/crimux/cni"
)

// Options configure a backend.
type Options struct {
	// Name is the backend's name in the configuration.
	Name string
	// Endpoint is the Engine's socket: unix:///run/docker.sock.
	Endpoint string
	// PodInfraImage is the pause image. Where it is neither on the node nor to
	// be had, the built-in one is used; empty uses the built-in one always.
	PodInfraImage string
	// CNI says where the pods' network comes from.
	CNI cni.Config
	// NetworkGC lets CollectNetworks do something.
	NetworkGC bool
	// StreamListen is the loopback address for exec, attach and port-forward;
	// empty is any free port of 127.0.0.1.
	StreamListen string
	// LogMaxSize and LogMaxFiles bound what the Engine keeps of a container's
	// log, from which the log in CRI format is copied; empty is 50m and 5.
	LogMaxSize  string
	LogMaxFiles int
	// CheckpointDirs are where cri-dockerd and dockershim keep the checkpoints
	// of their sandboxes; those of ours are written to the first. Empty is their
	// own default folders.
	CheckpointDirs []string
	// LayerInterval is how often a container's writable layer is measured at
	// most; 0 is 10 seconds.
	LayerInterval time.Duration
	// Logger is told what no caller could be: lost log records, panics. Nil
	// is slog's default.
	Logger *slog.Logger
}

// Backend is a Docker Engine. See [New].
type Backend struct {
	name string
	log  *slog.Logger
	srv  *server
	ran  atomic.Bool
}

var (
	_ backends.Backend   = (*Backend)(nil)
	_ backends.Noticer   = (*Backend)(nil)
	_ backends.Bounder   = (*Backend)(nil)
	_ backends.Recoverer = (*Backend)(nil)
	_ backends.Runner    = (*Backend)(nil)
)

// New returns the backend. The Engine need not run yet.
func New(o Options) (*Backend, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	engine, err := newLiveClient(client.WithHost(o.Endpoint))
	if err != nil {
		return nil, fmt.Errorf("backend %s: endpoint %q: %w", o.Name, o.Endpoint, err)
	}
	pods, err := cni.New(o.CNI)
	if err != nil {
		return nil, fmt.Errorf("backend %s: pod network: %w", o.Name, err)
	}
	gaps := newLogGaps(o.Logger)
	follower, err := crilog.New(crilog.Options{
		OnGap: gaps.note,
		OnError: func(id string, err error) {
			if err == nil {
				o.Logger.Info("container log is copied again", "container", id)
				return
			}
			o.Logger.Warn("container log cannot be copied", "container", id, "error", err)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("backend %s: container logs: %w", o.Name, err)
	}
	s, err := newServer(o, engine, pods, follower, pins{dir: netnsDir})
	if err != nil {
		return nil, err
	}
	s.gaps = gaps
	s.streams, err = streaming.New(streaming.Options{Engine: engine, Listen: o.StreamListen, SandboxPID: s.sandboxPID})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("backend %s: streaming server: %w", o.Name, err), follower.Close())
	}
	return &Backend{name: o.Name, log: o.Logger, srv: s}, nil
}

// withDefaults fills in what is empty and refuses what cannot be.
func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		return o, errors.New("docker backend: a name is required")
	}
	if p, ok := strings.CutPrefix(o.Endpoint, "unix://"); !ok || !path.IsAbs(p) {
		return o, fmt.Errorf("backend %s: endpoint %q: want unix:// and an absolute path: the engine must be on this node", o.Name, o.Endpoint)
	}
	if o.LogMaxSize == "" {
		o.LogMaxSize = "50m"
	}
	if o.LogMaxFiles == 0 {
		o.LogMaxFiles = 5
	}
	// With a single file the Engine truncates it on rotation, and lines that
	// were not copied yet are gone.
	if o.LogMaxFiles < 2 {
		return o, fmt.Errorf("backend %s: log files %d: at least 2 are needed, or lines are lost on rotation", o.Name, o.LogMaxFiles)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = o.Logger.With("backend", o.Name)
	return o, nil
}

// newServer puts the CRI services together.
func newServer(o Options, e engine, n networks, l logs, p namespaces) (*server, error) {
	floor, err := oomFloor(os.ReadFile)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", o.Name, err)
	}
	sizes, err := pageSizes(hugePagesDir)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", o.Name, err)
	}
	kept, err := checkpoint.New(o.CheckpointDirs...)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", o.Name, err)
	}
	known := newCache()
	s := &server{
		endpoint: o.Endpoint,
		engine:   e,
		cache:    known,
		events:   newContainerEvents(),
		api:      newNegotiation(e),
		log:      o.Logger,
		gaps:     newLogGaps(o.Logger),
		logs:     newContainerLogs(l, known.isGone),
		memory:   newMemoryKills(),
		pointed:  newPointedAt(),
		collect:  o.NetworkGC,
		pods:     newAttachments(n, p, kept),
		infra:    newInfraImage(o.PodInfraImage, e),
		ops:      newOperations(),
		leaving:  newDepartures(),
		late:     newLateStarts(),
		locks:    newKeyLocks(),
		node: nodeOptions{
			oomFloor:  floor,
			logs:      container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": o.LogMaxSize, "max-file": fmt.Sprint(o.LogMaxFiles)}},
			readFile:  readProfile,
			pageSizes: sizes,
		},
	}
	s.stats = newNodeStats(s, o.LayerInterval)
	s.cache.changed = func(id string) {
		s.announce(id)
		s.stats.layers.Wake()
	}
	return s, nil
}

// Name implements [backends.Backend].
func (b *Backend) Name() string { return b.name }

// Probe implements [backends.Backend].
func (b *Backend) Probe(ctx context.Context) error {
	if err := b.srv.api.ensure(ctx); err != nil {
		return b.srv.fail(err, "ping")
	}
	if _, err := b.srv.engine.Ping(ctx); err != nil {
		return b.srv.fail(err, "ping")
	}
	return nil
}

// Close implements [backends.Backend]. It must follow the end of Run.
func (b *Backend) Close() error {
	var unserved error
	if !b.ran.Load() {
		// The streaming server listens since New, and stops with its Run.
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		unserved = b.srv.streams.Run(ended)
	}
	return errors.Join(unserved, b.srv.logs.copies.Close(), b.srv.engine.Close())
}

const (
	runBound    = 4 * time.Minute
	changeBound = 2 * time.Minute
)

// Bound implements [backends.Bounder].
func (b *Backend) Bound(method string, req *backends.Frame) (time.Duration, bool) {
	switch path.Base(method) {
	case "RunPodSandbox":
		return runBound, true
	case "StopContainer":
		var r runtimeapi.StopContainerRequest
		if err := proto.Unmarshal(req.Bytes(), &r); err != nil {
			return changeBound, true // Invoke refuses it
		}
		return stopGrace(r.Timeout) + changeBound, true
	case "CreateContainer", "StartContainer", "UpdateContainerResources", "StopPodSandbox", "RemoveContainer", "RemovePodSandbox":
		return changeBound, true
	}
	return 0, false
}

// stopGrace is a StopContainer's timeout as a duration; no more than a day, so
// that it cannot overflow.
func stopGrace(seconds int64) time.Duration {
	return time.Duration(min(max(seconds, 0), 86400)) * time.Second
}
