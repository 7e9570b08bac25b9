package cni

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// Networks attaches pods to the node's default network. Its methods may be
// called concurrently; ADD, DEL and Quiesce of one sandbox id wait for each
// other, those of different ids do not.
type Networks struct {
	conf   *loader
	bins   []string
	cache  string
	plugin *libcni.CNIConfig
	locks  keyedLock
	// cidr is the node's pod CIDR, for plugins with the capability ipRanges.
	cidr *podCIDR
	// status is what plugins answer to STATUS, verbs which of them know it.
	status *statusAnswers
	verbs  verbPlugins
	// attached guards attachments under way against GC, of which there is one
	// at a time.
	attached   attached
	collecting sync.Mutex
	// host is the host's network namespace, by its inode.
	host uint64
	// grace is how long Quiesce lets orphaned plugins go on, and who adds or
	// deletes lets its own.
	grace time.Duration
}

// New returns the networks of a node. The directories need not exist yet:
// [Networks.Status] says what is missing.
func New(c Config) (*Networks, error) {
	for _, d := range append([]string{c.ConfDir, c.CacheDir}, c.BinDirs...) {
		if !filepath.IsAbs(d) {
			return nil, fmt.Errorf("%w: directory %q is not an absolute path: correct confDir, binDirs or cacheDir", ErrInvalid, d)
		}
	}
	if len(c.BinDirs) == 0 {
		return nil, fmt.Errorf("%w: no plugin directory: set binDirs", ErrInvalid)
	}
	// Not /proc/self, which is the main thread's: that may be on a visit to a
	// pod's namespace just now, and the runtime gives us no thread that is.
	host, err := namespace("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("own network namespace: %w", err)
	}
	bins := append([]string(nil), c.BinDirs...)
	n := &Networks{
		conf:   newLoader(filepath.Clean(c.ConfDir)),
		bins:   bins,
		cache:  c.CacheDir,
		plugin: libcni.NewCNIConfigWithCacheDir(bins, c.CacheDir, &runner{}),
		cidr:   newPodCIDR(c.CacheDir),
		host:   host,
		grace:  quiesceGrace,
	}
	n.status = newStatusAnswers(n.askStatus)
	return n, nil
}

// Run watches the configuration and asks plugins for their STATUS until ctx is
// done. Without it everything works too, but each use looks at the files, and
// [Networks.Status] waits for the plugins.
func (n *Networks) Run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { n.conf.watch(ctx) })
	both.Go(func() { n.status.run(ctx, n.conf.changed, n.usable) })
	both.Wait()
}

// Status is nil when there is a usable default network: a configuration that
// parses, the plugins of its list, and no objection of theirs, where they know
// the verb STATUS (CNI 1.1). Otherwise it says what is missing and where, in
// words that fit the message of the NetworkReady condition, and has
// [ErrNoNetwork] in its chain. While [Networks.Run] runs, no plugin makes it
// slow.
func (n *Networks) Status(ctx context.Context) error {
	list, err := n.usable()
	if err != nil {
		return err
	}
	return n.status.of(ctx, list)
}

// Skipped returns one error for each configuration file that was passed over
// because it is damaged, though it comes by name before the one that is used.
func (n *Networks) Skipped() []error { return n.conf.load().errors() }

// SetPodCIDR tells the node's pod CIDR, as the kubelet writes it: one range, or
// on a dual-stack node two with a comma between them. It outlives the daemon.
// Plugins that declare the capability ipRanges get it with the next ADD.
func (n *Networks) SetPodCIDR(text string) error { return n.cidr.set(text) }

// PodCIDR returns the node's pod CIDR, empty if it was never told.
func (n *Networks) PodCIDR() string {
	ranges, _ := n.cidr.get() // what cannot be read is told by Status
	return joinCIDR(ranges)
}

// Plan pins an attachment to today's default network. ID and Netns may be left
// empty where the sandbox does not exist yet, and set with [Plan.For]. Errors
// have [ErrNoNetwork] or [ErrInvalid] in their chain.
func (n *Networks) Plan(a Attachment) (*Plan, error) {
	list, err := n.usable()
	if err != nil {
		return nil, err
	}
	// Where it cannot be read, usable has refused a list that needs it.
	ranges, _ := n.cidr.get()
	return newPlan(list, a, ranges...)
}

// Add carries the plan out and returns the pod's addresses. libcni's cache is
// written last. When it fails, whatever part was done is still there: the
// caller owes a [Networks.Del].
//
// When ctx ends in the middle, the plugins get a few seconds to finish, and what
// they have finished counts. After that every process of the running plugin's
// group is killed.
func (n *Networks) Add(ctx context.Context, p *Plan) (Result, error) {
	if p.id == "" || p.netns == "" {
		return Result{}, fmt.Errorf("%w: ADD needs a sandbox id and a network namespace", ErrInvalid)
	}
	unlock, err := n.locks.lock(ctx, p.id)
	if err != nil {
		return Result{}, fmt.Errorf("network %q: ADD for %s: wait for an earlier operation on it: %w", p.list.Name, p.id, err)
	}
	defer unlock()
	if err := n.attached.enter(ctx, p.attachment()); err != nil {
		return Result{}, fmt.Errorf("network %q: ADD for %s: %w", p.list.Name, p.id, err)
	}
	var res types.Result
	err = letFinish(ctx, n.grace, func(ctx context.Context) (err error) {
		res, err = n.plugin.AddNetworkList(ctx, p.list, p.runtimeConf(p.netns))
		return err
	})
	if err != nil {
		return Result{}, fmt.Errorf("network %q: ADD for %s: %w", p.list.Name, p.id, err)
	}
	out, err := convert(res, p.ifName)
	if err != nil {
		return Result{}, fmt.Errorf("network %q: ADD for %s: %w", p.list.Name, p.id, err)
	}
	return out, nil
}

// Del undoes the plan's ADD, with the plan's configuration and not today's. It
// may be repeated, and called when the ADD never ran or failed half-way.
//
// When ctx ends in the middle, the plugins get a few seconds to finish: killed,
// they would leave what no later DEL finds.
//
// It is best called while the namespace is there: some plugins, such as bridge
// with ipMasq, leave NAT rules behind otherwise.
//
// netns is the path of the sandbox's network namespace, empty when it is gone.
// A path that no longer leads to the namespace of the ADD, or leads to the
// host's own, counts as gone: /proc/PID/ns/net of a dead sandbox may by now be
// that of another process.
func (n *Networks) Del(ctx context.Context, p *Plan, netns string) error {
	if p.id == "" {
		return fmt.Errorf("%w: DEL needs a sandbox id", ErrInvalid)
	}
	unlock, err := n.locks.lock(ctx, p.id)
	if err != nil {
		return fmt.Errorf("network %q: DEL for %s: wait for an earlier operation on it: %w", p.list.Name, p.id, err)
	}
	defer unlock()
	if !p.leadsHome(netns, n.host) {
		netns = ""
	}
	made := n.recall(p)
	err = letFinish(ctx, n.grace, func(ctx context.Context) error {
		return n.plugin.DelNetworkList(ctx, made.list, made.runtimeConf(netns))
	})
	if err != nil {
		return fmt.Errorf("network %q: DEL for %s: %w", p.list.Name, p.id, err)
	}
	n.attached.leave(p.attachment())
	return n.dropLoopback(p.id, p.ifName)
}

// usable returns the default network if it and its plugins are there.
func (n *Networks) usable() (*libcni.NetworkConfigList, error) {
	l := n.conf.load()
	if l.err != nil {
		return nil, l.err
	}
	for _, p := range l.list.Plugins {
		if _, err := findPlugin(p.Network.Type, n.bins); err != nil {
			return nil, fmt.Errorf("%w: network %q of %s: %w", ErrNoNetwork, l.list.Name, l.file, err)
		}
	}
	if declares(l.list, capabilityIPRanges) {
		if _, err := n.cidr.get(); err != nil {
			return nil, fmt.Errorf("%w: network %q of %s: %w", ErrNoNetwork, l.list.Name, l.file, err)
		}
	}
	return l.list, nil
}
