package cni

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The plugin of a daemon that was killed in the middle of an ADD: it reserves
// an address when it is let, and has a delegate that does so too.
const slowAdd = `cat >/dev/null
dir="$(dirname "$0")"
case "$CNI_COMMAND" in
DEL) rm -f "$dir/reserved" "$dir/delegate"; exit 0;;
esac
(: <"$dir/gate"; touch "$dir/delegate") &
: <"$dir/gate"
touch "$dir/reserved"
` + answer

// crash runs the node's fake plugin as a daemon would that is then killed:
// nobody waits for it, and its parent is gone.
func (n *node) crash(t *testing.T, id string) {
	t.Helper()
	must(t, syscall.Mkfifo(filepath.Join(n.bin, "gate"), 0o600))
	// setsid: what another shim or an older release started is in no group
	// that we know.
	c := exec.Command("sh", "-c", `setsid "$0" </dev/null >/dev/null 2>&1 &`, filepath.Join(n.bin, "fake"))
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=ADD", "CNI_CONTAINERID=" + id}
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the plugin and its delegate to run", func() bool { return workers(id) >= 2 })
}

// open lets the plugins of a crash go on, to the end of the test.
func (n *node) open(t *testing.T) {
	t.Helper()
	// For both, an open does not wait for a reader.
	f, err := os.OpenFile(filepath.Join(n.bin, "gate"), os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
}

func TestQuiesceEndsAnOrphanedAdd(t *testing.T) {
	ctx := context.Background()
	n, p := planned(t, slowAdd)
	n.grace = 0
	n.crash(t, p.ID())
	if err := n.Quiesce(ctx, p.ID()); err != nil {
		t.Fatal(err)
	}
	if w := workers(p.ID()); w != 0 {
		t.Errorf("%d processes still work for the id", w)
	}
	if err := n.Del(ctx, p, ""); err != nil {
		t.Fatal(err)
	}
	n.open(t)
	time.Sleep(800 * time.Millisecond) // past the time at which the plugin would have reserved
	for _, f := range []string{"reserved", "delegate"} {
		if _, err := os.Stat(filepath.Join(n.bin, f)); err == nil {
			t.Errorf("%s after the DEL: the orphan lived on", f)
		}
	}
}

// TestQuiesceLetsAPluginFinish: one that was killed half-way through a DEL
// could leave what no later DEL finds.
func TestQuiesceLetsAPluginFinish(t *testing.T) {
	n, p := planned(t, slowAdd)
	n.grace = time.Minute
	n.crash(t, p.ID())
	ended := make(chan error, 1)
	go func() { ended <- n.Quiesce(context.Background(), p.ID()) }()
	time.Sleep(600 * time.Millisecond) // it finds the plugin, and waits
	n.open(t)
	must(t, <-ended)
	for _, f := range []string{"reserved", "delegate"} {
		if _, err := os.Stat(filepath.Join(n.bin, f)); err != nil {
			t.Errorf("the plugin was not let finish: %v", err)
		}
	}
	if w := workers(p.ID()); w != 0 {
		t.Errorf("%d processes still work for the id", w)
	}
}

// TestQuiesceIsNeeded shows that the test above means something: without
// Quiesce the orphan reserves after the DEL.
func TestQuiesceIsNeeded(t *testing.T) {
	n, p := planned(t, slowAdd)
	n.crash(t, p.ID())
	if err := n.Del(context.Background(), p, ""); err != nil {
		t.Fatal(err)
	}
	n.open(t)
	eventually(t, "the orphan to reserve", func() bool {
		_, err := os.Stat(filepath.Join(n.bin, "reserved"))
		return err == nil
	})
	eventually(t, "the orphan to end", func() bool { return workers(p.ID()) == 0 })
}

func TestQuiesceLeavesOthersAlone(t *testing.T) {
	n, _ := planned(t, answer)
	mine := id()
	bystanders := [][]string{
		{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + mine + "0"},         // longer id
		{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + mine[:len(mine)-1]}, // shorter id
		{"SANDBOX=" + mine},         // mentions it only
		{"CNI_CONTAINERID=" + mine}, // not run as a plugin
		{"X=CNI_CONTAINERID=" + mine, "CNI_COMMAND=ADD"},
	}
	var running []*exec.Cmd
	for _, env := range bystanders {
		c := exec.Command("sleep", "30")
		c.Env = env
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, c)
	}
	if err := n.Quiesce(context.Background(), mine); err != nil {
		t.Fatal(err)
	}
	for i, c := range running {
		select {
		case <-time.After(10 * time.Millisecond):
		case err := <-ended(c):
			t.Errorf("%v was ended: %v", bystanders[i], err)
		}
		_ = c.Process.Kill()
	}
}

// ended tells when a process has ended.
func ended(c *exec.Cmd) <-chan error {
	out := make(chan error, 1)
	go func() { out <- c.Wait() }()
	return out
}

func TestQuiesceRefusesTheEmptyID(t *testing.T) {
	if err := newNode(t).Quiesce(context.Background(), ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

func TestQuiesceStopsWithItsContext(t *testing.T) {
	n, p := planned(t, slowAdd)
	n.crash(t, p.ID())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.Quiesce(ctx, p.ID()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	n.open(t)
	if err := n.Quiesce(context.Background(), p.ID()); err != nil {
		t.Error(err)
	}
}
