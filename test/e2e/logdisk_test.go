package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/node"
)

// smallDisk mounts a file system of its own for the logs of some pods. It
// must come before the node, so that it outlives it.
func smallDisk(t *testing.T, mount ...string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", append(mount, dir)...).CombinedOutput(); err != nil {
		t.Fatalf("mount %v: %v: %s", mount, err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// answersFast checks that the daemon does its work within a bound that no
// disk of another pod's log is part of.
func answersFast(t *testing.T, n *node.Node, stuck *printer, healthy *printer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// The first status of a container that has ended may wait two seconds for
	// its log; were it each one, the time would not do.
	for _, p := range append(slices.Repeat([]*printer{stuck}, 12), healthy) {
		if _, err := n.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: p.Container}); err != nil {
			t.Errorf("status of %s: %v", p.Config.Metadata.Name, err)
		}
	}
	if list, err := n.ListContainers(ctx, &runtimeapi.ListContainersRequest{}); err != nil || len(list.Containers) < 2 {
		t.Errorf("list: %v, %v", list, err)
	}
	healthy.grows()
}

// countsOn is a script that prints numbers, the more the faster when told so.
const countsOn = `i=0; until [ -e /tell/end ]; do
	if [ -e /tell/burst ] && [ -z "$done" ]; then done=1; seq $i $((i+9999)); i=$((i+10000)); fi
	echo $i; i=$((i+1)); sleep 0.05; done; echo end`

// complete checks that a log is whole.
func (p *printer) complete(atLeast int) {
	p.t.Helper()
	all, ended := p.numbers()
	for i, got := range all {
		if got != i {
			p.t.Fatalf("%s: line %d of %d is %d", p.Config.Metadata.Name, i, len(all), got)
		}
	}
	if !ended || len(all) < atLeast {
		p.t.Errorf("%s: %d lines, ended %v", p.Config.Metadata.Name, len(all), ended)
	}
}

// TestFullLogDiskDelaysOnlyItsLog: the disk of one container's log is full,
// while the container runs, when it has ended, and when the daemon starts.
// All else goes on, and the log is completed when there is room again.
func TestFullLogDiskDelaysOnlyItsLog(t *testing.T) {
	disk := smallDisk(t, "-t", "tmpfs", "-o", "size=2m", "tmpfs")
	n := start(t, node.Options{NoContainerd: true})
	healthy := runPrinter(t, n, "healthy", logs(t), countsOn)
	stuck := runPrinter(t, n, "stuck", disk, countsOn)
	stuck.grows()
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1700<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	stuck.tell("burst")
	eventually(t, "the disk is full", func() error {
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil || st.Bavail > 0 {
			return &notYet{st.Bavail}
		}
		return nil
	})
	answersFast(t, n, stuck, healthy)

	stuck.tell("end")
	eventually(t, "the container ends", func() error {
		st, err := n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: stuck.Container})
		if err == nil && st.Status.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			return &notYet{st.Status.State}
		}
		return err
	})
	answersFast(t, n, stuck, healthy)

	// A container that ends with the disk still full is started as any other.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := n.RunPod(ctx, "docker", node.PodConfig("brief", disk), node.ContainerConfig("main", shared.Image("busybox"), "sh", "-c", "seq 100000")); err != nil {
		t.Errorf("a pod on the full disk: %v", err)
	}

	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitBackends(t.Context()); err != nil {
		t.Fatal(err)
	}
	answersFast(t, n, stuck, healthy)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	stuck.waitFor("end", 30*time.Second)
	stuck.complete(10_000)
	healthy.tell("end")
	healthy.waitFor("end", 30*time.Second)
	healthy.complete(20)
}

// freeze has a file system hang whoever writes to it, until thaw or the
// test's end.
func freeze(t *testing.T, dir string) (thaw func()) {
	t.Helper()
	const (
		fifreeze = 0xc0045877
		fithaw   = 0xc0045878
	)
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(d.Fd()), fifreeze, 0); err != nil {
		t.Fatal(err)
	}
	frozen := true
	thaw = func() {
		if !frozen {
			return
		}
		frozen = false
		if err := unix.IoctlSetInt(int(d.Fd()), fithaw, 0); err != nil {
			t.Error(err)
		}
		d.Close()
	}
	t.Cleanup(thaw)
	return thaw
}

// TestHungLogDiskDelaysOnlyItsLog: a write to one container's log does not
// come back.
func TestHungLogDiskDelaysOnlyItsLog(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	disk := smallDisk(t, "-o", "loop", image)
	n := start(t, node.Options{NoContainerd: true})
	healthy := runPrinter(t, n, "healthy", logs(t), countsOn)
	stuck := runPrinter(t, n, "stuck", disk, countsOn)
	gone := runPrinter(t, n, "gone", disk, countsOn)
	stuck.grows()
	gone.grows()
	thaw := freeze(t, disk)
	size := stuck.size()
	stuck.tell("burst")
	answersFast(t, n, stuck, healthy)
	stuck.tell("end")
	eventually(t, "the container ends", func() error {
		st, err := n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: stuck.Container})
		if err == nil && st.Status.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			return &notYet{st.Status.State}
		}
		return err
	})
	answersFast(t, n, stuck, healthy)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := n.RemovePod(ctx, gone.Sandbox); err != nil {
		t.Errorf("a pod whose log hangs: %v", err)
	}
	if stuck.size() != size {
		t.Error("the frozen disk was written to")
	}
	thaw()
	stuck.waitFor("end", 30*time.Second)
	stuck.complete(10_000)
}
