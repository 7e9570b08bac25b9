package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/node"
)

// containerd measures the pass-through: containerd asked directly and through
// crimux.
func (b *bench) containerd(ctx context.Context, n *node.Node) error {
	direct := b.lab.CRI()
	image := b.lab.Image("busybox")
	version, err := direct.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return err
	}
	if _, err := n.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}); err != nil {
		return err
	}
	run := newRow("RunPodSandbox")
	var last *node.Pod
	for i := range b.pods {
		to, name := runtimeapi.RuntimeServiceClient(direct), "direct"
		if i%2 == 1 {
			to, name = n, "crimux"
		}
		p, err := b.runPod(ctx, n, to, fmt.Sprintf("bench-%d", i), image, run, name)
		if err != nil {
			return err
		}
		last = p
	}
	rows := []row{run}
	for _, c := range readCalls(ctx) {
		r, err := interleave(c.name, b.rounds,
			way{"direct", func() error { return c.call(direct, last) }}, way{"crimux", func() error { return c.call(n, last) }})
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	return print(os.Stdout, fmt.Sprintf("containerd %s, %d pods with %d containers each", version.RuntimeVersion, b.pods, b.per), []string{"direct", "crimux"}, rows)
}

// runPod makes a pod with its containers and notes how long its sandbox took.
func (b *bench) runPod(ctx context.Context, n *node.Node, to runtimeapi.RuntimeServiceClient, name, image string, run row, way string) (*node.Pod, error) {
	p := &node.Pod{Config: node.PodConfig(name, filepath.Join(n.Dir, "pods"))}
	began := time.Now()
	r, err := to.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.Config})
	if err != nil {
		return nil, err
	}
	run.add(way, time.Since(began))
	p.Sandbox = r.PodSandboxId
	for i := range b.per {
		c, err := to.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
			PodSandboxId: p.Sandbox, Config: node.ContainerConfig(fmt.Sprintf("main-%d", i), image, "sleep", "1000000"), SandboxConfig: p.Config,
		})
		if err != nil {
			return nil, err
		}
		p.Container = c.ContainerId
		if _, err := to.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: p.Container}); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// readCall is one of the calls of a kubelet's relist and of its pod workers.
type readCall struct {
	name string
	call func(runtimeapi.RuntimeServiceClient, *node.Pod) error
}

func readCalls(ctx context.Context) []readCall {
	return []readCall{
		{"ListContainers", func(c runtimeapi.RuntimeServiceClient, _ *node.Pod) error {
			_, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
			return err
		}},
		{"ListPodSandbox", func(c runtimeapi.RuntimeServiceClient, _ *node.Pod) error {
			_, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
			return err
		}},
		{"PodSandboxStatus", func(c runtimeapi.RuntimeServiceClient, p *node.Pod) error {
			_, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.Sandbox})
			return err
		}},
		{"ContainerStatus", func(c runtimeapi.RuntimeServiceClient, p *node.Pod) error {
			_, err := c.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: p.Container})
			return err
		}},
		{"ListContainerStats", func(c runtimeapi.RuntimeServiceClient, _ *node.Pod) error {
			_, err := c.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
			return err
		}},
	}
}
