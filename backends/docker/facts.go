package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// minAPI is the oldest Engine API that everything here works on: 20.10's.
const minAPI = "1.41"

// factsAge is how old facts may be for a translation. They change only when
// the Engine is restarted, upon which they are read anew as well.
const factsAge = time.Minute

// facts are what the translation needs to know of an Engine.
type facts struct {
	read time.Time

	version, api string
	rootDir      string
	driver       string
	cgroupDriver string
	cgroupV2     bool
	// lacks are the resources that this kernel cannot limit. The Engine would
	// run the container without the limit, and tell nobody but us.
	lacks    map[string]bool
	apparmor bool
	selinux  bool
	cdi      bool
	// roNonRecursive: read-only mounts are recursively so unless the Engine is
	// told otherwise (Engine 25).
	roNonRecursive bool
	// runtimes by name; true where mounts can be recursively read-only.
	runtimes map[string]bool
	// defaultRuntime is the one that handler "" stands for.
	defaultRuntime string
}

// nodeOptions are what the translation needs to know besides.
type nodeOptions struct {
	// oomFloor is the lowest oom_score_adj that may be set here.
	oomFloor int
	logs     container.LogConfig
	// readFile reads a seccomp profile.
	readFile func(path string) ([]byte, error)
	// proc is where processes are found.
	proc procFS
	// pageSizes are the sizes of huge pages of this node, such as 2MB.
	pageSizes []string
}

// currentFacts returns facts that are not older than age.
func (s *server) currentFacts(ctx context.Context, age time.Duration) (*facts, error) {
	if f := s.facts.Load(); f != nil && time.Since(f.read) < age {
		return f, nil
	}
	// No lock: a slow Engine must not make its callers wait for one another.
	info, err := s.engine.Info(ctx)
	if err != nil {
		return nil, s.fail(err, "engine information")
	}
	f, err := readFacts(info, s.engine.ClientVersion())
	if err != nil {
		return nil, err
	}
	s.facts.Store(f)
	return f, nil
}

// usableFacts returns the facts of an Engine that pods can be run on.
func (s *server) usableFacts(ctx context.Context) (*facts, error) {
	f, err := s.currentFacts(ctx, factsAge)
	if err != nil {
		return nil, err
	}
	if why := f.tooOld(); why != "" {
		return nil, status.Error(codes.FailedPrecondition, why)
	}
	return f, nil
}

// readFacts takes the facts out of the Engine's answer.
func readFacts(info system.Info, api string) (*facts, error) {
	options, err := system.DecodeSecurityOptions(info.SecurityOptions)
	if err != nil {
		return nil, fmt.Errorf("docker engine: security options: %w", err)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(options, func(o system.SecurityOpt) bool { return o.Name == name })
	}
	f := &facts{
		read: time.Now(), version: info.ServerVersion, api: api, rootDir: info.DockerRootDir, driver: info.Driver,
		cgroupDriver: info.CgroupDriver, apparmor: has("apparmor"), selinux: has("selinux"),
		cgroupV2: info.CgroupVersion == "2",
		lacks: map[string]bool{
			"memory_limit_in_bytes": !info.MemoryLimit, "memory_swap_limit_in_bytes": !info.SwapLimit,
			"cpu_quota": !info.CPUCfsQuota, "cpuset_cpus": !info.CPUSet, "cpuset_mems": !info.CPUSet,
		},
		cdi:            len(info.CDISpecDirs) > 0,
		roNonRecursive: versions.GreaterThanOrEqualTo(api, "1.44"),
		runtimes:       map[string]bool{}, defaultRuntime: info.DefaultRuntime,
	}
	for name, r := range info.Runtimes {
		f.runtimes[name] = f.roNonRecursive && kernelAtLeast(info.KernelVersion, 5, 12) && recursiveReadOnly(r)
	}
	return f, nil
}

// recursiveReadOnly reports whether the runtime says that it knows the mount
// option rro.
func recursiveReadOnly(r system.RuntimeWithStatus) bool {
	var features struct {
		MountOptions []string `json:"mountOptions"`
	}
	said, ok := r.Status["org.opencontainers.runtime-spec.features"]
	if !ok || json.Unmarshal([]byte(said), &features) != nil {
		return false
	}
	return slices.Contains(features.MountOptions, "rro")
}

// kernelAtLeast compares the first two numbers of a kernel release.
func kernelAtLeast(release string, major, minor int) bool {
	first, rest, _ := strings.Cut(release, ".")
	second := strings.FieldsFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	a, err := strconv.Atoi(first)
	if err != nil || len(second) == 0 {
		return false
	}
	b, err := strconv.Atoi(second[0])
	return err == nil && (a > major || a == major && b >= minor)
}

// tooOld says why the Engine cannot be used; "" if it can.
func (f *facts) tooOld() string {
	if versions.LessThan(f.api, minAPI) {
		return fmt.Sprintf("docker engine %s speaks API %s; %s or newer (Engine 20.10) is needed", f.version, f.api, minAPI)
	}
	return ""
}

// handlerNames are the runtime handlers, "" first.
func (f *facts) handlerNames() []string {
	return append([]string{""}, slices.Sorted(maps.Keys(f.runtimes))...)
}

// recursiveReadOnly reports whether the handler can make mounts recursively
// read-only.
func (f *facts) recursiveReadOnly(handler string) bool {
	if handler == "" {
		handler = f.defaultRuntime
	}
	return f.runtimes[handler]
}

// oomFloor returns the lowest oom_score_adj that a process of ours may have.
// Without CAP_SYS_RESOURCE it may only be raised, and a container that asks
// for less does not start at all. The Engine is taken to be as able as we are.
func oomFloor(readFile func(string) ([]byte, error)) (int, error) {
	const capSysResource = 24
	status, err := readFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("capabilities: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		set, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
		if err != nil {
			return 0, fmt.Errorf("capabilities: %w", err)
		}
		if bits&(1<<capSysResource) != 0 {
			return -1000, nil
		}
	}
	adj, err := readFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, fmt.Errorf("oom score: %w", err)
	}
	floor, err := strconv.Atoi(strings.TrimSpace(string(adj)))
	if err != nil {
		return 0, fmt.Errorf("oom score: %w", err)
	}
	return floor, nil
}
