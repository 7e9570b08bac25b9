package cni

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// gather is how long changes are gathered before the files are looked at:
	// one installation of an add-on is many of them.
	gather = 50 * time.Millisecond
	// auditEvery is how often the files are looked at though nothing was heard:
	// no watch tells of a file system that is mounted over the folder.
	auditEvery = 10 * time.Second
	// rewatchAfter is the pause after it was not possible to watch.
	rewatchAfter = 30 * time.Second
)

// watch keeps what is loaded in step with the files until ctx is done. While
// it cannot watch, for want of inotify instances or watches, each use looks
// for itself.
func (l *loader) watch(ctx context.Context) {
	defer l.heed(false)
	for ctx.Err() == nil {
		if l.watchPlaces(ctx) {
			continue
		}
		l.heed(false)
		select {
		case <-ctx.Done():
		case <-time.After(l.rewatch):
		}
	}
}

// heed says whether changes are told of from now on.
func (l *loader) heed(watched bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched = watched
}

// watchPlaces watches the folders that matter now, until others do: then it
// returns true. It returns false if they cannot be watched.
func (l *loader) watchPlaces(ctx context.Context) bool {
	w, err := l.newWatcher()
	if err != nil {
		return false
	}
	defer w.Close()
	around := surroundings(l.dir)
	for dir := range around {
		if err := w.Add(dir); err != nil {
			// Gone meanwhile, and then the surroundings are others.
			return !around.same(surroundings(l.dir))
		}
	}
	// What changes from here on is told of; what changed before is read now.
	due := l.update()
	for around.same(surroundings(l.dir)) {
		moved, ok := around.await(ctx, w, due)
		if !ok {
			return ctx.Err() != nil
		}
		due = l.update()
		if moved {
			// A folder that was removed and made again may look the same.
			return true
		}
	}
	return true
}

// await returns when it is time to look at the files: a while after a change
// was heard of, or when it is due all the same. moved is true when one
// of the folders themselves may be another one, ok false when there is nothing
// more to wait for.
func (p places) await(ctx context.Context, w *fsnotify.Watcher, due time.Duration) (moved, ok bool) {
	audit := time.NewTimer(due)
	defer audit.Stop()
	var gathered <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return false, false
		case e, open := <-w.Events:
			if !open {
				return false, false
			}
			if !p.concern(e) {
				continue
			}
			moved = moved || p.isOne(e)
		case _, open := <-w.Errors:
			// Events were lost: look as if one had come.
			if !open {
				return false, false
			}
		case <-gathered:
			return moved, true
		case <-audit.C:
			return moved, true
		}
		if gathered == nil {
			gathered = time.After(gather)
		}
	}
}

// update is look for the watcher, and returns when the next is due.
func (l *loader) update() (due time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched = true
	if again := l.look(time.Now()); again > 0 {
		return again
	}
	return l.audit
}

// places are the folders on whose entries the configuration depends, by their
// paths without symbolic links.
type places map[string]*place

// place is one of the folders: which it is, and the entries that matter in it.
type place struct {
	file  os.FileInfo
	whole bool            // all its entries matter
	names map[string]bool // otherwise these
}

// maxLinks is how many symbolic links a path may lead over: the kernel's.
const maxLinks = 40

// surroundings returns the folders to watch for the configurations of dir: all
// that its path leads over, up to the last one that exists, itself, the plugin
// folders in it, and those that symbolic links in these lead over. So nothing
// can be put in place, taken away or replaced unheard, whether it be a file,
// the folder, one above it, or a link such as those of a mounted ConfigMap.
func surroundings(dir string) places {
	p := places{}
	if at, ok := p.follow(dir); ok {
		p.enter(at, true)
	}
	return p
}

// enter adds a folder with all that is in it.
func (p places) enter(dir string, deeper bool) {
	at := p.at(dir)
	if at == nil || at.whole {
		return
	}
	at.whole = true
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // reading it says so
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.Type()&os.ModeSymlink != 0:
			path, ok := p.follow(path)
			if ok && deeper {
				p.enterFolder(path)
			}
		case e.IsDir() && deeper:
			p.enterFolder(path)
		}
	}
}

// enterFolder is enter for what may be a plugin folder.
func (p places) enterFolder(path string) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		p.enter(path, false)
	}
}

// follow adds the folders that a path leads over, and returns where it ends; ok
// is false if that does not exist.
func (p places) follow(path string) (end string, ok bool) {
	at, rest := "/", parts(path)
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		here := p.at(at)
		if here == nil {
			return "", false
		}
		here.names[name] = true
		next := filepath.Join(at, name)
		st, err := os.Lstat(next)
		if err != nil {
			return "", false
		}
		if st.Mode()&os.ModeSymlink == 0 {
			at = next
			continue
		}
		target, err := os.Readlink(next)
		if links++; err != nil || links > maxLinks {
			return "", false
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(parts(target), rest...)
	}
	return at, true
}

// at returns the place of a folder; nil if it is none.
func (p places) at(dir string) *place {
	if one, ok := p[dir]; ok {
		return one
	}
	st, err := os.Stat(dir)
	if err != nil || !st.IsDir() {
		return nil
	}
	p[dir] = &place{file: st, names: map[string]bool{}}
	return p[dir]
}

// parts are the components of a path. Unlike filepath.Clean it leaves "..":
// what that means depends on the link before it.
func parts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}

// same reports whether the folders are still these.
func (p places) same(q places) bool {
	if len(p) != len(q) {
		return false
	}
	for dir, one := range p {
		other, ok := q[dir]
		if !ok || !os.SameFile(one.file, other.file) || one.whole != other.whole || len(one.names) != len(other.names) {
			return false
		}
		for name := range one.names {
			if !other.names[name] {
				return false
			}
		}
	}
	return true
}

// concern reports whether an event may change the configuration.
func (p places) concern(e fsnotify.Event) bool {
	if p.isOne(e) {
		return true
	}
	path := filepath.Clean(e.Name)
	in, ok := p[filepath.Dir(path)]
	return ok && (in.whole || in.names[filepath.Base(path)])
}

// isOne reports whether an event tells that one of the folders itself came,
// went or was moved.
func (p places) isOne(e fsnotify.Event) bool {
	_, ok := p[filepath.Clean(e.Name)]
	return ok && e.Has(fsnotify.Create|fsnotify.Remove|fsnotify.Rename)
}
