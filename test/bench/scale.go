package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

const (
	// maxMessage is the limit of a kubelet's client.
	maxMessage = 16 << 20
	// scaleClients ask at once, each scaleCalls times.
	scaleClients, scaleCalls = 200, 40
	// scaleTurns is how often the two ways take their turn at that.
	scaleTurns = 5
	// scaleChanges is how often a change and a sync of its disk are timed.
	scaleChanges = 200
)

// scaleSizes are the numbers of containers that the fake runtime has.
var scaleSizes = []int{60, 1000, 10000}

// scale measures the pass-through over a fake runtime, which has as many
// containers as no machine for tests.
func (b *bench) scale(ctx context.Context) error {
	for _, size := range scaleSizes {
		if err := b.scaleOf(ctx, size); err != nil {
			return fmt.Errorf("%d containers: %w", size, err)
		}
	}
	return nil
}

// scaleOf measures over a runtime of one size.
func (b *bench) scaleOf(ctx context.Context, size int) (err error) {
	dir, err := os.MkdirTemp("", "crimux-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	socket := filepath.Join(dir, "fake.sock")
	stop, err := startSelf(fakeEnv+"="+socket, fmt.Sprintf("%s=%d", fakeSizeEnv, size))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	hopSocket := filepath.Join(dir, "hop.sock")
	stopHop, err := startSelf(hopEnv+"="+hopSocket, hopToEnv+"="+socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopHop()) }()
	direct, err := dial(socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	hop, err := dial(hopSocket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hop.Close()) }()
	n, err := node.New(&lab.Lab{ContainerdSocket: socket}, dir, b.binary, node.Options{NoDocker: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := errors.Join(n.Start(ctx), n.WaitBackends(ctx)); err != nil {
		return err
	}
	return b.scaleParts(ctx, n, runtimeapi.NewRuntimeServiceClient(direct), runtimeapi.NewRuntimeServiceClient(hop), size)
}

// dial connects as a kubelet does.
func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.WaitForReady(true)))
}

// startSelf runs this program in another of its parts, in a process of its
// own.
func startSelf(env ...string) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		err := cmd.Process.Kill()
		cmd.Wait() // says that it was killed
		return err
	}, nil
}

func (b *bench) scaleParts(ctx context.Context, n *node.Node, direct, hop runtimeapi.RuntimeServiceClient, size int) error {
	last := &node.Pod{Sandbox: fakeSandbox((size - 1) / perPod), Container: fakeContainer(size - 1)}
	rounds := max(20, min(b.rounds, 100000/size))
	var rows []row
	for _, c := range readCalls(ctx) {
		if c.name == "ListContainerStats" {
			continue
		}
		count := b.rounds
		if strings.HasPrefix(c.name, "List") {
			count = rounds
		}
		r, err := interleave(c.name, count,
			way{"direct", func() error { return c.call(direct, last) }},
			way{"bare hop", func() error { return c.call(hop, last) }},
			way{"crimux", func() error { return c.call(n, last) }})
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	if err := print(os.Stdout, fmt.Sprintf("a fake runtime with %d containers", size), []string{"direct", "bare hop", "crimux"}, rows); err != nil {
		return err
	}
	rss, err := residentKiB(n.PID())
	if err != nil {
		return err
	}
	u, err := n.Usage(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("the daemon after that: RSS %.1f MiB, %d goroutines, %d files open\n", float64(rss)/1024, u.Goroutines, u.FDs)
	if size == scaleSizes[0] {
		return nil
	}
	if size == scaleSizes[1] {
		if err := crowd(ctx, n, direct, hop, last); err != nil {
			return err
		}
		return changes(ctx, n, direct, last)
	}
	return nil
}

// residentKiB is what a process has in memory.
func residentKiB(pid int) (kib int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib, nil
		}
	}
	return 0, fmt.Errorf("process %d tells no VmRSS", pid)
}

// crowd has many clients ask for a container's status at once, each way in
// turn.
func crowd(ctx context.Context, n *node.Node, direct, hop runtimeapi.RuntimeServiceClient, p *node.Pod) error {
	r := newRow("ContainerStatus")
	wall := map[string]time.Duration{}
	for range scaleTurns {
		for name, c := range map[string]runtimeapi.RuntimeServiceClient{"direct": direct, "bare hop": hop, "crimux": n} {
			began := time.Now()
			took, err := together(ctx, c, p)
			if err != nil {
				return err
			}
			wall[name] += time.Since(began)
			for _, d := range took {
				r.add(name, d)
			}
		}
	}
	for _, name := range []string{"direct", "bare hop", "crimux"} {
		fmt.Printf("%d clients at once, %s: %.0f calls a second\n", scaleClients, name, float64(len(r.times[name]))/wall[name].Seconds())
	}
	return print(os.Stdout, fmt.Sprintf("%d clients at once", scaleClients), []string{"direct", "bare hop", "crimux"}, []row{r})
}

// together makes the calls of all clients and returns how long each took.
func together(ctx context.Context, c runtimeapi.RuntimeServiceClient, p *node.Pod) ([]time.Duration, error) {
	times := make([][]time.Duration, scaleClients)
	errs := make([]error, scaleClients)
	var wg sync.WaitGroup
	for i := range scaleClients {
		wg.Go(func() {
			for range scaleCalls {
				began := time.Now()
				if _, err := c.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: p.Container}); err != nil {
					errs[i] = err
					return
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	wg.Wait()
	var all []time.Duration
	for _, t := range times {
		all = append(all, t...)
	}
	return all, cmp.Or(errs...)
}

// changes measures what a change costs more than directly, beside what its
// disk takes for the fsyncs in it: two commits of two each.
func changes(ctx context.Context, n *node.Node, direct runtimeapi.RuntimeServiceClient, p *node.Pod) (err error) {
	f, err := os.Create(filepath.Join(n.Dir, "state", "sync"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	page := make([]byte, 4096)
	change := func(c runtimeapi.RuntimeServiceClient) func() error {
		return func() error {
			_, err := c.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: p.Container, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 2}})
			return err
		}
	}
	syncs := func() error {
		for i := range 4 {
			if _, err := f.WriteAt(page, int64(i)*4096); err != nil {
				return err
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				return err
			}
		}
		return nil
	}
	r, err := interleave("UpdateContainerResources", scaleChanges,
		way{"direct", change(direct)}, way{"4 fdatasync", syncs}, way{"crimux", change(n)})
	if err != nil {
		return err
	}
	return print(os.Stdout, "a change, which waits for two commits of the event log", []string{"direct", "4 fdatasync", "crimux"}, []row{r})
}
