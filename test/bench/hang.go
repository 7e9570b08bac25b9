package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/node"
)

const (
	// hangBlocks blocks of hangPods pods are made with dockerd well and frozen
	// in turn.
	hangBlocks, hangPods = 16, 4
	// idleFor is how long a node on which nothing happens is watched.
	idleFor = 30 * time.Second
)

// hang measures what making pods on containerd costs while dockerd is frozen,
// beside what it costs while it is well.
func (b *bench) hang(ctx context.Context, n *node.Node) (err error) {
	image := b.lab.Image("busybox")
	// The frozen engine has something to be asked about.
	if _, err := n.RunPod(ctx, "docker", node.PodConfig("frozen", filepath.Join(n.Dir, "pods")), node.ContainerConfig("main", image, "sleep", "1000000")); err != nil {
		return err
	}
	rows := []row{newRow("RunPodSandbox"), newRow("PullImage (there)"), newRow("CreateContainer"), newRow("StartContainer"), newRow("RemovePodSandbox")}
	for block := range 2 * hangBlocks {
		way := "well"
		if block%2 == 1 {
			way = "frozen"
			if err := b.lab.PauseDocker(ctx); err != nil {
				return err
			}
		}
		for i := range hangPods {
			if err = makeTimed(ctx, n, fmt.Sprintf("hang-%d-%d", block, i), image, func(call int, took time.Duration) { rows[call].add(way, took) }); err != nil {
				break
			}
		}
		if way == "frozen" {
			err = errors.Join(err, b.lab.ResumeDocker(context.WithoutCancel(ctx)), n.WaitBackends(ctx))
		}
		if err != nil {
			return err
		}
	}
	return print(os.Stdout, "pods on containerd, while dockerd is well and while it is frozen", []string{"well", "frozen"}, rows)
}

// makeTimed makes a pod and removes it; add is told how long each call took.
func makeTimed(ctx context.Context, n *node.Node, name, image string, add func(call int, took time.Duration)) error {
	config := node.PodConfig(name, filepath.Join(n.Dir, "pods"))
	ctr := node.ContainerConfig("main", image, "sleep", "1000000")
	var sandbox, container string
	for i, call := range []func() error{
		func() error {
			r, err := n.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: "containerd"})
			sandbox = r.GetPodSandboxId()
			return err
		},
		func() error {
			_, err := n.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: ctr.Image, SandboxConfig: config})
			return err
		},
		func() error {
			r, err := n.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, Config: ctr, SandboxConfig: config})
			container = r.GetContainerId()
			return err
		},
		func() error {
			_, err := n.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: container})
			return err
		},
		func() error { return n.RemovePod(ctx, sandbox) },
	} {
		began := time.Now()
		if err := call(); err != nil {
			return err
		}
		add(i, time.Since(began))
	}
	return nil
}

// idle measures what watching the node costs while nothing happens: the CPU of
// the daemon and of the engines, with the daemon and without it.
func (b *bench) idle(ctx context.Context, n *node.Node) error {
	for i := range b.pods {
		handler := []string{"containerd", "docker"}[i%2]
		_, err := n.RunPod(ctx, handler, node.PodConfig(fmt.Sprintf("idle-%d", i), filepath.Join(n.Dir, "pods")),
			node.ContainerConfig("main", b.lab.Image("busybox"), "sleep", "1000000"))
		if err != nil {
			return err
		}
	}
	time.Sleep(2 * time.Second)
	m, err := b.meter(n)
	if err != nil {
		return err
	}
	if err := m.after(ctx, "with crimux"); err != nil {
		return err
	}
	if err := n.Stop(); err != nil {
		return err
	}
	m.pids = m.pids[1:]
	m.began = time.Now()
	if m.spent, err = m.now(); err != nil {
		return err
	}
	return errors.Join(m.after(ctx, "without (dockerd, containerd)"), n.Start(ctx))
}

// after prints what was spent idleFor from now.
func (m *meter) after(ctx context.Context, name string) error {
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return ctx.Err()
	}
	now, err := m.now()
	if err != nil {
		return err
	}
	fmt.Printf("idle for %s, %-30s CPU in ms:", idleFor, name)
	for i := range now {
		fmt.Printf(" %d", (now[i] - m.spent[i]).Milliseconds())
	}
	fmt.Println()
	return nil
}
