package docker

import (
	"context"
	"errors"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker/stats"
)

// PodSandboxStats implements the RuntimeService. A sandbox that does not run
// has its attributes and what its containers have.
func (s *server) PodSandboxStats(ctx context.Context, r *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	f, err := s.seen(ctx, typeSandbox, "pod_sandbox_id", r.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	byPod, err := s.containersByPod(ctx)
	if err != nil {
		return nil, err
	}
	p := &pass{Pass: s.stats.reader.Begin()}
	out := s.stats.pod(p, f, byPod[f.ID])
	if err := p.failure(); err != nil {
		return nil, s.fail(err, "statistics of sandbox %s", f.ID)
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: out}, nil
}

// ListPodSandboxStats implements the RuntimeService: one pass over the running
// pods' cgroups.
func (s *server) ListPodSandboxStats(ctx context.Context, r *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	all, err := s.all(ctx, typeSandbox)
	if err != nil {
		return nil, err
	}
	byPod, err := s.containersByPod(ctx)
	if err != nil {
		return nil, err
	}
	p := &pass{Pass: s.stats.reader.Begin()}
	out := &runtimeapi.ListPodSandboxStatsResponse{}
	filter := r.GetFilter()
	for _, f := range all {
		if !f.running() || !strings.HasPrefix(f.ID, filter.GetId()) || !matches(filter.GetLabelSelector(), f.labels) {
			continue
		}
		if ctx.Err() != nil {
			return nil, s.fail(ctx.Err(), "statistics of sandboxes")
		}
		out.Stats = append(out.Stats, s.stats.pod(p, f, byPod[f.ID]))
	}
	if err := p.failure(); err != nil {
		return nil, s.fail(err, "statistics of sandboxes")
	}
	return out, nil
}

// containersByPod are all containers by the id of their sandbox.
func (s *server) containersByPod(ctx context.Context) (map[string][]*found, error) {
	all, err := s.all(ctx, typeContainer)
	if err != nil {
		return nil, err
	}
	out := map[string][]*found{}
	for _, f := range all {
		out[f.sandboxID] = append(out[f.sandboxID], f)
	}
	return out, nil
}

// pod is a sandbox's statistics as the CRI has them.
func (n *nodeStats) pod(p *pass, f *found, containers []*found) *runtimeapi.PodSandboxStats {
	linux := &runtimeapi.LinuxPodSandboxStats{}
	var parts []*stats.Usage
	for _, c := range containers {
		u := p.usage(c)
		if u != nil {
			parts = append(parts, u)
		}
		linux.Containers = append(linux.Containers, n.container(c, u))
	}
	if u := podUsage(p, f, parts); u != nil {
		linux.Cpu, linux.Memory, linux.Io = criCPU(u), criMemory(u), criIO(u)
		if u.Processes != nil {
			linux.Process = &runtimeapi.ProcessUsage{Timestamp: u.Time.UnixNano(), ProcessCount: number(*u.Processes)}
		}
		linux.Network = criNetwork(u, p.network(f))
	}
	return &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{Id: f.ID, Metadata: f.identity.sandbox(), Labels: f.labels, Annotations: f.annotations},
		Linux:      linux,
	}
}

// podUsage is what a running pod uses: its own cgroup says it, and where the
// pod has none, as outside of a kubelet, its containers do together.
func podUsage(p *pass, f *found, parts []*stats.Usage) *stats.Usage {
	if !f.running() {
		return nil
	}
	u, err := p.Pod(f.ID, f.State.Pid, f.identity.uid)
	if errors.Is(err, stats.ErrGone) {
		return nil
	}
	p.note(u != nil, err)
	if u != nil || err != nil {
		return u
	}
	infra := p.usage(f)
	if infra == nil {
		return nil
	}
	return stats.Sum(append(slices.Clip(parts), infra))
}

// network are the interfaces of a pod; none for one on the host's network,
// whose numbers are the node's.
func (p *pass) network(f *found) []stats.Interface {
	if f.HostConfig.NetworkMode.IsHost() {
		return nil
	}
	all, err := p.Network(f.ID, f.State.Pid)
	if !errors.Is(err, stats.ErrGone) {
		p.note(err == nil, err)
	}
	return all
}

// podInterface is what CNI plugins are told to call the interface of a pod.
const podInterface = "eth0"

// criNetwork has the default interface apart from the others.
func criNetwork(u *stats.Usage, all []stats.Interface) *runtimeapi.NetworkUsage {
	if len(all) == 0 {
		return nil
	}
	main := max(0, slices.IndexFunc(all, func(i stats.Interface) bool { return i.Name == podInterface }))
	out := &runtimeapi.NetworkUsage{Timestamp: u.Time.UnixNano()}
	for i, n := range all {
		one := &runtimeapi.NetworkInterfaceUsage{
			Name: n.Name, RxBytes: number(n.Rx.Bytes), RxErrors: number(n.Rx.Errors), TxBytes: number(n.Tx.Bytes), TxErrors: number(n.Tx.Errors),
		}
		if i == main {
			out.DefaultInterface = one
		} else {
			out.Interfaces = append(out.Interfaces, one)
		}
	}
	return out
}
