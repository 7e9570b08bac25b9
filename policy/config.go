package policy

import "time"

// APIVersion and Kind are what a configuration file must say it is.
const (
	APIVersion = "crimux.dev/v1"
	Kind       = "Config"
)

// Defaults of the keys that may be left out.
const (
	DefaultListen         = "unix:///run/crimux/crimux.sock"
	DefaultAdminListen    = "unix:///run/crimux/admin.sock"
	DefaultStateDir       = "/var/lib/crimux"
	DefaultDockerEndpoint = "unix:///run/docker.sock"
	DefaultPodInfraImage  = "registry.k8s.io/pause:3.10"
	DefaultCNIConfDir     = "/etc/cni/net.d"
	DefaultCNICacheDir    = "/var/lib/cni/cache"
	DefaultStreamListen   = "127.0.0.1:0"
	DefaultLogMaxSize     = "50m"
	DefaultLogMaxFiles    = 3
	DefaultProbeInterval  = time.Second
	DefaultDownAfter      = 10 * time.Second
	DefaultListTimeout    = 2 * time.Second
	DefaultEventsMaxSize  = "256m"
	DefaultRetention      = 168 * time.Hour
)

// DefaultCNIBinDirs returns the folders where CNI plugins are looked for when
// the configuration names none. The slice is the caller's own.
func DefaultCNIBinDirs() []string { return []string{"/opt/cni/bin", "/usr/lib/cni"} }

// DefaultCheckpointDirs returns the folders where cri-dockerd and dockershim
// keep the checkpoints of their sandboxes. The slice is the caller's own.
func DefaultCheckpointDirs() []string {
	return []string{"/var/lib/cri-dockerd/sandbox", "/var/lib/dockershim/sandbox"}
}

// Config is a whole configuration, checked and with its defaults filled in. One
// that came from Load, Parse or WithMigration is never changed afterwards and
// safe for concurrent use; treat it as read-only.
type Config struct {
	// Listen is where the kubelet connects: unix:///path, or fd:// or fd://NAME
	// for a socket that systemd passed on.
	Listen string
	// AdminListen is where the crimux commands connect, in the same forms.
	AdminListen string
	// StateDir is the folder of the event log, an absolute path.
	StateDir string
	// RuntimeName is what Version reports. The kubelet prefixes container ids
	// with it (docker://…), nodes' log shippers and monitors parse that prefix,
	// and to the kubelet another prefix is another container. So it should stay
	// what the node reported before crimux came, and stay so while pods migrate.
	// Left out it follows the default's type: "docker" or "containerd". Write it
	// down before ever changing the default to a backend of the other type.
	RuntimeName string
	// Backends are the runtimes, in the order of the file; never empty.
	Backends []Backend
	// Routes map handlers to backends; the first match wins, and no handler
	// occurs twice.
	Routes []RouteRule
	// Default names the backend of pods without a handler.
	Default string
	// Migration moves a share of the default's pods; its zero value moves none.
	Migration Migration
	// Health says when a backend counts as away.
	Health Health
	// Log bounds the event log.
	Log EventLog
	// Record says what events keep beyond what they always keep.
	Record Record
	// Sinks are where events are shipped.
	Sinks []Sink
}

// BackendType tells how crimux talks to a backend.
type BackendType string

// The types of backends.
const (
	// TypeDocker is a Docker Engine; CRI calls are translated.
	TypeDocker BackendType = "docker"
	// TypeCRI is a CRI runtime; CRI calls are passed through.
	TypeCRI BackendType = "cri"
)

// Backend is one runtime. The fields after Endpoint are set for TypeDocker and
// zero for TypeCRI, which takes care of these things itself.
type Backend struct {
	// Name is a DNS label, unique in the configuration.
	Name string
	// Type is TypeDocker or TypeCRI.
	Type BackendType
	// Endpoint is the runtime's socket, unix:///path.
	Endpoint string
	// CNI says where the pod networks' plugins and configuration are.
	CNI CNI
	// PodInfraImage is the image of the container that holds a pod's namespaces.
	PodInfraImage string
	// Logs bounds the log that the Engine keeps per container.
	Logs Logs
	// StreamListen is the loopback host:port that serves exec, attach and
	// port-forward streams; port 0 lets the system choose.
	StreamListen string
	// CheckpointDirs are read for the checkpoints of other shims' sandboxes,
	// absolute paths all; those of ours are written to the first.
	CheckpointDirs []string
}

// CNI holds the folders that libcni needs, absolute paths all.
type CNI struct {
	ConfDir  string
	BinDirs  []string
	CacheDir string
	// GC has plugins that know it give back what is no sandbox's (CNI 1.1).
	GC bool
}

// Logs is the rotation of the Engine's json-file log, in the form that the
// Engine's max-size and max-file options take.
type Logs struct {
	// MaxSize is a number of bytes, or one of k, m or g bytes: "50m".
	MaxSize string
	// MaxFiles is at least 2, since with a single file rotation is truncation.
	MaxFiles int
}

// RouteRule sends the pods of one handler to a backend.
type RouteRule struct {
	// Handler is the handler of a RuntimeClass, never "".
	Handler string
	// Backend is the name of the backend.
	Backend string
	// BackendHandler is the handler the backend is told; "" is its own default.
	BackendHandler string
}

// Migration moves a share of the pods that have no handler from the default to
// another backend. Two values are the same migration when they are ==.
type Migration struct {
	// To names the target; "" means that there is no migration.
	To string
	// BackendHandler is the handler that the target is told.
	BackendHandler string
	// Percent is the share that moves, 0 to 100: the pods with Bucket < Percent.
	Percent int
}

// EventLog bounds the event log. MaxSize comes before Retention.
type EventLog struct {
	// MaxSize is a number of bytes, or one of k, m or g bytes: "256m".
	MaxSize string
	// Retention is how long events are kept, and those of a pod after it has
	// ended.
	Retention time.Duration
}

// Bytes is MaxSize as a number.
func (l EventLog) Bytes() int64 {
	n, err := parseSize(l.MaxSize)
	if err != nil {
		return 0 // a configuration that was checked has none that cannot be read
	}
	return n
}

// Health says how backends are probed.
type Health struct {
	// ProbeInterval is the time from one probe to the next.
	ProbeInterval time.Duration
	// DownAfter is how long no probe must be answered for a backend to count as
	// away; at least ProbeInterval. A slow backend is not away.
	DownAfter time.Duration
	// ListTimeout is how long a list waits for a backend that does not answer
	// probes either, before what is last known of it is listed.
	ListTimeout time.Duration
}

// Backend returns the backend of that name, and whether there is one.
func (c *Config) Backend(name string) (Backend, bool) {
	for _, b := range c.Backends {
		if b.Name == name {
			return b, true
		}
	}
	return Backend{}, false
}

// backendNames returns the backends' names in file order.
func (c *Config) backendNames() []string {
	names := make([]string, len(c.Backends))
	for i, b := range c.Backends {
		names[i] = b.Name
	}
	return names
}
