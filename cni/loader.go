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

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// maxConf bounds a configuration file: it goes into the event log whole.
const maxConf = 256 << 10

// loader finds the default network in a directory. It reads the files again
// only when the directory or one of them has changed.
type loader struct {
	dir string

	mu   sync.Mutex
	seen string // fingerprint of what now was read from
	now  loaded
}

// loaded is what a directory holds: a list with the file it came from, or the
// reason why there is none. skipped are damaged files before it.
type loaded struct {
	list    *libcni.NetworkConfigList
	file    string
	skipped []error
	err     error
}

// load returns the default network of this moment.
func (l *loader) load() loaded {
	l.mu.Lock()
	defer l.mu.Unlock()
	files, seen, err := l.survey()
	if err != nil {
		l.seen = ""
		return loaded{err: fmt.Errorf("%w: %w", ErrNoNetwork, err)}
	}
	if seen != l.seen || l.seen == "" {
		l.now, l.seen = read(l.dir, files), seen
	}
	return l.now
}

// survey returns the configuration files by name, and a fingerprint that
// changes when one of them, or a plugin folder beside them, does.
func (l *loader) survey() (files []string, seen string, err error) {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("directory %s does not exist: install a network add-on", l.dir)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", l.dir, err)
	}
	var b strings.Builder
	mark(&b, l.dir)
	for _, e := range entries {
		path := filepath.Join(l.dir, e.Name())
		switch ext := filepath.Ext(path); {
		case e.IsDir():
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
		out.skipped = append(out.skipped, fmt.Errorf("%s: %w", f, err))
	}
	out.err = fmt.Errorf("%w: no valid configuration in %s, correct or remove it", ErrNoNetwork, dir)
	for _, err := range out.skipped {
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
