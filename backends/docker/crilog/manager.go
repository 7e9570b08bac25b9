package crilog

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// ErrNotFollowed is the answer for a container whose log is not followed: it
// never was, or it is complete, or it was forgotten.
var ErrNotFollowed = errors.New("container's log is not followed")

const (
	defaultPoll = 10 * time.Second
	// blindPoll is the poll of a source that cannot be watched.
	blindPoll = time.Second
	// closeBound is how long Close waits for disks that do not answer.
	closeBound = 10 * time.Second
)

// Manager keeps the CRI logs of containers up to date. Its methods may be
// called concurrently.
type Manager struct {
	o       Options
	watcher *fsnotify.Watcher
	watched sync.WaitGroup

	mu        sync.Mutex
	followers map[string]*follower
	folders   map[string]map[*follower]struct{} // by the source's folder
	closed    bool
}

// New returns a manager that follows nothing yet. Close it.
func New(o Options) (*Manager, error) {
	if o.Poll < 0 {
		return nil, fmt.Errorf("crilog: poll of %v: give a time above zero", o.Poll)
	}
	if o.Poll == 0 {
		o.Poll = defaultPoll
	}
	if o.OnGap == nil {
		o.OnGap = func(string, Gap) {}
	}
	if o.OnError == nil {
		o.OnError = func(string, error) {}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("crilog: watch files: %w: raise fs.inotify.max_user_instances", err)
	}
	m := &Manager{o: o, watcher: w, followers: map[string]*follower{}, folders: map[string]map[*follower]struct{}{}}
	m.watched.Add(1)
	go m.watch()
	return m, nil
}

// Follow begins to copy a container's log, where the target ends. It returns
// at once: what goes wrong is told through OnError and tried again. A
// container that is followed already goes on; if it has ended since, that is
// taken up.
func (m *Manager) Follow(f File) error {
	if f.ContainerID == "" || !filepath.IsAbs(f.Source) || !filepath.IsAbs(f.Target) {
		return fmt.Errorf("crilog: follow %q: it takes an id and absolute paths, not %q and %q", f.ContainerID, f.Source, f.Target)
	}
	f.Source, f.Target = filepath.Clean(f.Source), filepath.Clean(f.Target)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("crilog: the manager is closed")
	}
	old := m.followers[f.ContainerID]
	if old != nil && !old.stopped.Load() {
		if !old.c.file.sameFile(f) {
			return fmt.Errorf("crilog: the log of %s is already copied from %s to %s: Forget it first", f.ContainerID, old.c.file.Source, old.c.file.Target)
		}
		if !f.Running {
			go func() { _ = old.ask(context.Background(), finish) }() // ends with the follower
		}
		return nil
	}
	m.start(f, old)
	return nil
}

// start starts a follower, when the one before it has ended. The caller holds
// the lock.
func (m *Manager) start(f File, before *follower) {
	id := f.ContainerID
	l := &follower{
		c:       copier{file: f, onGap: func(g Gap) { m.o.OnGap(id, g) }, size: chunk},
		poll:    m.o.Poll,
		onError: func(err error) { m.o.OnError(id, err) },
		wake:    make(chan struct{}, 1), requests: make(chan request),
		stop: make(chan struct{}), done: make(chan struct{}),
		ending: !f.Running,
	}
	l.watch = func(on bool) bool { return m.watchSource(l, on) }
	m.followers[id] = l
	go func() {
		if before != nil {
			<-before.done // two must not write to one target
		}
		if f.Running {
			l.watchAgain()
		}
		l.run()
		m.drop(id, l)
		close(l.done)
	}()
}

// watchSource begins to watch the folder of a source, or ends it. It reports
// whether it is watched now.
func (m *Manager) watchSource(l *follower, on bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !on || m.closed {
		m.unwatch(l)
		return false
	}
	dir := filepath.Dir(l.c.file.Source)
	if m.folders[dir] == nil {
		if err := m.watcher.Add(dir); err != nil {
			return false
		}
		m.folders[dir] = map[*follower]struct{}{}
	}
	m.folders[dir][l] = struct{}{}
	return true
}

// unwatch lets go of the folder of a source. The caller holds the lock.
func (m *Manager) unwatch(l *follower) {
	dir := filepath.Dir(l.c.file.Source)
	if m.folders[dir] == nil {
		return
	}
	delete(m.folders[dir], l)
	if len(m.folders[dir]) == 0 {
		delete(m.folders, dir)
		// The folder may be gone already, and its watch with it.
		_ = m.watcher.Remove(dir)
	}
}

// drop forgets a follower that has ended.
func (m *Manager) drop(id string, l *follower) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.followers[id] == l {
		delete(m.followers, id)
	}
	m.unwatch(l)
}

// watch nudges the followers whose files change, until the watcher is closed.
func (m *Manager) watch() {
	defer m.watched.Done()
	for {
		select {
		case e, ok := <-m.watcher.Events:
			if !ok {
				return
			}
			m.changed(e.Name)
		case _, ok := <-m.watcher.Errors:
			if !ok {
				return
			}
			m.changed("") // events were lost: all look
		}
	}
}

// changed nudges the followers of a file, all of them for "".
func (m *Manager) changed(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if path == "" {
		for _, l := range m.followers {
			l.nudge()
		}
		return
	}
	for l := range m.folders[filepath.Dir(path)] {
		if l.c.file.holds(path) {
			l.nudge()
		}
	}
}

// follower returns the follower of a container.
func (m *Manager) follower(id string) (*follower, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.followers[id]; l != nil && !l.stopped.Load() {
		return l, nil
	}
	return nil, fmt.Errorf("crilog: %s: %w", id, ErrNotFollowed)
}

// ask asks a container's follower.
func (m *Manager) ask(ctx context.Context, id string, k kind, doing string) error {
	l, err := m.follower(id)
	if err == nil {
		if err = l.ask(ctx, k); err != nil {
			err = fmt.Errorf("crilog: %s of %s: %w", doing, id, err)
		}
	}
	return err
}

// Drain returns when every whole record that is now in the source is in the
// target, or with ctx's error.
func (m *Manager) Drain(ctx context.Context, id string) error {
	return m.ask(ctx, id, drain, "drain the log")
}

// Reopen closes the target and opens it anew, by its name: the kubelet has
// renamed it. Lines before go to the old file and lines after to the new one.
// On an error the old file is written on.
func (m *Manager) Reopen(ctx context.Context, id string) error {
	return m.ask(ctx, id, reopen, "reopen the log")
}

// Finish is for a container that has ended: it returns when its log is
// complete, and lets go of it. When ctx ends before, that still comes to its
// end. A container that is not followed is finished.
func (m *Manager) Finish(ctx context.Context, id string) error {
	l, err := m.follower(id)
	if errors.Is(err, ErrNotFollowed) {
		return nil
	}
	if err := l.ask(ctx, finish); err != nil && !errors.Is(err, ErrNotFollowed) {
		return fmt.Errorf("crilog: finish the log of %s: %w", id, err)
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("crilog: finish the log of %s: %w", id, ctx.Err())
	}
}

// Forget lets go of a container without copying more: it was removed. It does
// not wait.
func (m *Manager) Forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.followers[id]; l != nil {
		l.end()
	}
}

// Close lets go of all containers. What is not copied yet is copied when they
// are followed again.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	var all []*follower
	for _, l := range m.followers {
		l.end()
		all = append(all, l)
	}
	m.mu.Unlock()
	bound := time.NewTimer(closeBound)
	defer bound.Stop()
	for _, l := range all {
		select {
		case <-l.done:
		case <-bound.C:
			return fmt.Errorf("crilog: the disk of %s does not answer", l.c.file.Target)
		}
	}
	err := m.watcher.Close()
	m.watched.Wait()
	if err != nil {
		return fmt.Errorf("crilog: close the watcher: %w", err)
	}
	return nil
}
