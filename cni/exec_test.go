package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const fakeList = `{"cniVersion":"0.4.0","name":"x","plugins":[{"type":"fake"}]}`

// answer is what a fake plugin says when all is well.
const answer = `echo '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/24"}]}'` + "\n"

// planned returns a node with a fake plugin and a plan for it.
func planned(t *testing.T, script string) (*node, *Plan) {
	t.Helper()
	n := newNode(t)
	n.fake(t, "fake", script)
	n.write(t, "a.conflist", fakeList)
	p, err := n.Plan(Attachment{ID: id(), Netns: newNetns(t), PodNamespace: "ns", PodName: "web-0", PodUID: "u-1"})
	if err != nil {
		t.Fatal(err)
	}
	return n, p
}

func TestPluginEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_THE_DAEMON", "hunter2")
	n, p := planned(t, `cat >/dev/null; env >"$(dirname "$0")/env"; `+answer)
	if _, err := n.Add(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(n.bin, "env"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		k, v, _ := strings.Cut(line, "=")
		got[k] = v
	}
	args := "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0;K8S_POD_UID=u-1;K8S_POD_INFRA_CONTAINER_ID=" + p.ID()
	for k, want := range map[string]string{
		"CNI_COMMAND": "ADD", "CNI_CONTAINERID": p.ID(), "CNI_IFNAME": "eth0", "CNI_NETNS": p.netns, "CNI_ARGS": args,
		"CNI_PATH": n.bin + ":" + pluginDir,
	} {
		if got[k] != want {
			t.Errorf("%s=%q, want %q", k, got[k], want)
		}
		delete(got, k)
	}
	for _, shell := range []string{"PATH", "PWD", "SHLVL", "_", "OLDPWD"} {
		delete(got, shell)
	}
	if len(got) != 0 {
		t.Errorf("the plugin got more than it needs: %v", got)
	}
}

func TestPluginErrors(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   []string
		code   uint
	}{
		"said":    {`echo '{"code":11,"msg":"try again","details":"pool is full"}'; exit 1`, []string{"try again; pool is full", "exit status 1", "CNI error 11"}, 11},
		"stderr":  {`echo "no such device" >&2; exit 3`, []string{"exit status 3", "no such device"}, 0},
		"silent":  {`exit 7`, []string{"exit status 7"}, 0},
		"garbage": {`echo "<html>"; exit 1`, []string{"exit status 1"}, 0},
		"endless": {`head -c 2000000 /dev/zero`, []string{"printed more than"}, 0},
		"noisy":   {`head -c 2000000 /dev/zero | tr '\0' x >&2; echo the end >&2; exit 1`, []string{"the end"}, 0},
		"killed":  {`kill -9 $$`, []string{"signal: killed"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			n, p := planned(t, "cat >/dev/null\n"+c.script)
			_, err := n.Add(context.Background(), p)
			var pe *PluginError
			if !errors.As(err, &pe) || pe.Code != c.code || pe.Command != "ADD" {
				t.Fatalf("error %#v", err)
			}
			for _, part := range append(c.want, `network "x"`, filepath.Join(n.bin, "fake")) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if len(err.Error()) > 8<<10 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// TestPluginGarbageResult: exit 0 with something that is no result.
func TestPluginGarbageResult(t *testing.T) {
	for _, out := range []string{``, `null`, `[]`, `{"cniVersion":"9.9.9"}`, `{"cniVersion":"0.4.0","ips":[{"address":"x"}]}`} {
		n, p := planned(t, "cat >/dev/null; echo '"+out+"'")
		if r, err := n.Add(context.Background(), p); err == nil {
			t.Errorf("%q was taken as %v", out, r)
		}
	}
}

// TestPluginDaemonHoldsOutput: a plugin that ends well but leaves a child with
// its standard output must not hold up the ADD.
func TestPluginDaemonHoldsOutput(t *testing.T) {
	n, p := planned(t, "cat >/dev/null\nsleep 600 &\n"+answer)
	defer func() {
		if err := n.Quiesce(context.Background(), p.ID()); err != nil {
			t.Error(err)
		}
	}()
	begin := time.Now()
	if _, err := n.Add(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > time.Minute { // a tenth of what the child takes
		t.Errorf("took %v", d)
	}
}

// TestPluginGroupIsKilled: when the context ends, the plugin and its children
// end, at once.
func TestPluginGroupIsKilled(t *testing.T) {
	n, p := planned(t, `cat >/dev/null; touch "$(dirname "$0")/began"; sleep 600; `+answer)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		eventually(t, "the plugin to begin", func() bool { _, err := os.Stat(filepath.Join(n.bin, "began")); return err == nil })
		cancel()
	}()
	begin := time.Now()
	_, err := n.Add(ctx, p)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if d := time.Since(begin); d > time.Minute {
		t.Errorf("took %v", d)
	}
	eventually(t, "no process to work for the id", func() bool { return workers(p.ID()) == 0 })
}

// workers counts processes that work for id.
func workers(id string) (n int) {
	pids, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range pids {
		var pid int
		if _, err := fmt.Sscan(filepath.Base(dir), &pid); err == nil && worksFor(pid, id) {
			n++
		}
	}
	return n
}

// TestPluginBusy: a plugin that is being written is tried again.
func TestPluginBusy(t *testing.T) {
	n, p := planned(t, "")
	script := filepath.Join(n.bin, "fake")
	// A script is never busy; a binary that is open for writing is.
	b, err := os.ReadFile(mustLookPath(t, "cat"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(script, os.O_RDWR|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*busyPause, func() { f.Close() })
	// cat echoes its input: a result without addresses.
	if _, err := n.Add(context.Background(), p); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Errorf("error %v", err)
	}
}

func mustLookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOneOperationAtATime: operations on one id never overlap, those on
// different ids do.
func TestOneOperationAtATime(t *testing.T) {
	n, p := planned(t, `cat >/dev/null
d="$(dirname "$0")/busy-$CNI_CONTAINERID"
mkdir "$d" || { echo overlap >&2; exit 9; }
sleep 0.05
rmdir "$d"
`+answer)
	other, err := p.For(id(), p.netns)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 6 {
		for _, p := range []*Plan{p, other} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				var err error
				if i%2 == 0 {
					_, err = n.Add(context.Background(), p)
				} else {
					err = n.Del(context.Background(), p, p.netns)
				}
				if err != nil {
					t.Error(err)
				}
			}()
		}
	}
	wg.Wait()
	if len(n.locks.held) != 0 {
		t.Errorf("%d locks left behind", len(n.locks.held))
	}
}

// TestWaitForTheLockEnds: a caller whose context ends while it waits for
// another operation gets its error, and the plugin does not run.
func TestWaitForTheLockEnds(t *testing.T) {
	n, p := planned(t, `echo x >>"$(dirname "$0")/runs"; `+answer)
	unlock, err := n.locks.lock(context.Background(), p.ID())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := n.Add(ctx, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Add: %v", err)
	}
	if err := n.Del(ctx, p, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Del: %v", err)
	}
	if err := n.Quiesce(ctx, p.ID()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Quiesce: %v", err)
	}
	unlock()
	if _, err := os.Stat(filepath.Join(n.bin, "runs")); err == nil {
		t.Error("the plugin ran")
	}
	if len(n.locks.held) != 0 {
		t.Errorf("%d locks left behind", len(n.locks.held))
	}
}
