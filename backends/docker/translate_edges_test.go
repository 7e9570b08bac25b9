package docker

import (
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestRelabel: only an Engine with SELinux is asked for it, and only as text.
func TestRelabel(t *testing.T) {
	mounts := []*runtimeapi.Mount{
		{HostPath: "/a", ContainerPath: "/b", SelinuxRelabel: true, Readonly: true, Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		{HostPath: "/c", ContainerPath: "/d", SelinuxRelabel: true},
		{HostPath: "/e:f", ContainerPath: "/g"},
	}
	with := testFacts()
	with.selinux = true
	s, err := translate(with, testNode(), func(c *runtimeapi.ContainerConfig) { c.Mounts = mounts })
	if err != nil || !slices.Equal(s.host.Binds, []string{"/a:/b:ro,Z,rslave", "/c:/d:rw,Z,rprivate"}) || len(s.host.Mounts) != 1 || len(s.hostPaths) != 3 {
		t.Fatalf("%+v, %v", s, err)
	}
	got := criMounts(s.host)
	if len(got) != 3 || !proto.Equal(got[0], mounts[0]) || !proto.Equal(got[1], mounts[1]) || !proto.Equal(got[2], mounts[2]) {
		t.Errorf("reported as %v", got)
	}
	s, err = translate(testFacts(), testNode(), func(c *runtimeapi.ContainerConfig) { c.Mounts = mounts })
	if err != nil || len(s.host.Binds) != 0 || len(s.host.Mounts) != 3 {
		t.Errorf("without SELinux: %+v, %v", s, err)
	}
	for _, m := range []*runtimeapi.Mount{{HostPath: "/a:b", SelinuxRelabel: true}, {HostPath: "/a", SelinuxRelabel: true, Readonly: true, RecursiveReadOnly: true}} {
		able := ableFacts()
		if _, err := translate(able, testNode(), oneMount(m)); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "selinux_relabel") {
			t.Errorf("%v: %v", m, err)
		}
	}
}

// TestForeignBinds: mounts of other shims' containers, and volumes of nobody's.
func TestForeignBinds(t *testing.T) {
	got := criMounts(&container.HostConfig{Binds: []string{"/a:/b", "/a:/b:ro,z,rshared", "volume:/v", "x", "/a:/b:nocopy"}})
	want := []*runtimeapi.Mount{
		{HostPath: "/a", ContainerPath: "/b"},
		{HostPath: "/a", ContainerPath: "/b", Readonly: true, SelinuxRelabel: true, Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		{HostPath: "/a", ContainerPath: "/b"},
	}
	if !slices.EqualFunc(got, want, func(a, b *runtimeapi.Mount) bool { return proto.Equal(a, b) }) {
		t.Errorf("%v", got)
	}
}

// TestDropsWin: what is added and dropped is dropped.
func TestDropsWin(t *testing.T) {
	for _, c := range []struct{ add, drop, want []string }{
		{[]string{"NET_ADMIN", "CAP_CHOWN"}, []string{"chown"}, []string{"NET_ADMIN"}},
		{[]string{"ALL"}, []string{"NET_RAW"}, []string{"ALL"}},
		{[]string{"ALL", "NET_ADMIN"}, []string{"all"}, []string{"NET_ADMIN"}},
		{[]string{"NET_ADMIN"}, []string{"ALL"}, []string{"NET_ADMIN"}},
	} {
		if got, drops := translateCapabilities(c.add, c.drop); !slices.Equal(got, c.want) || !slices.Equal(drops, c.drop) {
			t.Errorf("+%q -%q: +%q -%q", c.add, c.drop, got, drops)
		}
	}
}

// TestNoLimitIsDropped: the Engine drops limits that the kernel lacks.
func TestNoLimitIsDropped(t *testing.T) {
	bare, err := readFacts(system.Info{}, "1.41")
	if err != nil {
		t.Fatal(err)
	}
	able, err := readFacts(system.Info{MemoryLimit: true, SwapLimit: true, CPUCfsQuota: true, CPUSet: true}, "1.41")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*runtimeapi.LinuxContainerResources{
		"memory_limit_in_bytes": {MemoryLimitInBytes: 8 << 20}, "cpu_quota": {CpuQuota: 5000}, "cpuset_cpus": {CpusetCpus: "0"}, "cpuset_mems": {CpusetMems: "0"},
	} {
		if _, err := translate(bare, testNode(), resources(r)); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := translate(able, testNode(), resources(r)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Where no limit is asked for, none is missed.
	if _, err := translate(bare, testNode(), resources(&runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: -1, CpuShares: 2})); err != nil {
		t.Error(err)
	}
	swap := resources(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 8 << 20, MemorySwapLimitInBytes: 9 << 20})
	able.lacks["memory_swap_limit_in_bytes"] = true
	if _, err := translate(able, testNode(), swap); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "memory_swap_limit_in_bytes") {
		t.Errorf("swap: %v", err)
	}
}

// TestUnifiedOnV1: on cgroup v1 the keys of cgroup v2 are refused, but for
// those that nobody has asked for.
func TestUnifiedOnV1(t *testing.T) {
	for key, value := range stockUnified {
		s, err := translate(testFacts(), testNode(), resources(&runtimeapi.LinuxContainerResources{Unified: map[string]string{key: value}}))
		if err != nil || s.own[labelCgroup] != "" {
			t.Errorf("%s: %v, %v", key, s, err)
		}
		_, err = translate(testFacts(), testNode(), resources(&runtimeapi.LinuxContainerResources{Unified: map[string]string{key: value + "7"}}))
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), key) {
			t.Errorf("%s with another value: %v", key, err)
		}
	}
}
