package docker

import (
	"context"
	"errors"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker/stats"
)

// ContainerStats implements the RuntimeService. A container that does not run
// has its attributes and its writable layer, and uses nothing.
func (s *server) ContainerStats(ctx context.Context, r *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	f, err := s.seen(ctx, typeContainer, "container_id", r.GetContainerId())
	if err != nil {
		return nil, err
	}
	u, err := usageOf(s.stats.reader.Begin(), f)
	if err != nil {
		return nil, s.fail(err, "statistics of container %s", f.ID)
	}
	return &runtimeapi.ContainerStatsResponse{Stats: s.stats.container(f, u)}, nil
}

// ListContainerStats implements the RuntimeService: one pass over the
// containers' cgroups.
func (s *server) ListContainerStats(ctx context.Context, r *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	all, err := s.all(ctx, typeContainer)
	if err != nil {
		return nil, err
	}
	p := &pass{Pass: s.stats.reader.Begin()}
	out := &runtimeapi.ListContainerStatsResponse{}
	filter := r.GetFilter()
	for _, f := range all {
		if !strings.HasPrefix(f.ID, filter.GetId()) || !strings.HasPrefix(f.sandboxID, filter.GetPodSandboxId()) ||
			!matches(filter.GetLabelSelector(), f.labels) {
			continue
		}
		if ctx.Err() != nil {
			return nil, s.fail(ctx.Err(), "statistics of containers")
		}
		out.Stats = append(out.Stats, s.stats.container(f, p.usage(f)))
	}
	if err := p.failure(); err != nil {
		return nil, s.fail(err, "statistics of containers")
	}
	return out, nil
}

// pass is a pass over many containers. One that cannot be read must not take
// the others' numbers away; but if none can be, that is an answer too.
type pass struct {
	*stats.Pass
	read bool
	err  error
}

// usage is nil for a container whose use is not known.
func (p *pass) usage(f *found) *stats.Usage {
	u, err := usageOf(p.Pass, f)
	p.note(u != nil, err)
	return u
}

func (p *pass) note(read bool, err error) {
	p.read = p.read || read
	if p.err == nil {
		p.err = err
	}
}

// failure is why nothing at all could be read.
func (p *pass) failure() error {
	if p.read {
		return nil
	}
	return p.err
}

// usageOf is what a container uses; nil for one that does not run.
func usageOf(p *stats.Pass, f *found) (*stats.Usage, error) {
	if !f.running() {
		return nil, nil
	}
	u, err := p.Container(f.ID, f.State.Pid)
	if errors.Is(err, stats.ErrGone) {
		return nil, nil
	}
	return u, err
}

// container is a container's statistics as the CRI has them.
func (n *nodeStats) container(f *found, u *stats.Usage) *runtimeapi.ContainerStats {
	out := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id: f.ID, Metadata: &runtimeapi.ContainerMetadata{Name: f.container, Attempt: f.attempt},
			Labels: f.labels, Annotations: f.annotations,
		},
		WritableLayer: n.writableLayer(f),
	}
	if u != nil {
		out.Cpu, out.Memory, out.Swap, out.Io = criCPU(u), criMemory(u), criSwap(u), criIO(u)
	}
	return out
}

// writableLayer is as it was last measured; nil before that.
func (n *nodeStats) writableLayer(f *found) *runtimeapi.FilesystemUsage {
	layer, ok := n.layers.Layer(f.ID)
	root := n.rootDir()
	if !ok || root == "" {
		return nil
	}
	return &runtimeapi.FilesystemUsage{
		Timestamp: layer.Measured.UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: root},
		UsedBytes: number(layer.Bytes), InodesUsed: number(layer.Inodes),
	}
}

func criCPU(u *stats.Usage) *runtimeapi.CpuUsage {
	if u.CPU == nil {
		return nil
	}
	return &runtimeapi.CpuUsage{
		Timestamp: u.Time.UnixNano(), UsageCoreNanoSeconds: number(u.CPU.Total), UsageNanoCores: maybe(u.CPU.Cores),
		Psi: criPressure(u.CPU.Pressure),
	}
}

func criMemory(u *stats.Usage) *runtimeapi.MemoryUsage {
	m := u.Memory
	if m == nil {
		return nil
	}
	return &runtimeapi.MemoryUsage{
		Timestamp: u.Time.UnixNano(), UsageBytes: number(m.Usage), WorkingSetBytes: number(m.WorkingSet), AvailableBytes: maybe(m.Available),
		RssBytes: number(m.RSS), PageFaults: number(m.Faults), MajorPageFaults: number(m.MajorFaults), Psi: criPressure(m.Pressure),
	}
}

func criSwap(u *stats.Usage) *runtimeapi.SwapUsage {
	if u.Swap == nil {
		return nil
	}
	return &runtimeapi.SwapUsage{Timestamp: u.Time.UnixNano(), SwapUsageBytes: number(u.Swap.Usage), SwapAvailableBytes: maybe(u.Swap.Available)}
}

func criIO(u *stats.Usage) *runtimeapi.IoUsage {
	if u.IO == nil {
		return nil
	}
	return &runtimeapi.IoUsage{Timestamp: u.Time.UnixNano(), Psi: criPressure(u.IO)}
}

func criPressure(p *stats.Pressure) *runtimeapi.PsiStats {
	if p == nil {
		return nil
	}
	return &runtimeapi.PsiStats{Full: criStall(p.Full), Some: criStall(p.Some)}
}

func criStall(s *stats.Stall) *runtimeapi.PsiData {
	if s == nil {
		return nil
	}
	return &runtimeapi.PsiData{Total: s.Total, Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300}
}

func number(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }

// maybe is nil for what is not known.
func maybe(n *uint64) *runtimeapi.UInt64Value {
	if n == nil {
		return nil
	}
	return number(*n)
}
