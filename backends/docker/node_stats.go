package docker

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crimux/crimux/backends/docker/stats"
)

const (
	// layerInterval is how often a writable layer is measured at most: as
	// often as the kubelet looks for pods that have written too much.
	layerInterval = 10 * time.Second
	// rootAge is how long the Engine's data folder is taken to be where it
	// was. It moves only with the Engine's restart, which clears the facts.
	rootAge = 24 * time.Hour
	// upperDir is where the Engine tells the folder that a container writes
	// to, unless its images are containerd's.
	upperDir = "UpperDir"
)

// nodeStats is what statistics are read with.
type nodeStats struct {
	reader *stats.Reader
	layers *stats.Measurer
	srv    *server

	mu sync.Mutex
	// root is the Engine's data folder; empty until it is known.
	root string
	// uppers are the layers that only the mounts tell, by container: an ended
	// one has none any more.
	uppers map[string]string
}

// newNodeStats returns the statistics of the node that s is on. Layers are
// measured every interval; 0 is layerInterval.
func newNodeStats(s *server, interval time.Duration) *nodeStats {
	if interval <= 0 {
		interval = layerInterval
	}
	n := &nodeStats{srv: s, reader: stats.NewReader("/"), uppers: map[string]string{}}
	n.layers = stats.NewMeasurer(interval, n.subjects, func(id string, err error) {
		s.log.Warn("the writable layer of a container cannot be measured", "container", id, "error", err)
	})
	return n
}

// Run measures writable layers in the background until ctx is done.
func (n *nodeStats) Run(ctx context.Context) error { return n.layers.Run(ctx) }

// errUnseen is while nobody knows what the Engine has.
var errUnseen = errors.New("the containers of the docker engine are not known yet")

// subjects are the containers whose layers are to be measured. What is gone is
// forgotten on the way.
func (n *nodeStats) subjects(ctx context.Context) ([]stats.Subject, error) {
	if !n.srv.cache.whole() {
		// To ask would have the Engine tried anew, each second that it is away.
		return nil, errUnseen
	}
	containers, err := n.srv.all(ctx, typeContainer)
	if err != nil {
		return nil, err
	}
	sandboxes, err := n.srv.all(ctx, typeSandbox)
	if err != nil {
		return nil, err
	}
	facts, err := n.srv.currentFacts(ctx, rootAge)
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool, len(containers)+len(sandboxes))
	for _, f := range append(sandboxes[:len(sandboxes):len(sandboxes)], containers...) {
		known[f.ID] = true
	}
	n.keep(facts.rootDir, known)
	n.reader.Keep(func(id string) bool { return known[id] })
	out := make([]stats.Subject, 0, len(containers))
	for _, f := range containers {
		s := stats.Subject{ID: f.ID, Dir: n.upper(f), Ended: !f.running()}
		if f.running() {
			s.Activity = func() (uint64, bool) { return n.reader.Begin().Busy(f.ID, f.State.Pid) }
		}
		out = append(out, s)
	}
	return out, nil
}

func (n *nodeStats) keep(root string, known map[string]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.root = root
	for id := range n.uppers {
		if !known[id] {
			delete(n.uppers, id)
		}
	}
}

// upper is the folder that a container writes to; empty where it is not known.
func (n *nodeStats) upper(f *found) string {
	if dir := f.GraphDriver.Data[upperDir]; dir != "" {
		return dir
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if dir := n.uppers[f.ID]; dir != "" || !f.running() {
		return dir
	}
	// One that cannot be read is tried again with the next look.
	dir, err := n.reader.Begin().Upper(f.ID, f.State.Pid)
	if err == nil && dir != "" {
		n.uppers[f.ID] = dir
	}
	return dir
}

// rootDir is the Engine's data folder; empty while it is not known.
func (n *nodeStats) rootDir() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.root
}

// disk is the file system that containers write to.
type disk struct {
	device             string
	bytes              uint64
	inodes, inodesFree uint64
}

// disk asks the file system for its size; nil while it is not known where.
func (n *nodeStats) disk(p *stats.Pass) (*disk, error) {
	root := n.rootDir()
	if root == "" {
		return nil, nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return nil, n.srv.fail(err, "file system of the docker engine's data %s", root)
	}
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return nil, n.srv.fail(err, "file system of the docker engine's data %s", root)
	}
	name, err := p.DeviceName(stats.Device(st.Dev))
	if err != nil {
		return nil, n.srv.fail(err, "device of the docker engine's data %s", root)
	}
	return &disk{device: name, bytes: fs.Blocks * uint64(fs.Bsize), inodes: fs.Files, inodesFree: fs.Ffree}, nil
}

// running reports whether a container has a process whose use can be read.
func (f *found) running() bool { return f.State.Running && f.State.Pid > 0 }
