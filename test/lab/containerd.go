package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerdConfig is what the two configuration formats are filled with.
type containerdConfig struct {
	Dir, Sandbox string
	BinDirs      []string
	// RestrictOOM is set where the machine may not lower an OOM score: a sandbox asks for -998.
	RestrictOOM bool
}

// noisyPlugins only fill the log of a lab with warnings.
const noisyPlugins = `
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.nri.v1.nri",
]
`

// Network namespaces go below the state folder so that they can be told from another lab's, and runc's own
// state with them.
var containerdV1 = template.Must(template.New("1").Parse(`version = 2
root = "{{.Dir}}/containerd"
state = "{{.Dir}}/run/cri"` + noisyPlugins + `
[grpc]
  address = "{{.Dir}}/run/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{{.Dir}}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{{.Sandbox}}"
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = {{.RestrictOOM}}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{{index .BinDirs 0}}"
    conf_dir = "{{.Dir}}/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{{.Dir}}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{{.Dir}}/run/runc"
      SystemdCgroup = false
`))

var containerdV2 = template.Must(template.New("2").Parse(`version = 3
root = "{{.Dir}}/containerd"
state = "{{.Dir}}/run/cri"
imports = []` + noisyPlugins + `
[grpc]
  address = "{{.Dir}}/run/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{{.Dir}}/opt"
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = "{{.Dir}}/run/s"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{{.Sandbox}}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{{.Dir}}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = {{.RestrictOOM}}
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [{{range $i, $d := .BinDirs}}{{if $i}}, {{end}}"{{$d}}"{{end}}]
    conf_dir = "{{.Dir}}/cni/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      Root = "{{.Dir}}/run/runc"
      SystemdCgroup = false
`))

// newContainerd writes the configuration of the CRI's containerd; binDir is where [V2] was built.
func (l *Lab) newContainerd(v Version, binDir string) (*daemon, error) {
	format, path, search := containerdV1, lookTool("containerd"), sbinPath
	if v == V2 {
		format, path, search = containerdV2, filepath.Join(binDir, "containerd"), binDir+":"+sbinPath
	}
	lower, err := mayLowerOOMScore()
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	c := containerdConfig{Dir: l.site.dir, Sandbox: l.Image("pause"), BinDirs: l.CNIBinDirs, RestrictOOM: !lower}
	if err := format.Execute(&b, c); err != nil {
		return nil, fmt.Errorf("fill in containerd's configuration: %w", err)
	}
	config := l.site.path("containerd.toml")
	if err := os.WriteFile(config, []byte(b.String()), 0o644); err != nil {
		return nil, fmt.Errorf("write containerd's configuration: %w", err)
	}
	if err := l.writeHosts(); err != nil {
		return nil, err
	}
	return &daemon{
		name: "containerd", path: path, args: []string{"--config", config, "--log-level", "warn"},
		env: engineEnv(search), log: filepath.Join(l.LogsDir, "containerd.log"), ready: l.criReady,
	}, nil
}

// writeHosts tells containerd that the lab's registry speaks plain http.
func (l *Lab) writeHosts() error {
	dir := l.site.path("certs.d", l.Registry)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("describe the lab's registry to containerd: %w", err)
	}
	hosts := fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+l.Registry, "http://"+l.Registry)
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(hosts), 0o644); err != nil {
		return fmt.Errorf("describe the lab's registry to containerd: %w", err)
	}
	return nil
}

// criReady succeeds once containerd can make pods.
func (l *Lab) criReady(ctx context.Context) error {
	r, err := l.CRI().Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range r.GetStatus().GetConditions() {
		if !c.GetStatus() && (c.GetType() == runtimeapi.RuntimeReady || c.GetType() == runtimeapi.NetworkReady) {
			return errors.New(c.GetType() + " is false: " + c.GetMessage())
		}
	}
	return nil
}

// engineEnv is this process's environment with a PATH of the engine's own and without what would steer it
// away from the lab.
func engineEnv(path string) []string {
	env := []string{"PATH=" + path}
	for _, e := range os.Environ() {
		k, _, _ := strings.Cut(e, "=")
		if k == "PATH" || k == "NOTIFY_SOCKET" || strings.HasPrefix(k, "LISTEN_") || strings.HasPrefix(k, "DOCKER_") || strings.HasPrefix(k, "CONTAINERD_") {
			continue
		}
		env = append(env, e)
	}
	return env
}

// mayLowerOOMScore tells whether CAP_SYS_RESOURCE is in effect here.
func mayLowerOOMScore() (bool, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, fmt.Errorf("read this process's capabilities: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			if err != nil {
				return false, fmt.Errorf("read this process's capabilities: %w", err)
			}
			return set&(1<<unix.CAP_SYS_RESOURCE) != 0, nil
		}
	}
	return false, errors.New("read this process's capabilities: /proc/self/status has no CapEff")
}
