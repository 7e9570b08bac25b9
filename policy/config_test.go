package policy

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// minimal is the shortest valid configuration.
const minimal = `apiVersion: crimux.dev/v1
kind: Config
backends:
  docker: {type: docker}
default: docker
`

// pinnedConfig is testdata/pinned.yaml as it must be understood.
func pinnedConfig() *Config {
	return &Config{
		Listen:      "unix:///run/crimux/crimux.sock",
		AdminListen: "unix:///run/crimux/admin.sock",
		StateDir:    "/var/lib/crimux",
		RuntimeName: "docker",
		Backends: []Backend{
			{
				Name:     "docker",
				Type:     TypeDocker,
				Endpoint: "unix:///run/docker.sock",
				CNI: CNI{
					ConfDir:  "/etc/cni/net.d",
					BinDirs:  []string{"/opt/cni/bin", "/usr/lib/cni"},
					CacheDir: "/var/lib/cni/cache",
				},
				PodInfraImage: "registry.k8s.io/pause:3.10",
				Logs:          Logs{MaxSize: "50m", MaxFiles: 3},
				StreamListen:  "127.0.0.1:0",

				CheckpointDirs: []string{"/var/lib/cri-dockerd/sandbox", "/var/lib/dockershim/sandbox"},
			},
			{Name: "containerd", Type: TypeCRI, Endpoint: "unix:///run/containerd/containerd.sock"},
		},
		Routes:    []RouteRule{{Handler: "docker", Backend: "docker"}, {Handler: "containerd", Backend: "containerd"}},
		Default:   "docker",
		Migration: Migration{To: "containerd"},
		Log:       EventLog{MaxSize: "256m", Retention: 168 * time.Hour},
		Health:    Health{ProbeInterval: time.Second, DownAfter: 10 * time.Second, ListTimeout: 2 * time.Second},
	}
}

// load reads a configuration that must be valid.
func load(t testing.TB, path string) *Config {
	t.Helper()
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// parse reads a configuration that must be valid.
func parse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Parse("config.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLoadPinnedExample(t *testing.T) {
	got := load(t, "testdata/pinned.yaml")
	if want := pinnedConfig(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseDefaults(t *testing.T) {
	got := parse(t, minimal)
	want := pinnedConfig()
	want.Backends = want.Backends[:1]
	want.Routes, want.Migration = nil, Migration{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestLoadEveryKey(t *testing.T) {
	got := load(t, "testdata/full.yaml")
	want := &Config{
		Listen:      "fd://crimux.socket",
		AdminListen: "unix:///run/crimux-admin.sock",
		StateDir:    "/srv/crimux",
		RuntimeName: "cri-o",
		Backends: []Backend{
			{
				Name:          "zeta",
				Type:          TypeDocker,
				Endpoint:      "unix:///var/run/docker-2.sock",
				CNI:           CNI{ConfDir: "/etc/cni/zeta", BinDirs: []string{"/usr/libexec/cni"}, CacheDir: "/var/cache/cni", GC: true},
				PodInfraImage: "localhost:5000/pause@sha256:" + strings.Repeat("0", 64),
				Logs:          Logs{MaxSize: "16k", MaxFiles: 5},
				StreamListen:  "[::1]:10010",

				CheckpointDirs: []string{"/srv/checkpoints"},
			},
			{Name: "alpha", Type: TypeCRI, Endpoint: "unix:///run/crio/crio.sock"},
		},
		Routes: []RouteRule{
			{Handler: "kata", Backend: "alpha", BackendHandler: "kata_qemu"},
			{Handler: "gpu", Backend: "zeta", BackendHandler: "nvidia"},
		},
		Default:   "alpha",
		Migration: Migration{To: "zeta", BackendHandler: "runc", Percent: 100},
		Health:    Health{ProbeInterval: 500 * time.Millisecond, DownAfter: time.Minute, ListTimeout: time.Second},
		Log:       EventLog{MaxSize: "1g", Retention: 24 * time.Hour},
		Record:    Record{Annotations: []string{"team.example/owner", "cost.example/*"}},
		Sinks: []Sink{{
			Name: "near", Type: SinkOTLP, Endpoint: "http://[::1]:4318", Protocol: ProtocolHTTP, Headers: []Header{{"x-scope", "node"}},
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRuntimeNameFollowsTheDefault(t *testing.T) {
	text := `apiVersion: crimux.dev/v1
kind: Config
default: DEFAULT
backends:
  d: {type: docker}
  c: {type: cri, endpoint: unix:///run/c.sock}
`
	for backend, want := range map[string]string{"d": "docker", "c": "containerd"} {
		if got := parse(t, strings.Replace(text, "DEFAULT", backend, 1)).RuntimeName; got != want {
			t.Errorf("default %s: runtime name %q, want %q", backend, got, want)
		}
	}
}

func TestDefaultsAreNotShared(t *testing.T) {
	first := parse(t, minimal)
	first.Backends[0].CNI.BinDirs[0] = "/changed"
	if second := parse(t, minimal); second.Backends[0].CNI.BinDirs[0] != "/opt/cni/bin" {
		t.Error("two configurations share the default folders")
	}
}

func TestBackendByName(t *testing.T) {
	c := pinnedConfig()
	if b, ok := c.Backend("containerd"); !ok || b.Type != TypeCRI {
		t.Errorf("containerd: %+v, %v", b, ok)
	}
	if b, ok := c.Backend("podman"); ok {
		t.Errorf("podman: %+v", b)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	_, err := Load(path)
	if want := "open the configuration: open " + path + ": no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	_, err = Load(t.TempDir())
	if err == nil || !strings.HasPrefix(err.Error(), "read the configuration: ") {
		t.Errorf("a folder: %v", err)
	}
}

func TestLoadTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(path, []byte(minimal+strings.Repeat("# much\n", maxFileSize/7)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if want := path + ": is larger than 65536 bytes: a configuration needs a few kilobytes"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestWithMigration(t *testing.T) {
	c := pinnedConfig()
	m := Migration{To: "containerd", BackendHandler: "runc", Percent: 30}
	changed, err := c.WithMigration(m)
	if err != nil {
		t.Fatal(err)
	}
	if changed.Migration != m || c.Migration != (Migration{To: "containerd"}) {
		t.Errorf("changed %+v, original %+v", changed.Migration, c.Migration)
	}
	if ended, err := c.WithMigration(Migration{}); err != nil || ended.Migration != (Migration{}) {
		t.Errorf("ended: %+v, %v", ended, err)
	}
	_, err = c.WithMigration(Migration{To: "podman", Percent: 101})
	want := "migration.percent: 101 is not between 0 and 100\n" +
		`migration.to: there is no backend "podman" (there are docker, containerd)`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestRecordKeeps(t *testing.T) {
	r := Record{Annotations: []string{"team.example/owner", "cost.example/*"}}
	for key, want := range map[string]bool{
		"io.kubernetes.container.hash": true,
		"team.example/owner":           true,
		"team.example/owners":          false,
		"cost.example/centre":          true,
		"cost.example":                 false,
		secretAnnotation:               false,
		"":                             false,
	} {
		if got := r.Keeps(key); got != want {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
}

func TestUnixPath(t *testing.T) {
	if path, ok := UnixPath("unix:///run/docker.sock"); path != "/run/docker.sock" || !ok {
		t.Errorf("unix: %q, %v", path, ok)
	}
	if _, ok := UnixPath("fd://name"); ok {
		t.Error("fd:// has a path")
	}
}
