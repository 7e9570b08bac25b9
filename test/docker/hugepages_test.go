package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hugetlbTree is where the node has the hugetlb controller: the root of a
// cgroup v2 tree.
func hugetlbTree(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err == nil && strings.Contains(string(b), "hugetlb") {
			return dir
		}
	}
	t.Skip("this machine's cgroup v2 tree has no hugetlb controller")
	return ""
}

// handDown enables the hugetlb controller for the cgroups in a folder until the
// test's end.
func handDown(t *testing.T, dir string) {
	t.Helper()
	set := func(what string) error {
		return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(what), 0)
	}
	if err := set("+hugetlb"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set("-hugetlb"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

// ownParent is the name of a cgroup that is gone after the test: engines leave
// a parent where it is, since it is the kubelet's.
func ownParent(t *testing.T) string {
	t.Helper()
	parent := fmt.Sprintf("/crimux-test-%d", time.Now().UnixNano())
	t.Cleanup(func() {
		for _, pattern := range []string{"/sys/fs/cgroup" + parent, "/sys/fs/cgroup/*" + parent} {
			dirs, err := filepath.Glob(pattern)
			for _, d := range dirs {
				err = errors.Join(err, unix.Rmdir(d))
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	return parent
}

// hugePage is a size of huge pages that this machine has.
type hugePage struct {
	name  string // as in cgroup files, such as 2MB
	bytes uint64
}

// hugePages returns the sizes of this machine, smallest first.
func hugePages(t *testing.T) []hugePage {
	t.Helper()
	dirs, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		t.Fatal(err)
	}
	var pages []hugePage
	for _, dir := range dirs {
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		p := hugePage{bytes: kb << 10, name: fmt.Sprintf("%dKB", kb)}
		for _, unit := range []string{"MB", "GB"} {
			if kb%1024 != 0 {
				break
			}
			kb /= 1024
			p.name = fmt.Sprintf("%d%s", kb, unit)
		}
		pages = append(pages, p)
	}
	slices.SortFunc(pages, func(a, b hugePage) int { return int(int64(a.bytes) - int64(b.bytes)) })
	if len(pages) == 0 {
		t.Skip("this machine's kernel has no huge pages (/sys/kernel/mm/hugepages)")
	}
	return pages
}

// TestHugepages: a limit is the container's own, and a container that cannot
// have it does not run. The kubelet sends 0 for each size that it knows of.
func TestHugepages(t *testing.T) {
	root, parent, pages := hugetlbTree(t), ownParent(t), hugePages(t)
	page, others := pages[0], pages[1:]
	s := newSandbox(t, func(p *runtimeapi.PodSandboxConfig) { p.Linux.CgroupParent = parent })
	limits := []*runtimeapi.HugepageLimit{{PageSize: page.name, Limit: 3 * page.bytes}, {PageSize: "3MB"}}
	for _, p := range others {
		limits = append(limits, &runtimeapi.HugepageLimit{PageSize: p.name})
	}
	limited := func() string {
		return s.add(func(c *runtimeapi.ContainerConfig) { c.Linux.Resources.HugepageLimits = limits })
	}
	before, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(before), "hugetlb") {
		// The node hands it down to nobody.
		ctr := limited()
		err := s.try(runtimeService+"StartContainer", &runtimeapi.StartContainerRequest{ContainerId: ctr})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), page.name) {
			t.Errorf("start without the controller: %v", err)
		}
		if st := s.status(ctr); st.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			t.Errorf("it is %s", st.State)
		}
		handDown(t, root)
	}
	handDown(t, root+parent)
	ctr := limited()
	s.start(ctr)
	check := func(size string, want uint64) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(root+parent, ctr, "hugetlb."+size+".max"))
		if err != nil || strings.TrimSpace(string(b)) != strconv.FormatUint(want, 10) {
			t.Errorf("limit of pages of %s: %q, %v; want %d", size, b, err, want)
		}
	}
	check(page.name, 3*page.bytes)
	for _, p := range others {
		check(p.name, 0)
	}
	must[runtimeapi.UpdateContainerResourcesResponse](s.cri, runtimeService+"UpdateContainerResources", &runtimeapi.UpdateContainerResourcesRequest{ContainerId: ctr,
		Linux: &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: page.name, Limit: page.bytes}}}})
	check(page.name, page.bytes)

	limits = []*runtimeapi.HugepageLimit{{PageSize: "3MB", Limit: 3 << 20}}
	err = s.try(runtimeService+"UpdateContainerResources", &runtimeapi.UpdateContainerResourcesRequest{ContainerId: ctr, Linux: &runtimeapi.LinuxContainerResources{HugepageLimits: limits}})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "it has "+page.name) {
		t.Errorf("a size that this node lacks: %v", err)
	}
}
