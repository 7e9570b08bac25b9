package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/cni"
	"github.com/crimux/crimux/test/node"
)

// docker measures the translation: beside containerd with as many pods, which
// is what a kubelet would get elsewhere; beside the Engine's own API, which is
// the floor of what changes something: create, start and the CNI plugins; and
// beside another CRI shim for the same Engine, where one is running.
func (b *bench) docker(ctx context.Context, n *node.Node) error {
	image := b.lab.Image("busybox")
	pull := &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}
	if _, err := n.Images.PullImage(ctx, pull); err != nil {
		return err
	}
	if _, err := b.lab.CRIImages().PullImage(ctx, pull); err != nil {
		return err
	}
	floor, err := newFloor(b, image)
	if err != nil {
		return err
	}
	peer, done, err := b.dialPeer()
	if err != nil {
		return err
	}
	defer done()
	pods, run, err := b.dockerPods(ctx, n, floor, peer, image)
	if err != nil {
		return errors.Join(err, b.removeDirect(ctx))
	}
	rows := []row{run}
	for i, c := range readCalls(ctx) {
		ways := []way{
			{"containerd", func() error { return c.call(b.lab.CRI(), pods.containerd) }},
			{"engine", floor.reads(ctx, pods.crimux)[i]},
			{"crimux", func() error { return c.call(n, pods.crimux) }},
		}
		if peer != nil {
			ways = append(ways, way{"peer", func() error { return c.call(peer, pods.crimux) }})
		}
		r, err := interleave(c.name, b.rounds, ways...)
		if err != nil {
			return errors.Join(err, b.removeDirect(ctx))
		}
		rows = append(rows, r)
	}
	names := []string{"containerd", "engine", "crimux"}
	if peer != nil {
		names = []string{"containerd", "engine", "peer", "crimux"}
	}
	return errors.Join(
		print(os.Stdout, fmt.Sprintf("docker, %d pods with %d containers each", b.pods, b.per), names, rows),
		b.removeDirect(ctx))
}

// lastPods are the pods whose statuses are asked for.
type lastPods struct{ containerd, crimux *node.Pod }

// dockerPods makes the pods, those of containerd and of Docker in turn. The
// peer's go at once: it shows the pods that crimux has made.
func (b *bench) dockerPods(ctx context.Context, n *node.Node, floor *floor, peer runtimeapi.RuntimeServiceClient, image string) (last lastPods, run row, err error) {
	run = newRow("RunPodSandbox")
	for i := range b.pods {
		if i < b.pods/2 {
			took, err := floor.sandbox(ctx)
			if err != nil {
				return last, run, err
			}
			run.add("engine", took)
		}
		if last.crimux, err = b.runPod(ctx, n, n, fmt.Sprintf("bench-%d", i), image, run, "crimux"); err != nil {
			return last, run, err
		}
		if last.containerd, err = b.runPod(ctx, n, b.lab.CRI(), fmt.Sprintf("direct-%d", i), image, run, "containerd"); err != nil {
			return last, run, err
		}
		if peer != nil && i < b.pods/2 {
			if err := b.peerPod(ctx, n, peer, i, run); err != nil {
				return last, run, err
			}
		}
	}
	return last, run, nil
}

// peerPod has the peer make a sandbox, and removes it.
func (b *bench) peerPod(ctx context.Context, n *node.Node, peer runtimeapi.RuntimeServiceClient, i int, run row) error {
	began := time.Now()
	r, err := peer.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig(fmt.Sprintf("peer-%d", i), filepath.Join(n.Dir, "pods"))})
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	run.add("peer", time.Since(began))
	return remove(ctx, peer, r.PodSandboxId)
}

// removeDirect removes the pods that were made on containerd directly.
func (b *bench) removeDirect(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	list, err := b.lab.CRI().ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range list.Items {
		errs = append(errs, remove(ctx, b.lab.CRI(), p.Id))
	}
	return errors.Join(errs...)
}

func remove(ctx context.Context, from runtimeapi.RuntimeServiceClient, sandbox string) error {
	if _, err := from.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return err
	}
	_, err := from.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox})
	return err
}

// dialPeer connects to the other shim, nil where there is none.
func (b *bench) dialPeer() (runtimeapi.RuntimeServiceClient, func(), error) {
	if b.peer == "" {
		return nil, func() {}, nil
	}
	command := exec.Command("/bin/sh", "-c", b.peer)
	command.Env = append(os.Environ(), "DOCKER_HOST=unix://"+b.lab.DockerSocket, "CNI_CONF_DIR="+b.lab.CNIConfDir,
		"CNI_BIN_DIR="+strings.Join(b.lab.CNIBinDirs, ","), "CNI_CACHE_DIR="+b.lab.CNICacheDir, "POD_INFRA_IMAGE="+b.lab.Image("pause"), "PEER_SOCKET="+filepath.Join(b.lab.Dir, "peer.sock"))
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		return nil, nil, fmt.Errorf("start the peer: %w", err)
	}
	stop := func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(b.lab.Dir, "peer.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.WaitForReady(true)))
	if err != nil {
		stop()
		return nil, nil, fmt.Errorf("connect to the peer: %w", err)
	}
	return runtimeapi.NewRuntimeServiceClient(conn), func() { _ = conn.Close(); stop() }, nil
}

// floor is the Engine asked without any CRI.
type floor struct {
	engine   *client.Client
	networks *cni.Networks
	image    string
}

func newFloor(b *bench, image string) (*floor, error) {
	n, err := cni.New(cni.Config{ConfDir: b.lab.CNIConfDir, BinDirs: b.lab.CNIBinDirs, CacheDir: b.lab.CNICacheDir})
	return &floor{b.lab.Docker(), n, image}, err
}

// reads are the floor's counterparts of readCalls.
func (f *floor) reads(ctx context.Context, p *node.Pod) []func() error {
	list := func(kind string) func() error {
		return func() error {
			_, err := f.engine.ContainerList(ctx, container.ListOptions{
				All: true, Filters: filters.NewArgs(filters.Arg("label", "io.kubernetes.docker.type="+kind)),
			})
			return err
		}
	}
	inspect := func(id string) func() error {
		return func() error {
			_, err := f.engine.ContainerInspect(ctx, id)
			return err
		}
	}
	return []func() error{list("container"), list("podsandbox"), inspect(p.Sandbox), inspect(p.Container), nil}
}

// sandbox makes a container with a CNI network, says how long that took, and
// removes it.
func (f *floor) sandbox(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	c, err := f.engine.ContainerCreate(ctx,
		&container.Config{Image: f.image, Cmd: []string{"sleep", "1000000"}},
		&container.HostConfig{NetworkMode: "none", IpcMode: "shareable"}, nil, nil, "")
	if err != nil {
		return 0, err
	}
	defer f.engine.ContainerRemove(context.WithoutCancel(ctx), c.ID, container.RemoveOptions{Force: true})
	if err := f.engine.ContainerStart(ctx, c.ID, container.StartOptions{}); err != nil {
		return 0, err
	}
	in, err := f.engine.ContainerInspect(ctx, c.ID)
	if err != nil {
		return 0, err
	}
	netns := fmt.Sprintf("/proc/%d/ns/net", in.State.Pid)
	plan, err := f.networks.Plan(cni.Attachment{ID: c.ID, Netns: netns, IfName: "eth0", PodNamespace: "default", PodName: "floor", PodUID: "floor"})
	if err != nil {
		return 0, err
	}
	if _, err := f.networks.Add(ctx, plan); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return took, f.networks.Del(ctx, plan, netns)
}
