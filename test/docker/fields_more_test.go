package docker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mountTmpfs mounts a file system until the test's end.
func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestPropagation: mounts made on the node show in the container, and the
// other way round, as was asked for.
func TestPropagation(t *testing.T) {
	s := newSandbox(t, plain)
	shared := filepath.Join(t.TempDir(), "shared")
	mountTmpfs(t, shared)
	if err := unix.Mount("", shared, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	with := func(p runtimeapi.MountPropagation, host string) string {
		return s.add(func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{HostPath: host, ContainerPath: "/m", Propagation: p}}
			sc := c.Linux.SecurityContext
			sc.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
			sc.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
			sc.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
		})
	}
	all := map[runtimeapi.MountPropagation]string{}
	for p := range runtimeapi.MountPropagation_name {
		p := runtimeapi.MountPropagation(p)
		all[p] = with(p, shared)
		s.start(all[p])
	}
	mountTmpfs(t, filepath.Join(shared, "host"))
	if err := os.WriteFile(filepath.Join(shared, "host", "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for p, ctr := range all {
		want := map[bool]string{true: "seen", false: "not"}[p != runtimeapi.MountPropagation_PROPAGATION_PRIVATE]
		if got := s.sh(ctr, "test -e /m/host/file && echo seen || echo not"); got != want {
			t.Errorf("%s: a mount on the node is %s", p, got)
		}
		dir := fmt.Sprintf("ctr%d", p)
		s.sh(ctr, fmt.Sprintf("mkdir /m/%s && mount -t tmpfs t /m/%s && touch /m/%s/file", dir, dir, dir))
		_, err := os.Stat(filepath.Join(shared, dir, "file"))
		if seen := err == nil; seen != (p == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL) {
			t.Errorf("%s: on the node the container's mount is seen: %v", p, seen)
		}
	}
	// What the node does not share cannot be handed on.
	private := filepath.Join(t.TempDir(), "private")
	mountTmpfs(t, private)
	if err := unix.Mount("", private, "", unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	err := s.try(runtimeService+"StartContainer", &runtimeapi.StartContainerRequest{ContainerId: with(runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, private)})
	if err == nil || !strings.Contains(err.Error(), "shared mount") {
		t.Errorf("a mount that is not shared: %v", err)
	}
}

// TestMounts: read-only is the mount's own, links are followed, and paths are
// what they are.
func TestMounts(t *testing.T) {
	s := newSandbox(t, plain)
	dir := t.TempDir()
	mountTmpfs(t, filepath.Join(dir, "sub"))
	if err := errors.Join(os.Symlink(dir, filepath.Join(dir, "link")), os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o644)); err != nil {
		t.Fatal(err)
	}
	ctr := s.started(func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{
			{HostPath: dir, ContainerPath: "/ro", Readonly: true},
			{HostPath: filepath.Join(dir, "link"), ContainerPath: "/linked"},
			{HostPath: filepath.Join(dir, "file"), ContainerPath: "/a file", Readonly: true},
			{HostPath: filepath.Join(dir, "new:dir,ro"), ContainerPath: "/new:dir", SelinuxRelabel: true},
		}
	})
	s.inside(ctr, map[string]string{
		"touch /ro/x 2>/dev/null || echo ro":                      "ro",
		"touch /ro/sub/x && echo rw":                              "rw",
		"cat /linked/file":                                        "text",
		"cat '/a file'; touch '/a file' 2>&1 | grep -c Read-only": "text1",
		"touch /new:dir/x && echo rw":                             "rw",
	})
	if got := s.status(ctr).Mounts; len(got) != 4 || got[0].HostPath != dir || !got[0].Readonly || got[3].ContainerPath != "/new:dir" {
		t.Errorf("mounts %v", got)
	}
}

// onlineCPUs returns the first of this machine's processors and the list of
// all, as cpuset files have them.
func onlineCPUs(t *testing.T) (first, all string) {
	t.Helper()
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		t.Fatal(err)
	}
	all = strings.TrimSpace(string(b))
	return all[:len(all)-len(strings.TrimLeft(all, "0123456789"))], all
}

func TestResources(t *testing.T) {
	firstCPU, allCPUs := onlineCPUs(t)
	s := newSandbox(t, plain)
	ctr := s.started(func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{
			CpuPeriod: 50000, CpuQuota: 10000, CpuShares: 2, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 64 << 20,
			CpusetCpus: firstCPU, OomScoreAdj: 500,
		}
	})
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	unified := err == nil
	check := func(quota, shares, memory, cpus, score string) {
		t.Helper()
		if !unified {
			if got := s.sh(ctr, "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us cpu/cpu.shares memory/memory.limit_in_bytes cpuset/cpuset.cpus"); got != strings.Join([]string{quota, shares, memory, cpus}, "\n") {
				t.Errorf("cgroup: %q", got)
			}
		} else {
			if got := s.sh(ctr, "cd /sys/fs/cgroup; cut -d' ' -f1 cpu.max; cat memory.max cpuset.cpus"); got != strings.Join([]string{strings.Replace(quota, "-1", "max", 1), memory, cpus}, "\n") {
				t.Errorf("cgroup: %q", got)
			}
		}
		if got := s.sh(ctr, "cat /proc/1/oom_score_adj"); got != score {
			t.Errorf("oom_score_adj %s, want %s", got, score)
		}
	}
	check("10000", "2", "67108864", firstCPU, "500")
	update := func(r *runtimeapi.LinuxContainerResources) error {
		return s.try(runtimeService+"UpdateContainerResources", &runtimeapi.UpdateContainerResourcesRequest{ContainerId: ctr, Linux: r})
	}
	// As a kubelet resizes a pod: what it sends unasked comes along.
	if err := update(&runtimeapi.LinuxContainerResources{
		CpuPeriod: 50000, CpuQuota: 20000, CpuShares: 512, MemoryLimitInBytes: 96 << 20, MemorySwapLimitInBytes: 96 << 20, OomScoreAdj: 700,
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}, {PageSize: "1GB"}}, Unified: map[string]string{"memory.oom.group": "1"},
	}); err != nil {
		t.Fatal(err)
	}
	check("20000", "512", "100663296", firstCPU, "700")
	if err := update(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 48 << 20, CpuQuota: -1, CpusetCpus: allCPUs, OomScoreAdj: 600}); err != nil {
		t.Fatal(err)
	}
	check("-1", "512", "50331648", allCPUs, "600")
	if r := s.status(ctr).Resources.Linux; r.MemoryLimitInBytes != 48<<20 || r.CpuShares != 512 || r.CpusetCpus != allCPUs {
		t.Errorf("status %v", r)
	}
}
