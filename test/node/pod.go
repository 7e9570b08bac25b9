package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodConfig is the config of a pod as a kubelet would send it, with its log
// folder below logs.
func PodConfig(name, logs string) *runtimeapi.PodSandboxConfig {
	uid := "uid-" + name
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: uid},
		Hostname:     name,
		LogDirectory: filepath.Join(logs, "default_"+name+"_"+uid),
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"default.svc.cluster.local"}, Options: []string{"ndots:5"}},
		Labels: map[string]string{
			"app": name, "io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": uid,
		},
		Annotations: map[string]string{"kubernetes.io/config.seen": "2026-01-01T00:00:00.0000000Z-" + name},
		Linux:       &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}},
	}
}

// ContainerConfig is the config of a container that runs command in image.
func ContainerConfig(name, image string, command ...string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: image},
		Command:  command,
		Labels:   map[string]string{"io.kubernetes.container.name": name},
		LogPath:  filepath.Join(name, "0.log"),
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}
}

// Pod is a pod with one container, as RunPod made it.
type Pod struct {
	Sandbox, Container string
	Config             *runtimeapi.PodSandboxConfig
	// IP is "" for a pod on the host's network.
	IP string
	// LogPath is the container's log file.
	LogPath string
}

// RunPod runs a pod with one container as the kubelet would: sandbox, image,
// container.
func (n *Node) RunPod(ctx context.Context, handler string, pod *runtimeapi.PodSandboxConfig, ctr *runtimeapi.ContainerConfig) (*Pod, error) {
	sb, err := n.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: pod, RuntimeHandler: handler})
	if err != nil {
		return nil, fmt.Errorf("run sandbox of %s: %w", pod.Metadata.Name, err)
	}
	p := &Pod{Sandbox: sb.PodSandboxId, Config: pod, LogPath: filepath.Join(pod.LogDirectory, ctr.LogPath)}
	if err := n.addContainer(ctx, p, ctr); err != nil {
		return p, err
	}
	st, err := n.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.Sandbox})
	if err != nil {
		return p, fmt.Errorf("status of %s: %w", pod.Metadata.Name, err)
	}
	p.IP = st.GetStatus().GetNetwork().GetIp()
	return p, nil
}

func (n *Node) addContainer(ctx context.Context, p *Pod, ctr *runtimeapi.ContainerConfig) error {
	name := p.Config.Metadata.Name + "/" + ctr.Metadata.Name
	if _, err := n.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: ctr.Image, SandboxConfig: p.Config}); err != nil {
		return fmt.Errorf("pull the image of %s: %w", name, err)
	}
	c, err := n.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: p.Sandbox, Config: ctr, SandboxConfig: p.Config})
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	p.Container = c.ContainerId
	if _, err := n.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: p.Container}); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	return nil
}

// RemovePod stops and removes a pod as the kubelet would.
func (n *Node) RemovePod(ctx context.Context, sandbox string) error {
	if _, err := n.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return fmt.Errorf("stop sandbox %s: %w", sandbox, err)
	}
	if _, err := n.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return fmt.Errorf("remove sandbox %s: %w", sandbox, err)
	}
	return nil
}

// RemovePods removes every pod there is.
func (n *Node) RemovePods(ctx context.Context) error {
	list, err := n.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	var errs []error
	for _, sb := range list.Items {
		errs = append(errs, n.RemovePod(ctx, sb.Id))
	}
	return errors.Join(errs...)
}
