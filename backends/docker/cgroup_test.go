package docker

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// fakeNode is a folder with processes and cgroup trees.
type fakeNode struct {
	t   *testing.T
	dir string
}

func (n fakeNode) proc() procFS { return procFS(filepath.Join(n.dir, "proc")) }

func (n fakeNode) write(name, content string) {
	n.t.Helper()
	name = filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n fakeNode) read(name string) string {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, name))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

// mounts writes what is mounted where: pairs of a kind and its options.
func (n fakeNode) mounts(trees map[string]string) {
	var lines strings.Builder
	for dir, options := range trees {
		kind := "cgroup"
		if options == "" {
			kind = "cgroup2"
		}
		fmt.Fprintf(&lines, "30 23 0:26 / %s rw,relatime - %s %s rw,%s\n", filepath.Join(n.dir, dir), kind, kind, options)
	}
	n.write("proc/self/mountinfo", lines.String())
}

var testID = strings.Repeat("c", 64)

// newV2 is a node with cgroup v2 and a container of process 42.
func newV2(t *testing.T, id string) fakeNode {
	n := fakeNode{t: t, dir: t.TempDir()}
	n.mounts(map[string]string{"cg": ""})
	n.write("proc/42/cgroup", "0::/kubepods.slice/docker-"+id+".scope/init.scope\n")
	dir := "cg/kubepods.slice/docker-" + id + ".scope/"
	for _, f := range []string{"memory.high", "memory.swap.max", "memory.oom.group", "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "cgroup.procs"} {
		n.write(dir+f, "max\n")
	}
	return n
}

func TestCgroupOf(t *testing.T) {
	n := newV2(t, testID)
	c, err := n.proc().cgroupOf(42, testID)
	if want := filepath.Join(n.dir, "cg/kubepods.slice/docker-"+testID+".scope"); err != nil || c.v2 != want || c.hugetlb != "" || c.any != want {
		t.Errorf("v2: %+v, %v", c, err)
	}
	// Another container's process has the number by now.
	if _, err := n.proc().cgroupOf(42, strings.Repeat("d", 64)); !errors.Is(err, errEnded) {
		t.Errorf("another's process: %v", err)
	}
	if _, err := n.proc().cgroupOf(43, testID); !errors.Is(err, errEnded) {
		t.Errorf("no process: %v", err)
	}
	n = fakeNode{t: t, dir: t.TempDir()}
	n.mounts(map[string]string{"cg/unified": "", "cg/hugetlb": "hugetlb", "cg/cpu": "cpuacct,cpu"})
	n.write("proc/42/cgroup", "3:hugetlb:/docker/"+testID+"\n2:cpu,cpuacct:/docker/"+testID+"\n0::/\n")
	n.write("cg/hugetlb/docker/"+testID+"/hugetlb.2MB.limit_in_bytes", "")
	n.write("cg/cpu/docker/"+testID+"/cgroup.procs", "")
	c, err = n.proc().cgroupOf(42, testID)
	if err != nil || c.v2 != "" || c.hugetlb != filepath.Join(n.dir, "cg/hugetlb/docker", testID) || c.any == "" {
		t.Errorf("v1: %+v, %v", c, err)
	}
	n.write("proc/42/cgroup", "0::/../../docker/"+testID+"\n")
	if _, err := n.proc().cgroupOf(42, testID); !errors.Is(err, errCgroupUnseen) {
		t.Errorf("from within another cgroup namespace: %v", err)
	}
}

func TestCgroupSettingsAreWritten(t *testing.T) {
	n := newV2(t, testID)
	c, err := n.proc().cgroupOf(42, testID)
	if err != nil {
		t.Fatal(err)
	}
	dir := "cg/kubepods.slice/docker-" + testID + ".scope/"
	s := cgroupSettings{
		Hugepages: map[string]uint64{"2MB": 4 << 20, "1GB": 0},
		Unified:   map[string]string{"memory.high": "1000", "memory.oom.group": "1", "memory.min": "0"},
	}
	if err := s.write(c); err != nil {
		t.Error(err) // 1GB and memory.min are not there, and sent by every kubelet
	}
	for file, want := range map[string]string{"hugetlb.2MB.max": "4194304", "hugetlb.2MB.rsvd.max": "4194304", "memory.high": "1000", "memory.oom.group": "1"} {
		if got := n.read(dir + file); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	for what, s := range map[string]cgroupSettings{
		"1GB": {Hugepages: map[string]uint64{"1GB": 1}}, "memory.low": {Unified: map[string]string{"memory.low": "1"}},
	} {
		if err := s.write(c); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.Stat(filepath.Join(n.dir, dir, "memory.low")); err == nil {
		t.Error("a file was made")
	}
	if err := os.RemoveAll(filepath.Join(n.dir, dir)); err != nil {
		t.Fatal(err)
	}
	if err := (cgroupSettings{Unified: map[string]string{"memory.low": "1"}}).write(c); !errors.Is(err, errEnded) {
		t.Errorf("the container has ended: %v", err)
	}
}

// TestSettingsSurviveAnUpdate: the Engine's runtime sets anew what it knows of.
func TestSettingsSurviveAnUpdate(t *testing.T) {
	n := newV2(t, testID)
	c, err := n.proc().cgroupOf(42, testID)
	if err != nil {
		t.Fatal(err)
	}
	file := "cg/kubepods.slice/docker-" + testID + ".scope/memory.swap.max"
	n.write(file, "4096\n")
	once := cgroupSettings{Unified: map[string]string{"memory.swap.max": "0", "memory.high": "1"}}
	kept, err := once.save(c, cgroupSettings{Unified: map[string]string{"memory.high": "2"}})
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v, %v", kept, err)
	}
	n.write(file, "max\n")
	if err := kept.restore(c); err != nil || strings.TrimSpace(n.read(file)) != "4096" {
		t.Errorf("%q, %v", n.read(file), err)
	}
}

func TestCgroupLabel(t *testing.T) {
	s := cgroupSettings{Hugepages: map[string]uint64{"2MB": 1}, Unified: map[string]string{"io.max": "8:0 rbps=1\n8:1 rbps=2"}}
	label, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeCgroupSettings(label)
	if err != nil || !maps.Equal(got.Hugepages, s.Hugepages) || !maps.Equal(got.Unified, s.Unified) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"x", `{"unified":{"../x":"1"}}`, `{"unified":{"cgroup.procs":"1"}}`, `{"hugepages":{"../2MB":1}}`} {
		if _, err := decodeCgroupSettings(bad); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}

// FuzzCgroupLabel: whatever a label says, no path leaves the cgroup.
func FuzzCgroupLabel(f *testing.F) {
	f.Add(`{"hugepages":{"2MB":1},"unified":{"memory.high":"1"}}`)
	f.Add(`{"unified":{"a/../b":"1"}}`)
	f.Fuzz(func(t *testing.T, label string) {
		s, err := decodeCgroupSettings(label)
		if err != nil {
			return
		}
		for _, names := range [][]string{keys(s.Hugepages), keys(s.Unified)} {
			for _, n := range names {
				if !filepath.IsLocal(n) || filepath.Base(n) != n {
					t.Errorf("%q", n)
				}
			}
		}
	})
}

func keys[V any](m map[string]V) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	return all
}

// startWith starts a container with resources on a fake node with cgroup v2.
func startWith(t *testing.T, r *runtimeapi.LinuxContainerResources) (*bench, fakeNode, string, error) {
	t.Helper()
	b := newBench(t)
	sandbox, err := b.runPod(backends.NoJournal, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	f, err := b.currentFacts(t.Context(), factsAge)
	if err != nil {
		t.Fatal(err)
	}
	f.cgroupV2 = true
	req := createRequest(sandbox)
	req.Config.Linux = &runtimeapi.LinuxContainerConfig{Resources: r}
	made, err := b.CreateContainer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	n := newV2(t, made.ContainerId)
	b.server.node.proc = n.proc()
	// The fake's containers are our own process.
	pid := strconv.Itoa(os.Getpid())
	n.write("proc/"+pid+"/cgroup", n.read("proc/42/cgroup"))
	n.write("proc/"+pid+"/oom_score_adj", "0")
	n.write("cg/kubepods.slice/docker-"+made.ContainerId+".scope/cgroup.procs", pid+"\n")
	b.trace.effects()
	_, err = b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: made.ContainerId})
	return b, n, made.ContainerId, err
}

func TestStartWritesTheCgroup(t *testing.T) {
	b, n, id, err := startWith(t, &runtimeapi.LinuxContainerResources{
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 2 << 20}, {PageSize: "1GB"}},
		Unified:        map[string]string{"memory.high": "5", "memory.oom.group": "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := "cg/kubepods.slice/docker-" + id + ".scope/"
	if a, c := n.read(dir+"hugetlb.2MB.max"), n.read(dir+"memory.high"); a != "2097152" || c != "5" {
		t.Errorf("%q, %q", a, c)
	}
	// The daemon was restarted in between, maybe: the label is all it takes.
	n.write(dir+"memory.high", "max")
	if _, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil || n.read(dir+"memory.high") != "5" {
		t.Errorf("once more: %v", err)
	}
	// Or it was killed between the start and the writing.
	n.write(dir+"memory.high", "max")
	interrupted := backends.Unfinished{Op: "op-9", Method: "/runtime.v1.RuntimeService/StartContainer", ContainerID: id}
	if r, err := b.backend.Recover(t.Context(), interrupted, backends.NoJournal); err != nil || r.Code != codes.OK || n.read(dir+"memory.high") != "5" {
		t.Errorf("recovered: %+v, %v", r, err)
	}
	if err := os.Remove(filepath.Join(n.dir, dir, "memory.high")); err != nil {
		t.Fatal(err)
	}
	if r, err := b.backend.Recover(t.Context(), interrupted, backends.NoJournal); err != nil || r.Code != codes.Aborted || !strings.Contains(r.Message, "memory.high") {
		t.Errorf("recovered without the file: %+v, %v", r, err)
	}
}

// TestCgroupUnseen: a daemon in a cgroup namespace of its own cannot limit
// anything, which matters only to who has asked for it.
func TestCgroupUnseen(t *testing.T) {
	b, n, id, err := startWith(t, &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}})
	if err != nil {
		t.Fatal(err)
	}
	e := &updatable{fakeEngine: b.engine}
	b.server.engine = e
	n.write("proc/"+strconv.Itoa(os.Getpid())+"/cgroup", "0::/../"+id+"\n")
	if _, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		t.Errorf("start: %v", err)
	}
	for _, c := range []struct {
		r    *runtimeapi.LinuxContainerResources
		code codes.Code
	}{
		{&runtimeapi.LinuxContainerResources{CpuShares: 5, HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}}, codes.OK},
		{&runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.high": "5"}}, codes.FailedPrecondition},
		{&runtimeapi.LinuxContainerResources{OomScoreAdj: 5}, codes.FailedPrecondition},
	} {
		_, err := b.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: c.r})
		if status.Code(err) != c.code {
			t.Errorf("%v: %v", c.r, err)
		}
	}
}

// TestStartFailsWithoutItsLimits: a container that cannot have what was asked
// for does not run.
func TestStartFailsWithoutItsLimits(t *testing.T) {
	b, _, id, err := startWith(t, &runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.nothere": "5"}})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "memory.nothere") || !strings.Contains(err.Error(), "stopped again") {
		t.Errorf("start: %v", err)
	}
	if got := strings.Join(b.trace.effects(), " "); got != "start stop" {
		t.Errorf("effects %q", got)
	}
	if b.engine.containers[id].State.Running {
		t.Error("it runs")
	}
}
