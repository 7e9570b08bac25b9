package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/cni"
	"github.com/crimux/crimux/test/node"
)

// docker measures the translation beside the Engine's own API, which is its
// floor: a list beside a list, a status beside an inspect, and a sandbox
// beside create, start and the CNI plugins.
func (b *bench) docker(ctx context.Context, n *node.Node) error {
	image := b.lab.Image("busybox")
	if _, err := n.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}); err != nil {
		return err
	}
	floor, err := newFloor(b, image)
	if err != nil {
		return err
	}
	run := row{call: "RunPodSandbox", times: make([][]time.Duration, 2)}
	var last *node.Pod
	for i := range b.pods {
		p := b.newPod(n, i)
		if i < b.pods/2 {
			took, err := floor.sandbox(ctx)
			if err != nil {
				return err
			}
			run.times[0] = append(run.times[0], took)
		}
		began := time.Now()
		r, err := n.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.Config})
		if err != nil {
			return err
		}
		run.times[1] = append(run.times[1], time.Since(began))
		p.Sandbox = r.PodSandboxId
		if err := addContainer(ctx, n, p, image); err != nil {
			return err
		}
		last = p
	}
	var rows []row
	for i, c := range readCalls(ctx, last) {
		r, err := interleave(c.name, b.rounds, way{"engine", floor.reads(ctx, last)[i]}, way{"crimux", func() error { return c.call(n) }})
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	return print(os.Stdout, fmt.Sprintf("docker, %d pods with a container each", b.pods), "engine", "crimux", append(rows, run))
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
	return []func() error{list("container"), list("podsandbox"), inspect(p.Sandbox), inspect(p.Container)}
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
