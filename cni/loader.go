package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// maxConf bounds a configuration file: it goes into the event log whole.
const maxConf = 256 << 10

// settle is how long the file in use may be damaged, counted from its last
// change, before it counts as such: an add-on may write it in place.
const settle = 500 * time.Millisecond

// loader finds the default network in a directory. While watch runs, what is
// loaded is kept in step with the files, and a use looks at none of them.
// Otherwise each use looks whether something has changed, and the files are
// read again only then.
type loader struct {
	dir string
	// What watching takes: watchers, the time between two audits, and the pause
	// after it failed.
	newWatcher     func() (*fsnotify.Watcher, error)
	audit, rewatch time.Duration
	// changed has a token after the network in use became another one.
	changed chan struct{}

	mu      sync.Mutex
	watched bool
	seen    string    // fingerprint of what was last read
	torn    time.Time // the last change of the file in use, if that damaged it
	now     loaded
}

// loaded is what a directory holds: a list with the file it came from, or the
// reason why there is none. skipped are damaged files before it.
type loaded struct {
	list    *libcni.NetworkConfigList
	file    string
	skipped []skip
	err     error
}

// skip is a damaged file and what is wrong with it.
type skip struct {
	file string
	err  error
}

func newLoader(dir string) *loader {
	return &loader{
		dir: dir, newWatcher: fsnotify.NewWatcher, audit: auditEvery, rewatch: rewatchAfter,
		changed: make(chan struct{}, 1),
	}
}

// load returns the default network of this moment.
func (l *loader) load() loaded {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.watched {
		l.look(time.Now())
	}
	return l.now
}

// look reads the files if they have changed. again is not 0 where they must be
// looked at once more after that time whether or not they change. The lock is
// held.
//
// A file that is being written is damaged for a moment. If it is the one in
// use, its last good version goes on counting meanwhile: pods must not fail
// then, let alone land in the network of the file that comes next.
func (l *loader) look(now time.Time) (again time.Duration) {
	files, seen, err := survey(l.dir)
	if err != nil {
		l.seen, l.torn = "", time.Time{}
		l.use(loaded{err: fmt.Errorf("%w: %w", ErrNoNetwork, err)})
		return 0
	}
	fresh := seen != l.seen
	if !fresh && l.torn.IsZero() {
		return 0
	}
	next := read(l.dir, files)
	l.seen = seen
	if l.now.list != nil && next.skips(l.now.file) {
		if fresh {
			l.torn = now
		}
		if left := settle - now.Sub(l.torn); left > 0 {
			return left
		}
	}
	l.torn = time.Time{}
	l.use(next)
	return 0
}

// use makes next the network of now.
func (l *loader) use(next loaded) {
	l.now = next
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// skips reports whether the file was passed over.
func (l loaded) skips(file string) bool {
	return slices.ContainsFunc(l.skipped, func(s skip) bool { return s.file == file })
}

// errors names the files that were passed over, each with its reason.
func (l loaded) errors() []error {
	var out []error
	for _, s := range l.skipped {
		out = append(out, fmt.Errorf("%s: %w", s.file, s.err))
	}
	return out
}

// survey returns the configuration files of dir by name, and a fingerprint
// that changes when one of them, or a plugin folder beside them, does.
func survey(dir string) (files []string, seen string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("directory %s does not exist: install a network add-on", dir)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", dir, err)
	}
	var b strings.Builder
	mark(&b, dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch ext := filepath.Ext(path); {
		case isFolder(path, e):
			if err := markFolder(&b, path); err != nil {
				return nil, "", err
			}
		case ext == ".conflist" || ext == ".conf" || ext == ".json":
			files = append(files, path)
			mark(&b, path)
		}
	}
	return files, b.String(), nil
}

// isFolder reports whether an entry is a folder, or leads to one.
func isFolder(path string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// markFolder marks the plugin configurations in a folder named after a network.
func markFolder(b *strings.Builder, dir string) error {
	mark(b, dir)
	parts, err := filepath.Glob(filepath.Join(dir, "*.conf"))
	if err != nil {
		return fmt.Errorf("read %s: %w", dir, err)
	}
	for _, p := range parts {
		mark(b, p)
	}
	return nil
}

// mark adds one file to a fingerprint. A file that cannot be looked at is
// marked as such: reading it will say why.
func mark(b *strings.Builder, path string) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		fmt.Fprintf(b, "%s %v\n", path, err)
		return
	}
	fmt.Fprintf(b, "%s %d %d %d %d %d\n", path, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Mode)
}

// read returns the first of the files that holds a valid network.
func read(dir string, files []string) loaded {
	if len(files) == 0 {
		return loaded{err: fmt.Errorf("%w: no configuration (*.conflist, *.conf, *.json) in %s: install a network add-on", ErrNoNetwork, dir)}
	}
	slices.Sort(files)
	var out loaded
	for _, f := range files {
		list, err := readFile(f)
		if err == nil {
			out.list, out.file = list, f
			return out
		}
		out.skipped = append(out.skipped, skip{file: f, err: err})
	}
	out.err = fmt.Errorf("%w: no valid configuration in %s, correct or remove it", ErrNoNetwork, dir)
	for _, err := range out.errors() {
		out.err = fmt.Errorf("%w: %w", out.err, err)
	}
	return out
}

// readFile reads one configuration file.
func readFile(path string) (*libcni.NetworkConfigList, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxConf {
		return nil, fmt.Errorf("not a regular file of at most %d bytes", maxConf)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if filepath.Ext(path) == ".conflist" {
		return parseList(b, filepath.Dir(path))
	}
	return parseSingle(b)
}

// parseSingle reads the old form, one plugin without a list, as a list of one.
func parseSingle(b []byte) (*libcni.NetworkConfigList, error) {
	one, err := libcni.NetworkPluginConfFromBytes(b)
	if err != nil {
		return nil, err
	}
	list, err := json.Marshal(map[string]any{
		"name": one.Network.Name, "cniVersion": one.Network.CNIVersion,
		"plugins": []json.RawMessage{b},
	})
	if err != nil {
		return nil, err
	}
	return parseList(list, "")
}

// parseList reads a configuration list. With a directory, plugins that lie in
// a folder of the network's name beside the file are written into the list, so
// that its bytes alone say everything.
func parseList(b []byte, dir string) (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromBytes(b)
	if err != nil {
		return nil, err
	}
	// The folder's name comes out of the file: check it before it is used.
	if err := check(list); err != nil {
		return nil, err
	}
	if dir != "" && !list.LoadOnlyInlinedPlugins {
		more, err := libcni.NetworkPluginConfsFromFiles(dir, list.Name)
		if err != nil {
			return nil, err
		}
		if len(more) > 0 {
			return inline(b, append(list.Plugins, more...))
		}
	}
	if len(list.Plugins) == 0 {
		return nil, fmt.Errorf("network %q has no plugins", list.Name)
	}
	return list, nil
}

// check refuses what libcni would only refuse at the first ADD.
func check(list *libcni.NetworkConfigList) error {
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return err
	}
	if list.CNIVersion == "" {
		return nil
	}
	newer, err := version.GreaterThan(list.CNIVersion, version.Current())
	if err != nil {
		return fmt.Errorf("cniVersion %q: %w", list.CNIVersion, err)
	}
	if newer {
		return fmt.Errorf("cniVersion %s is newer than %s, the newest that is understood", list.CNIVersion, version.Current())
	}
	return nil
}

// inline returns the list of b with these plugins in it.
func inline(b []byte, plugins []*libcni.PluginConfig) (*libcni.NetworkConfigList, error) {
	whole := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &whole); err != nil {
		return nil, err
	}
	raw := make([]json.RawMessage, len(plugins))
	for i, p := range plugins {
		raw[i] = p.Bytes
	}
	all, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	whole["plugins"], whole["loadOnlyInlinedPlugins"] = all, json.RawMessage("true")
	flat, err := json.Marshal(whole)
	if err != nil {
		return nil, err
	}
	return parseList(flat, "")
}
