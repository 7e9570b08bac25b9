package docker

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// updatable is the fake Engine with updates.
type updatable struct {
	*fakeEngine
	got []container.UpdateConfig
	// during, if set, is called while an update is being made.
	during func()
}

func (e *updatable) ContainerUpdate(_ context.Context, id string, u container.UpdateConfig) (r container.UpdateResponse, err error) {
	if e.during != nil {
		e.during()
	}
	return r, e.call("update", func() error {
		e.got = append(e.got, u)
		_, err := e.get(id)
		return err
	})
}

func TestUpdate(t *testing.T) {
	b, n, id, err := startWith(t, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	e := &updatable{fakeEngine: b.engine}
	b.server.engine = e
	update := func(id string, r *runtimeapi.LinuxContainerResources) error {
		_, err := b.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: r})
		return err
	}
	if err := update(id, &runtimeapi.LinuxContainerResources{
		MemorySwapLimitInBytes: 128 << 20, OomScoreAdj: 500, CpuQuota: -1,
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 2 << 20}}, Unified: map[string]string{"memory.high": "7"},
	}); err != nil {
		t.Fatal(err)
	}
	// Swap alone goes with the memory limit that there is.
	if u := e.got[0].Resources; u.Memory != 64<<20 || u.MemorySwap != 128<<20 || u.CPUQuota != -1 {
		t.Errorf("update %+v", u)
	}
	dir := "cg/kubepods.slice/docker-" + id + ".scope/"
	if a, h, score := n.read(dir+"hugetlb.2MB.max"), n.read(dir+"memory.high"), n.read("proc/"+strconv.Itoa(os.Getpid())+"/oom_score_adj"); a != "2097152" || h != "7" || score != "500" {
		t.Errorf("hugepages %q, memory.high %q, oom score %q", a, h, score)
	}
	if err := update(id, &runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.nothere": "1"}}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "memory.nothere") {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := update(strings.Repeat("0", 64), &runtimeapi.LinuxContainerResources{CpuShares: 2}); status.Code(err) != codes.NotFound {
		t.Errorf("no such container: %v", err)
	}
	if _, err := b.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("nothing to update: %v", err)
	}
	if _, err := b.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*runtimeapi.LinuxContainerResources{
		"oom_score_adj": {OomScoreAdj: 400}, "unified": {Unified: map[string]string{"memory.high": "1"}},
	} {
		if err := update(id, r); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), name) {
			t.Errorf("%s of an ended container: %v", name, err)
		}
	}
	if err := update(id, &runtimeapi.LinuxContainerResources{CpuShares: 2, Unified: map[string]string{"memory.oom.group": "1"}, HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}}); err != nil {
		t.Errorf("what every kubelet sends: %v", err)
	}
}

// TestUpdatesAtOnce: what the runtime sets anew in passing is put back, also
// where the next update comes before that.
func TestUpdatesAtOnce(t *testing.T) {
	b, n, id, err := startWith(t, &runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.swap.max": "4096"}})
	if err != nil {
		t.Fatal(err)
	}
	file := "cg/kubepods.slice/docker-" + id + ".scope/memory.swap.max"
	e := &updatable{fakeEngine: b.engine}
	b.server.engine = e
	update := func() {
		r := &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{CpusetCpus: "0"}}
		if _, err := b.UpdateContainerResources(t.Context(), r); err != nil {
			t.Error(err)
		}
	}
	var calls atomic.Int64
	second, firstDone := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	e.during = func() {
		n.write(file, "max\n")
		if calls.Add(1) == 2 {
			close(second)
			<-firstDone
			return
		}
		group.Go(update)
		select {
		case <-second:
		case <-time.After(200 * time.Millisecond): // it has to wait
		}
	}
	update()
	close(firstDone)
	group.Wait()
	if got := n.read(file); got != "4096" {
		t.Errorf("memory.swap.max is %q", got)
	}
}

// TestUpdatePodSandboxResources: the kubelet takes any error but one for a no.
func TestUpdatePodSandboxResources(t *testing.T) {
	b, _, _, err := startWith(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(all.Items) != 1 {
		t.Fatal(all, err)
	}
	b.trace.effects()
	r := &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: all.Items[0].Id, Resources: &runtimeapi.LinuxContainerResources{CpuShares: 2}}
	if _, err := b.UpdatePodSandboxResources(t.Context(), r); err != nil {
		t.Error(err)
	}
	if got := b.trace.effects(); len(got) != 0 {
		t.Errorf("effects %q", got)
	}
	r.PodSandboxId = strings.Repeat("0", 64)
	if _, err := b.UpdatePodSandboxResources(t.Context(), r); status.Code(err) != codes.NotFound {
		t.Errorf("no such sandbox: %v", err)
	}
}
