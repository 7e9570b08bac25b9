package cni

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// start runs the node's Run until the end of the test, and returns when it
// watches.
func (n *node) start(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		n.Run(ctx)
		close(ended)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	eventually(t, "the configuration to be watched", n.watched)
}

func (n *node) watched() bool {
	n.Networks.conf.mu.Lock()
	defer n.Networks.conf.mu.Unlock()
	return n.Networks.conf.watched
}

// network is the name of the default network, or why there is none.
func (n *node) network() string {
	p, err := n.Plan(Attachment{ID: "x"})
	if err != nil {
		return err.Error()
	}
	return p.Network()
}

func pause() { time.Sleep(5 * time.Millisecond) }

func sorted(keys iter.Seq[string]) []string { return slices.Sorted(keys) }

func named(name string) string { return strings.ReplaceAll(good, "good", name) }

// must stops the test at an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// change is one change to the configurations, and what is the network then.
type change struct {
	do   func(t *testing.T, n *node)
	want string // the network, or a part of why there is none
}

// put writes a configuration.
func put(file, content string) func(*testing.T, *node) {
	return func(t *testing.T, n *node) { n.write(t, file, content) }
}

// swap has a link lead elsewhere in one step.
func swap(link, target string) func(*testing.T, *node) {
	return func(t *testing.T, n *node) {
		path := filepath.Join(n.conf, link)
		must(t, os.Symlink(target, path+"_tmp"))
		must(t, os.Rename(path+"_tmp", path))
	}
}

// changes are every kind of them.
var changes = map[string][]change{
	"files": {
		{func(*testing.T, *node) {}, "no configuration"},
		{put("20.conflist", named("a")), "a"},
		{put("10.conflist", named("b")), "b"},
		{put("10.conflist", named("c")), "c"},
		{func(t *testing.T, n *node) {
			n.write(t, "10.new", named("d"))
			must(t, os.Rename(filepath.Join(n.conf, "10.new"), filepath.Join(n.conf, "10.conflist")))
		}, "d"},
		{func(t *testing.T, n *node) {
			must(t, os.Rename(filepath.Join(n.conf, "10.conflist"), filepath.Join(n.conf, "10.conflist.bak")))
		}, "a"},
		{func(t *testing.T, n *node) { must(t, os.Remove(filepath.Join(n.conf, "20.conflist"))) }, "no configuration"},
		{put("30.conf", `{"cniVersion":"0.4.0","name":"e","type":"bridge"}`), "e"},
	},
	"folder": {
		{func(t *testing.T, n *node) { must(t, os.RemoveAll(filepath.Dir(n.conf))) }, "does not exist"},
		{put("10.conflist", named("a")), "a"},
		{func(t *testing.T, n *node) { must(t, os.RemoveAll(n.conf)) }, "does not exist"},
		{put("10.conflist", named("b")), "b"},
		{func(t *testing.T, n *node) { must(t, os.Rename(n.conf, n.conf+".old")) }, "does not exist"},
		{func(t *testing.T, n *node) {
			must(t, os.WriteFile(filepath.Join(n.conf+".old", "10.conflist"), []byte(named("c")), 0o600))
			must(t, os.Rename(n.conf+".old", n.conf))
		}, "c"},
		// The folder above goes, and all is made again at once.
		{func(t *testing.T, n *node) {
			must(t, os.RemoveAll(filepath.Dir(n.conf)))
			n.write(t, "10.conflist", named("d"))
		}, "d"},
		{put("10.conflist", named("e")), "e"},
	},
	"folder that is a link": {
		{func(t *testing.T, n *node) {
			must(t, os.Remove(n.conf))
			for _, v := range []string{"one", "two"} {
				dir := filepath.Join(filepath.Dir(n.conf), v)
				must(t, os.Mkdir(dir, 0o755))
				must(t, os.WriteFile(filepath.Join(dir, "10.conflist"), []byte(named(v)), 0o600))
			}
			must(t, os.Symlink("one", n.conf))
		}, "one"},
		{func(t *testing.T, n *node) {
			must(t, os.Symlink("two", n.conf+"_tmp"))
			must(t, os.Rename(n.conf+"_tmp", n.conf))
		}, "two"},
		{put("10.conflist", named("three")), "three"},
	},
	"mounted ConfigMap": {
		{func(t *testing.T, n *node) {
			n.write(t, "..1/10.conflist", named("a"))
			must(t, os.Symlink("..1", filepath.Join(n.conf, "..data")))
			must(t, os.Symlink("..data/10.conflist", filepath.Join(n.conf, "10.conflist")))
		}, "a"},
		{func(t *testing.T, n *node) {
			n.write(t, "..2/10.conflist", named("b"))
			swap("..data", "..2")(t, n)
			must(t, os.RemoveAll(filepath.Join(n.conf, "..1")))
		}, "b"},
		{func(t *testing.T, n *node) {
			n.write(t, "..3/20.conflist", named("c"))
			swap("..data", "..3")(t, n)
			must(t, os.Remove(filepath.Join(n.conf, "10.conflist")))
		}, "no configuration"},
	},
	"files that are links elsewhere": {
		{func(t *testing.T, n *node) {
			must(t, os.Symlink("../opt/net/10.conflist", filepath.Join(n.conf, "10.conflist")))
		}, "no such file"},
		{func(t *testing.T, n *node) {
			dir := filepath.Join(filepath.Dir(n.conf), "opt/net")
			must(t, os.MkdirAll(dir, 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "10.conflist"), []byte(named("a")), 0o600))
		}, "a"},
		{func(t *testing.T, n *node) {
			dir := filepath.Join(filepath.Dir(n.conf), "opt/net")
			must(t, os.WriteFile(filepath.Join(dir, "10.conflist"), []byte(named("b")), 0o600))
		}, "b"},
	},
	"link to itself": {
		{func(t *testing.T, n *node) {
			must(t, os.Remove(n.conf))
			must(t, os.Symlink(n.conf, n.conf))
		}, "too many levels"},
		{func(t *testing.T, n *node) {
			must(t, os.Remove(n.conf))
			n.write(t, "10.conflist", named("a"))
		}, "a"},
	},
	"plugin": {
		{put("10.conflist", `{"cniVersion":"0.4.0","name":"a","plugins":[{"type":"late"}]}`), `plugin "late" not found`},
		{func(t *testing.T, n *node) { n.fake(t, "late", "") }, "a"},
		{func(t *testing.T, n *node) { must(t, os.Remove(filepath.Join(n.bin, "late"))) }, `plugin "late" not found`},
	},
}

// TestWatched makes every kind of change to the configurations and sees that
// each is heard of: no use looks at the files.
func TestWatched(t *testing.T) {
	for name, steps := range changes {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.start(t)
			for i, s := range steps {
				s.do(t, n)
				if name == "folder" {
					must(t, os.MkdirAll(n.bin, 0o755))
				}
				var got string
				wait := time.Now().Add(time.Minute)
				for got = n.network(); got != s.want && (len(s.want) < 6 || !strings.Contains(got, s.want)); got = n.network() {
					if time.Now().After(wait) {
						t.Fatalf("step %d: network %q, want %q", i, got, s.want)
					}
					pause()
				}
				if !n.watched() {
					t.Fatalf("step %d: no longer watched", i)
				}
			}
		})
	}
}

// TestWatchedPluginFolder: files in the folder of the network's name belong to
// its configuration.
func TestWatchedPluginFolder(t *testing.T) {
	n := newNode(t)
	n.write(t, "10.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge"}]}`)
	n.start(t)
	plugins := func() int {
		p, err := n.Plan(Attachment{ID: "y"})
		must(t, err)
		return len(p.list.Plugins)
	}
	n.write(t, "x/10-more.conf", `{"type":"portmap"}`)
	eventually(t, "the second plugin", func() bool { return plugins() == 2 })
	n.write(t, "x/20-more.conf", `{"type":"tuning"}`)
	eventually(t, "the third plugin", func() bool { return plugins() == 3 })
	must(t, os.RemoveAll(filepath.Join(n.conf, "x")))
	eventually(t, "one plugin", func() bool { return plugins() == 1 })
}

// TestWatchedIsNotReadOnUse: while changes are told of, a use looks at no file.
func TestWatchedIsNotReadOnUse(t *testing.T) {
	n := newNode(t)
	n.write(t, "10.conflist", named("a"))
	if got := n.network(); got != "a" {
		t.Fatal(got)
	}
	n.Networks.conf.heed(true)
	n.write(t, "10.conflist", named("b"))
	if got := n.network(); got != "a" {
		t.Errorf("network %s: the files were read on use", got)
	}
	n.Networks.conf.heed(false)
	if got := n.network(); got != "b" {
		t.Errorf("network %s: the files were not read", got)
	}
}

// TestWithoutWatches: where the kernel gives no watch, uses look.
func TestWithoutWatches(t *testing.T) {
	n := newNode(t)
	tried := make(chan struct{}, 1)
	n.Networks.conf.newWatcher = func() (*fsnotify.Watcher, error) {
		tried <- struct{}{}
		return nil, syscall.EMFILE
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		n.Run(ctx)
		close(ended)
	}()
	<-tried
	for _, name := range []string{"a", "b", "c"} {
		n.write(t, "10.conflist", named(name))
		if got := n.network(); got != name {
			t.Errorf("network %s, want %s", got, name)
		}
	}
	stop()
	<-ended
}

// TestWatchesComeBack when the kernel has some to give.
func TestWatchesComeBack(t *testing.T) {
	n := newNode(t)
	l, real, failures := n.Networks.conf, n.Networks.conf.newWatcher, 3
	l.rewatch = time.Millisecond
	l.newWatcher = func() (*fsnotify.Watcher, error) {
		if failures--; failures >= 0 {
			return nil, syscall.EMFILE
		}
		return real()
	}
	n.start(t)
	n.write(t, "10.conflist", named("a"))
	eventually(t, "the network", func() bool { return n.network() == "a" && n.watched() })
}

// TestMountedOver: no watch tells of a file system that is mounted over the
// folder, the audit does; what happens in it then is told of.
func TestMountedOver(t *testing.T) {
	n := newNode(t)
	n.write(t, "10.conflist", named("below"))
	n.Networks.conf.audit = 20 * time.Millisecond
	n.start(t)
	if err := syscall.Mount("tmpfs", n.conf, "tmpfs", 0, ""); err != nil {
		t.Fatalf("mount: %v: this test needs root", err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			must(t, syscall.Unmount(n.conf, syscall.MNT_DETACH))
		}
	})
	eventually(t, "the empty folder to be seen", func() bool { return strings.Contains(n.network(), "no configuration") })
	n.write(t, "10.conflist", named("above"))
	eventually(t, "the file in it", func() bool { return n.network() == "above" })
	must(t, syscall.Unmount(n.conf, 0))
	mounted = false
	eventually(t, "what lay below", func() bool { return n.network() == "below" })
}

// TestRunEnds: after Run, uses look for themselves again.
func TestRunEnds(t *testing.T) {
	n := newNode(t)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		n.Run(ctx)
		close(ended)
	}()
	eventually(t, "the configuration to be watched", n.watched)
	stop()
	<-ended
	n.write(t, "10.conflist", named("a"))
	if got := n.network(); got != "a" {
		t.Errorf("network %s", got)
	}
}

// TestTornFile: the file in use counts as it was until it has been left
// damaged for a while, and each write to it starts that while anew.
func TestTornFile(t *testing.T) {
	n := newNode(t)
	l := n.Networks.conf
	at := time.Now()
	look := func(after time.Duration, want string) (again time.Duration) {
		t.Helper()
		again = l.look(at.Add(after))
		if got := "none"; l.now.list != nil {
			if got = l.now.list.Name; got != want {
				t.Errorf("after %v: network %s, want %s", after, got, want)
			}
		} else if want != got {
			t.Errorf("after %v: no network, want %s: %v", after, want, l.now.err)
		}
		return again
	}
	n.write(t, "10.conflist", named("first"))
	n.write(t, "20.conflist", named("second"))
	look(0, "first")
	n.write(t, "10.conflist", "")
	if again := look(time.Millisecond, "first"); again != settle {
		t.Errorf("to be looked at again after %v, want %v", again, settle)
	}
	n.write(t, "10.conflist", named("first")[:9])
	look(settle-1, "first")
	look(2*settle-2, "first")
	if len(l.now.skipped) != 0 {
		t.Errorf("skipped %v", l.now.skipped)
	}
	look(2*settle, "second")
	if !l.now.skips(filepath.Join(n.conf, "10.conflist")) {
		t.Errorf("skipped %v", l.now.skipped)
	}
	// Taken away, it is gone at once; so is a network that was never whole.
	n.write(t, "20.conflist", "{")
	look(3*settle, "second")
	must(t, os.Remove(filepath.Join(n.conf, "20.conflist")))
	look(3*settle+1, "none")
	if !errors.Is(l.now.err, ErrNoNetwork) {
		t.Errorf("error %v", l.now.err)
	}
	n.write(t, "10.conflist", named("third"))
	look(3*settle+2, "third")
}
