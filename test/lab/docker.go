package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/docker/client"
)

// defaultContainerd is the socket of a machine's own containerd: where it exists dockerd uses that one unless
// it is told another.
const defaultContainerd = "/run/containerd/containerd.sock"

// OtherRuntime is the name of a second OCI runtime that the lab's dockerd knows. It is runc again.
const OtherRuntime = "other"

// newDocker writes dockerd's configuration and makes its command line. Everything it would write to the
// machine's usual places goes to the lab's folder.
func (l *Lab) newDocker(ctx context.Context, o Options) (*daemon, error) {
	s := l.site
	settings := object{
		"deprecated-key-path": s.path("docker/key.json"),
		// A runtime besides the default, as a RuntimeClass chooses one.
		"runtimes": object{OtherRuntime: object{"path": lookTool("runc")}},
	}
	if o.ContainerdStore {
		settings["features"] = object{"containerd-snapshotter": true}
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return nil, fmt.Errorf("encode dockerd's configuration: %w", err)
	}
	if err := os.WriteFile(s.path("daemon.json"), config, 0o644); err != nil {
		return nil, fmt.Errorf("write dockerd's configuration: %w", err)
	}
	path := lookTool("dockerd")
	args := []string{
		"--config-file", s.path("daemon.json"), "--data-root", s.path("docker"), "--exec-root", s.path("run/docker"),
		"-H", "unix://" + l.DockerSocket, "--pidfile", s.path("run/docker.pid"), "--bridge", "none", "--iptables=false",
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--log-level", "warn",
		fmt.Sprintf("--live-restore=%v", o.LiveRestore),
	}
	help, err := output(ctx, "", path, "--help")
	if err != nil {
		return nil, fmt.Errorf("ask dockerd for its flags: %w", err)
	}
	// Engines differ in their flags: 20.10 lowers its own OOM score unless told otherwise, later ones leave it.
	for _, f := range []string{"--ip6tables=false", "--oom-score-adjust=0"} {
		if name, _, _ := strings.Cut(f, "="); strings.Contains(string(help), name) {
			args = append(args, f)
		}
	}
	switch {
	case o.Layout == SharedContainerd:
		args = append(args, "--containerd", l.ContainerdSocket)
	case l.engine != nil:
		args = append(args, "--containerd", s.path("run/engine.sock"))
	}
	return &daemon{
		name: "dockerd", path: path, args: args, env: engineEnv(sbinPath),
		log: filepath.Join(l.LogsDir, "dockerd.log"), ready: l.dockerReady,
	}, nil
}

// newEngineContainerd is dockerd's containerd where dockerd would not start one itself because the machine
// runs one already; nil elsewhere.
func (l *Lab) newEngineContainerd() (*daemon, error) {
	if _, err := os.Lstat(defaultContainerd); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("look for the machine's containerd: %w", err)
	}
	s, sock := l.site, l.site.path("run/engine.sock")
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"+
		"[grpc]\n  address = %q\n[plugins.\"io.containerd.internal.v1.opt\"]\n  path = %q\n",
		s.path("docker/containerd/daemon"), s.path("run/docker/containerd"), sock, s.path("opt"))
	if err := os.WriteFile(s.path("engine.toml"), []byte(config), 0o644); err != nil {
		return nil, fmt.Errorf("write the configuration of dockerd's containerd: %w", err)
	}
	return &daemon{
		name: "dockerd's containerd", path: lookTool("containerd"), args: []string{"--config", s.path("engine.toml"), "--log-level", "warn"},
		env: engineEnv(sbinPath), log: filepath.Join(l.LogsDir, "engine.log"),
		ready: func(context.Context) error {
			_, err := os.Stat(sock)
			return err
		},
	}, nil
}

// storeDriver is how an Engine whose images are in containerd calls its kind of driver.
const storeDriver = "io.containerd.snapshotter.v1"

// checkStore keeps an Engine that ignores the setting from being taken for one with the store.
func (l *Lab) checkStore(ctx context.Context) error {
	info, err := l.Docker().Info(ctx)
	if err != nil {
		return fmt.Errorf("look where dockerd has its images: %w", err)
	}
	for _, s := range info.DriverStatus {
		if s[1] == storeDriver {
			return nil
		}
	}
	return fmt.Errorf("dockerd %s cannot keep images in containerd; leave out ContainerdStore", info.ServerVersion)
}

func (l *Lab) dockerReady(ctx context.Context) error {
	_, err := l.Docker().Ping(ctx)
	return err
}

func newDockerClient(socket string) (*client.Client, error) {
	c, err := client.NewClientWithOpts(client.WithHost("unix://"+socket), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("make a client of dockerd: %w", err)
	}
	return c, nil
}
