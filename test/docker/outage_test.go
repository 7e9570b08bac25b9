package docker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// TestEngineKilled: the Engine dies and comes back, and without live restore
// its containers have died too. Nobody saw them end; the pods can be cleaned
// up completely, and logs go on.
func TestEngineKilled(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	id, ctr, cfg := running(t, c, func(_ *runtimeapi.PodSandboxConfig, r *runtimeapi.ContainerConfig) {
		r.Command = []string{"sh", "-c", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.01; done"}
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := node.lab.KillDocker(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "lists are refused while it is away", func() bool {
		return status.Code(c.try(runtimeService+"ListPodSandbox", &runtimeapi.ListPodSandboxRequest{})) == codes.Unavailable
	})
	if err := node.lab.StartDocker(ctx); err != nil {
		t.Fatal(err)
	}
	if p := c.pods()[id]; p.GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("pod %v", p)
	}
	c.exited(ctr)
	consecutive(t, filepath.Join(cfg.LogDirectory, "main/0.log"))

	// What is started now is followed again.
	next := pod(t)
	nextID := c.run(next)
	config := ctrConfig(node.lab.Image("busybox"), "echo again")
	late := c.create(nextID, next, config)
	c.start(late)
	c.exited(late)
	if n := consecutiveLines(t, filepath.Join(next.LogDirectory, "main/0.log")); n != 1 {
		t.Errorf("%d lines", n)
	}
}

// consecutive checks that the lines "line N" of a log lack none.
func consecutive(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := 1
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, fmt.Sprintf(" stdout F line %d\n", want)) {
			t.Fatalf("%q, want line %d", line, want)
		}
		want++
	}
	if want < 2 {
		t.Error("the log is empty")
	}
}

func consecutiveLines(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

// TestLogRotation does what the kubelet does, while lines come.
func TestLogRotation(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	_, ctr, cfg := running(t, c, func(_ *runtimeapi.PodSandboxConfig, r *runtimeapi.ContainerConfig) {
		r.Command = []string{"sh", "-c", "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; sleep 0.005; done; sleep 1000"}
	})
	log := filepath.Join(cfg.LogDirectory, "main/0.log")
	var all []byte
	for range 3 {
		time.Sleep(200 * time.Millisecond)
		if err := os.Rename(log, log+".old"); err != nil {
			t.Fatal(err)
		}
		must[runtimeapi.ReopenContainerLogResponse](c, runtimeService+"ReopenContainerLog", &runtimeapi.ReopenContainerLogRequest{ContainerId: ctr})
		part, err := os.ReadFile(log + ".old")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, part...)
	}
	// However long that took, it has not ended by itself.
	eventually(t, "all lines have come", func() bool { return bytes.Count(all, []byte("\n"))+consecutiveLines(t, log) >= 300 })
	must[runtimeapi.StopContainerResponse](c, runtimeService+"StopContainer", &runtimeapi.StopContainerRequest{ContainerId: ctr})
	c.exited(ctr)
	last, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	joined := filepath.Join(t.TempDir(), "all")
	if err := os.WriteFile(joined, append(all, last...), 0o644); err != nil {
		t.Fatal(err)
	}
	consecutive(t, joined)
	if n := consecutiveLines(t, joined); n != 300 {
		t.Errorf("%d lines, want 300", n)
	}
	if err := c.try(runtimeService+"ReopenContainerLog", &runtimeapi.ReopenContainerLogRequest{ContainerId: ctr}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("reopen after the end: %v", err)
	}
}

// TestManyAtOnce: pods come and go side by side, while lists are read. A list
// shows a pod from its answer on, and never as not ready before.
func TestManyAtOnce(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	ref := c.pull("busybox")
	ctx, stop := context.WithCancel(t.Context())
	var lists sync.WaitGroup
	stopping := sync.Map{}
	lists.Go(func() {
		for ctx.Err() == nil {
			var list runtimeapi.ListPodSandboxResponse
			if err := invoke(t, c.Backend, runtimeService+"ListPodSandbox", backends.NoJournal, &runtimeapi.ListPodSandboxRequest{}, &list); err != nil {
				t.Error(err)
				return
			}
			for _, p := range list.Items {
				if _, ok := stopping.Load(p.Id); !ok && p.State != runtimeapi.PodSandboxState_SANDBOX_READY {
					t.Errorf("pod %s is listed as %s", p.Id, p.State)
				}
			}
		}
	})
	var pods sync.WaitGroup
	for range 8 {
		cfg := pod(t)
		pods.Go(func() {
			var made runtimeapi.RunPodSandboxResponse
			if err := invoke(t, c.Backend, runtimeService+"RunPodSandbox", backends.NoJournal, &runtimeapi.RunPodSandboxRequest{Config: cfg}, &made); err != nil {
				t.Error(err)
				return
			}
			id := made.PodSandboxId
			var ctr runtimeapi.CreateContainerResponse
			if err := invoke(t, c.Backend, runtimeService+"CreateContainer", backends.NoJournal,
				&runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: ctrConfig(ref, "sleep 1000"), SandboxConfig: cfg}, &ctr); err != nil {
				t.Error(err)
			}
			if err := c.try(runtimeService+"StartContainer", &runtimeapi.StartContainerRequest{ContainerId: ctr.ContainerId}); err != nil {
				t.Error(err)
			}
			stopping.Store(id, true)
			c.removePod(id)
		})
	}
	pods.Wait()
	stop()
	lists.Wait()
}
