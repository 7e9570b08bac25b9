package docker

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/docker/docker/api/types/container"
)

// shim makes pods as cri-dockerd does, with nothing of the backend's.
type shim struct {
	t       *testing.T
	confDir string
	// half leaves out the ADDs.
	half bool
}

// shimPod is a pod of another shim.
type shimPod struct {
	name, namespace, uid string
	attempt              int
	// suffix is what a conflict of names adds to both names.
	suffix string
	// network is "none", "host" or one of the Engine's.
	network string
	// ports are what its checkpoint says, checkpointDir where that lies.
	ports         []shimPort
	checkpointDir string
	script, image string
	driver        string

	id, ctr, ip, pid string
	logPath          string
	started          string
}

type shimPort struct {
	Protocol      string `json:"protocol"`
	ContainerPort int    `json:"container_port"`
	HostPort      int    `json:"host_port"`
}

// counter prints numbered lines until it is stopped.
const counter = `trap 'exit 0' TERM; i=0; while true; do echo line $i; i=$((i+1)); sleep 0.01; done`

// pod is a pod with a name of its own, that counts.
func (s shim) pod() *shimPod {
	s.t.Helper()
	meta := pod(s.t).Metadata
	return &shimPod{
		name: meta.Name, namespace: "default", uid: meta.Uid, attempt: 1, network: "none",
		checkpointDir: filepath.Join(node.lab.Dir, "cri-dockerd", "sandbox"), script: counter, image: "busybox", driver: "json-file",
		logPath: filepath.Join(s.t.TempDir(), "main", "3.log"),
	}
}

func (s shim) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// run makes the sandbox with its network, and a container in it.
func (s shim) run(p *shimPod) {
	s.t.Helper()
	s.sandbox(p)
	s.container(p)
}

// sandbox makes, in this order: the container, its checkpoint, its process, its
// network.
func (s shim) sandbox(p *shimPod) {
	s.t.Helper()
	ctx, engine := s.t.Context(), node.lab.Docker()
	made, err := engine.ContainerCreate(ctx, &container.Config{
		Image: kubelet(s.t).pull("pause"), Hostname: "pod", Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		Labels: map[string]string{
			"io.kubernetes.docker.type": "podsandbox", "io.kubernetes.container.name": "POD",
			"io.kubernetes.pod.name": p.name, "io.kubernetes.pod.namespace": p.namespace, "io.kubernetes.pod.uid": p.uid,
			"app": "adopted", "annotation.note": "x=y:z",
		},
	}, &container.HostConfig{
		NetworkMode: container.NetworkMode(p.network), IpcMode: "shareable", ShmSize: 64 << 20, SecurityOpt: []string{"no-new-privileges"},
		Resources: container.Resources{CPUShares: 2},
	}, nil, nil, fmt.Sprintf("k8s_POD_%s_%s_%s_%d%s", p.name, p.namespace, p.uid, p.attempt, p.suffix))
	s.check(err)
	p.id = made.ID
	s.checkpoint(p)
	s.check(engine.ContainerStart(ctx, p.id, container.StartOptions{}))
	c, err := engine.ContainerInspect(ctx, p.id)
	s.check(err)
	p.pid = fmt.Sprint(c.State.Pid)
	if p.network == "none" && !s.half {
		s.attach(p)
	}
}

// checkpoint writes a checkpoint as dockershim would: with a checksum that
// cri-dockerd would not accept, and the backend must.
func (s shim) checkpoint(p *shimPod) {
	s.t.Helper()
	if p.checkpointDir == "" {
		return
	}
	data := map[string]any{}
	if len(p.ports) > 0 {
		data["port_mappings"] = p.ports
	}
	if p.network == "host" {
		data["host_network"] = true
	}
	b, err := json.Marshal(map[string]any{"version": "v1", "name": p.name, "namespace": p.namespace, "data": data, "checksum": 4711})
	s.check(err)
	s.check(os.MkdirAll(p.checkpointDir, 0o755))
	s.check(os.WriteFile(filepath.Join(p.checkpointDir, p.id), b, 0o600))
	s.t.Cleanup(func() {
		// It is gone with the sandbox, or the test has failed.
		if err := os.Remove(filepath.Join(p.checkpointDir, p.id)); err == nil {
			s.t.Errorf("the checkpoint of %s is left", p.id)
		}
	})
}

// libcni returns what another shim calls the plugins with.
func (s shim) libcni(p *shimPod) (*libcni.CNIConfig, *libcni.RuntimeConf) {
	ports := []map[string]any{}
	for _, m := range p.ports {
		ports = append(ports, map[string]any{"hostPort": m.HostPort, "containerPort": m.ContainerPort, "protocol": m.Protocol, "hostIP": ""})
	}
	return libcni.NewCNIConfigWithCacheDir(node.lab.CNIBinDirs, node.lab.CNICacheDir, nil), &libcni.RuntimeConf{
		ContainerID: p.id, NetNS: "/proc/" + p.pid + "/ns/net", IfName: "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.namespace}, {"K8S_POD_NAME", p.name}, {"K8S_POD_INFRA_CONTAINER_ID", p.id},
		},
		CapabilityArgs: map[string]any{"portMappings": ports, "ipRanges": [][]map[string]any{{{"subnet": ""}}}},
	}
}

// loopbackList is the network of a pod's own loopback.
const loopbackList = `{"cniVersion": "0.2.0", "name": "cni-loopback", "plugins":[{"type": "loopback"}]}`

// lists are the loopback's, and the configuration of today.
func (s shim) lists() []*libcni.NetworkConfigList {
	s.t.Helper()
	lo, err := libcni.ConfListFromBytes([]byte(loopbackList))
	s.check(err)
	dir := s.confDir
	if dir == "" {
		dir = node.lab.CNIConfDir
	}
	files, err := filepath.Glob(dir + "/*.conflist")
	s.check(err)
	list, err := libcni.ConfListFromFile(files[0])
	s.check(err)
	return []*libcni.NetworkConfigList{lo, list}
}

// attach carries out both ADDs.
func (s shim) attach(p *shimPod) {
	s.t.Helper()
	plugins, conf := s.libcni(p)
	for _, l := range s.lists() {
		res, err := plugins.AddNetworkList(s.t.Context(), l, conf)
		s.check(err)
		b, err := json.Marshal(res)
		s.check(err)
		var said struct{ IPs []struct{ Address string } }
		s.check(json.Unmarshal(b, &said))
		if len(said.IPs) > 0 {
			p.ip, _, _ = strings.Cut(said.IPs[0].Address, "/")
		}
	}
}

// detach carries out both DELs.
func (s shim) detach(p *shimPod) {
	s.t.Helper()
	plugins, conf := s.libcni(p)
	for _, l := range s.lists() {
		s.check(plugins.DelNetworkList(s.t.Context(), l, conf))
	}
}

// container makes and starts the pod's container, and then links its log.
func (s shim) container(p *shimPod) {
	s.t.Helper()
	ctx, engine := s.t.Context(), node.lab.Docker()
	s.create(p)
	s.check(engine.ContainerStart(ctx, p.ctr, container.StartOptions{}))
	c, err := engine.ContainerInspect(ctx, p.ctr)
	s.check(err)
	p.started = c.State.StartedAt
	s.check(os.MkdirAll(filepath.Dir(p.logPath), 0o755))
	if c.LogPath != "" {
		s.check(os.Symlink(c.LogPath, p.logPath))
	}
}

// create makes the pod's container.
func (s shim) create(p *shimPod) {
	s.t.Helper()
	ctx, engine := s.t.Context(), node.lab.Docker()
	// The kubelet asks for an image by the id that it was told.
	img, err := engine.ImageInspect(ctx, kubelet(s.t).pull(p.image))
	s.check(err)
	made, err := engine.ContainerCreate(ctx, &container.Config{
		Image: img.ID, Cmd: []string{"sh", "-c", p.script}, OpenStdin: true,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		Labels: map[string]string{
			"io.kubernetes.docker.type": "container", "io.kubernetes.sandbox.id": p.id, "io.kubernetes.container.logpath": p.logPath,
			"io.kubernetes.container.name": "main", "io.kubernetes.pod.name": p.name, "annotation.io.kubernetes.container.hash": "abc",
		},
	}, &container.HostConfig{
		NetworkMode: container.NetworkMode("container:" + p.id), IpcMode: container.IpcMode("container:" + p.id),
		LogConfig: container.LogConfig{Type: p.driver}, RestartPolicy: container.RestartPolicy{Name: "no"},
		Binds: []string{s.t.TempDir() + ":/mnt:ro"},
	}, nil, nil, fmt.Sprintf("k8s_main_%s_%s_%s_%d%s", p.name, p.namespace, p.uid, 3, p.suffix))
	s.check(err)
	p.ctr = made.ID
}
