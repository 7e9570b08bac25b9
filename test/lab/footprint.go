package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Footprint is what a lab's users have on the machine at one moment. Every map goes from what names a thing to
// what a reader of a report wants to know about it.
type Footprint struct {
	// DockerContainers maps ids to names, running or not.
	DockerContainers map[string]string
	// Sandboxes maps the ids of containerd's pod sandboxes to namespace/name.
	Sandboxes map[string]string
	// Containers maps the ids of containerd's CRI containers to their names.
	Containers map[string]string
	// Shims maps the ids of tasks to the pids of their containerd shims.
	Shims map[string]string
	// Addresses maps addresses in use to the ids that hold them.
	Addresses map[string]string
	// CNIResults has the paths of cached CNI results.
	CNIResults map[string]string
	// Links has the names of the links on the lab's bridge.
	Links map[string]string
	// Netns has the paths of named network namespaces: those of the lab's engines, which are in its folder, and
	// those in /run/netns that were not there when the lab started.
	Netns map[string]string
	// Mounts maps containers' mount points below the lab's folder to their file system's type.
	Mounts map[string]string
	// Rules has the NAT rules that were made for the lab's network.
	Rules map[string]string
}

// kinds says how a report speaks of each part of a footprint.
var kinds = []struct {
	of         func(Footprint) map[string]string
	still, now string // formats of a key and its value: it is new, or it is gone
}{
	{func(f Footprint) map[string]string { return f.DockerContainers }, "docker container %s (%s) is still there", "docker container %s (%s) is gone"},
	{func(f Footprint) map[string]string { return f.Sandboxes }, "containerd sandbox %s (%s) is still there", "containerd sandbox %s (%s) is gone"},
	{func(f Footprint) map[string]string { return f.Containers }, "containerd container %s (%s) is still there", "containerd container %s (%s) is gone"},
	{func(f Footprint) map[string]string { return f.Shims }, "the shim of %s (pid %s) is still running", "the shim of %s (pid %s) is gone"},
	{func(f Footprint) map[string]string { return f.Addresses }, "IPAM address %s is still held by %s", "IPAM address %s is no longer held by %s"},
	{func(f Footprint) map[string]string { return f.CNIResults }, "CNI result %s is still cached%s", "CNI result %s is no longer cached%s"},
	{func(f Footprint) map[string]string { return f.Links }, "link %s is still on the bridge%s", "link %s is no longer on the bridge%s"},
	{func(f Footprint) map[string]string { return f.Netns }, "network namespace %s is still there%s", "network namespace %s is gone%s"},
	{func(f Footprint) map[string]string { return f.Mounts }, "%s is still mounted (%s)", "%s is no longer mounted (%s)"},
	{func(f Footprint) map[string]string { return f.Rules }, "NAT rule %q is still there%s", "NAT rule %q is gone%s"},
}

// Diff says in human lines how now differs from f; no lines mean no difference.
func (f Footprint) Diff(now Footprint) []string {
	var out []string
	for _, k := range kinds {
		was, is := k.of(f), k.of(now)
		for _, key := range slices.Sorted(maps.Keys(is)) {
			if _, ok := was[key]; !ok {
				out = append(out, fmt.Sprintf(k.still, key, is[key]))
			}
		}
		for _, key := range slices.Sorted(maps.Keys(was)) {
			if _, ok := is[key]; !ok {
				out = append(out, fmt.Sprintf(k.now, key, was[key]))
			}
		}
	}
	return out
}

// Footprint looks at what is there now. An engine that is stopped or killed is not asked for its containers;
// one that is paused makes this wait until ctx ends.
func (l *Lab) Footprint(ctx context.Context) (Footprint, error) {
	var f Footprint
	err := errors.Join(l.dockerFootprint(ctx, &f), l.criFootprint(ctx, &f), l.machineFootprint(ctx, &f))
	if err != nil {
		return f, fmt.Errorf("look at what the lab's users left: %w", err)
	}
	return f, nil
}

// Settled waits until nothing differs from before and returns nil then; when ctx ends first it returns the
// differences. Engines finish some of their cleaning after they have answered.
func (l *Lab) Settled(ctx context.Context, before Footprint) ([]string, error) {
	for {
		// Not ctx: a look that its end cuts short would say nothing about the differences.
		look, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
		now, err := l.Footprint(look)
		cancel()
		if err != nil {
			return nil, err
		}
		diff := before.Diff(now)
		if len(diff) == 0 {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return diff, nil
		case <-time.After(5 * pollInterval):
		}
	}
}

func (l *Lab) dockerFootprint(ctx context.Context, f *Footprint) error {
	if !l.docker.running() {
		return nil
	}
	list, err := l.Docker().ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return fmt.Errorf("list docker containers: %w", err)
	}
	f.DockerContainers = map[string]string{}
	for _, c := range list {
		f.DockerContainers[c.ID] = strings.TrimPrefix(strings.Join(c.Names, " "), "/")
	}
	return nil
}

func (l *Lab) criFootprint(ctx context.Context, f *Footprint) error {
	if !l.containerd.running() {
		return nil
	}
	pods, err := l.CRI().ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list containerd's sandboxes: %w", err)
	}
	containers, err := l.CRI().ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return fmt.Errorf("list containerd's containers: %w", err)
	}
	f.Sandboxes, f.Containers = map[string]string{}, map[string]string{}
	for _, p := range pods.GetItems() {
		f.Sandboxes[p.GetId()] = p.GetMetadata().GetNamespace() + "/" + p.GetMetadata().GetName()
	}
	for _, c := range containers.GetContainers() {
		f.Containers[c.GetId()] = c.GetMetadata().GetName()
	}
	return nil
}

// machineFootprint needs no engine: it reads what the kernel and the folders say.
func (l *Lab) machineFootprint(ctx context.Context, f *Footprint) (err error) {
	s := l.site
	shims, err := s.shims()
	if err != nil {
		return err
	}
	f.Shims = map[string]string{}
	for _, p := range shims {
		f.Shims[p.flag("-id")] = fmt.Sprint(p.pid)
	}
	if f.Addresses, err = s.addresses(); err != nil {
		return err
	}
	results, err := s.results()
	if err != nil {
		return err
	}
	f.CNIResults = set(results)
	ports, err := s.ports()
	if err != nil {
		return err
	}
	f.Links = map[string]string{}
	for _, p := range ports {
		f.Links[p.Attrs().Name] = ""
	}
	rules, err := s.natRules(ctx)
	if err != nil {
		return err
	}
	f.Rules = set(rules)
	return l.mountFootprint(f)
}

func (l *Lab) mountFootprint(f *Footprint) error {
	names, err := netnsMounts(l.site)
	if err != nil {
		return err
	}
	f.Netns = set(slices.DeleteFunc(names, func(n string) bool { return l.netnsThen[n] }))
	mounts, err := l.site.mounts()
	if err != nil {
		return err
	}
	f.Mounts = map[string]string{}
	for _, m := range mounts {
		if m.FSType != nsfs && !l.site.structural(m) {
			f.Mounts[m.Mountpoint] = m.FSType
		}
	}
	return nil
}

func set(keys []string) map[string]string {
	out := map[string]string{}
	for _, k := range keys {
		out[k] = ""
	}
	return out
}
