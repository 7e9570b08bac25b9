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
	if _, err := n.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}); err != nil {
		return err
	}
	run := row{call: "RunPodSandbox", times: make([][]time.Duration, 2)}
	var last *node.Pod
	for i := range b.pods {
		p := b.newPod(n, i)
		k, to := i%2, []runtimeapi.RuntimeServiceClient{direct, n}[i%2]
		began := time.Now()
		r, err := to.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.Config})
		if err != nil {
			return err
		}
		run.times[k] = append(run.times[k], time.Since(began))
		p.Sandbox = r.PodSandboxId
		if err := addContainer(ctx, to, p, image); err != nil {
			return err
		}
		last = p
	}
	rows, err := b.reads(ctx, last, direct, n)
	if err != nil {
		return err
	}
	return print(os.Stdout, fmt.Sprintf("containerd, %d pods with a container each", b.pods), "direct", "crimux", append(rows, run))
}

func (b *bench) newPod(n *node.Node, i int) *node.Pod {
	return &node.Pod{Config: node.PodConfig(fmt.Sprintf("bench-%d", i), filepath.Join(n.Dir, "pods"))}
}

func addContainer(ctx context.Context, to runtimeapi.RuntimeServiceClient, p *node.Pod, image string) error {
	c, err := to.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.Sandbox, Config: node.ContainerConfig("main", image, "sleep", "1000000"), SandboxConfig: p.Config,
	})
	if err != nil {
		return err
	}
	p.Container = c.ContainerId
	_, err = to.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: p.Container})
	return err
}

// reads measures the calls of a kubelet's relist and of its pod workers.
func (b *bench) reads(ctx context.Context, p *node.Pod, base, through runtimeapi.RuntimeServiceClient) ([]row, error) {
	both := func(call func(runtimeapi.RuntimeServiceClient) error) []way {
		return []way{{"direct", func() error { return call(base) }}, {"crimux", func() error { return call(through) }}}
	}
	var rows []row
	for _, c := range readCalls(ctx, p) {
		r, err := interleave(c.name, b.rounds, both(c.call)...)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// readCall is one of the calls that are measured.
type readCall struct {
	name string
	call func(runtimeapi.RuntimeServiceClient) error
}

func readCalls(ctx context.Context, p *node.Pod) []readCall {
	return []readCall{
		{"ListContainers", func(c runtimeapi.RuntimeServiceClient) error {
			_, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
			return err
		}},
		{"ListPodSandbox", func(c runtimeapi.RuntimeServiceClient) error {
			_, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
			return err
		}},
		{"PodSandboxStatus", func(c runtimeapi.RuntimeServiceClient) error {
			_, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.Sandbox})
			return err
		}},
		{"ContainerStatus", func(c runtimeapi.RuntimeServiceClient) error {
			_, err := c.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: p.Container})
			return err
		}},
	}
}
