package docker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// TestCallsThatAreCutOff: pods come and go side by side, and a third of the calls
// are given up at whichever moment. What the kubelet then stops and removes, as
// often as it takes, is gone with all that the Engine finished afterwards.
func TestCallsThatAreCutOff(t *testing.T) {
	const workers, podsEach = 4, 5
	noLeak(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := kubelet(t)
	image := c.pull("busybox")
	logs := goroutinesIn("crilog.")
	var all sync.WaitGroup
	for w := range uint64(workers) {
		cfgs := make([]*runtimeapi.PodSandboxConfig, podsEach)
		for i := range cfgs {
			cfgs[i] = pod(t)
		}
		all.Go(func() {
			for i, cfg := range cfgs {
				k := impatient{c, rand.New(rand.NewPCG(seed, w*podsEach+uint64(i)))}
				k.live(cfg, image)
			}
		})
	}
	all.Wait()
	// What comes of a creation that was undone is met by the audit at the latest.
	for end := time.Now().Add(time.Minute); len(engineStates(t)) > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	if left := engineStates(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	eventually(t, "nothing is listed", func() bool {
		return len(c.pods()) == 0 && len(must[runtimeapi.ListContainersResponse](c, runtimeService+"ListContainers", &runtimeapi.ListContainersRequest{}).Containers) == 0
	})
	eventually(t, "no log is followed", func() bool { return goroutinesIn("crilog.") <= logs })
}

// goroutinesIn counts the goroutines that are in a package.
func goroutinesIn(pkg string) (n int) {
	buf := make([]byte, 8<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "/"+pkg) {
			n++
		}
	}
	return n
}

// impatient is a kubelet that gives up calls.
type impatient struct {
	cri
	*rand.Rand
}

// call makes a call, or the beginning of one. Each third is given up.
func (k impatient) call(method string, req, out proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	patience := 2 * time.Minute
	if k.IntN(3) == 0 {
		patience = time.Duration(k.IntN(400)) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	a, err := k.Invoke(ctx, &backends.Call{Method: runtimeService + method, Request: backends.NewFrame(body), Journal: backends.NoJournal})
	if err != nil {
		return err
	}
	return proto.Unmarshal(a.Body.Bytes(), out)
}

// until repeats a call until it is carried out, as the kubelet does.
func (k impatient) until(method string, req proto.Message) {
	for try := range 100 {
		if err := k.call(method, req, discard()); err == nil {
			return
		} else if try == 99 {
			k.t.Errorf("%s: %v", method, err)
		}
	}
}

// live is the life of a pod with two containers, to its end.
func (k impatient) live(cfg *runtimeapi.PodSandboxConfig, image string) {
	var made runtimeapi.RunPodSandboxResponse
	if err := k.call("RunPodSandbox", &runtimeapi.RunPodSandboxRequest{Config: cfg}, &made); err != nil {
		k.t.Logf("%s: %v", cfg.Metadata.Name, err)
		return
	}
	var inside sync.WaitGroup
	for n := range 2 {
		own := impatient{k.cri, rand.New(rand.NewPCG(k.Uint64(), 0))}
		inside.Go(func() { own.container(made.PodSandboxId, cfg, image, n) })
	}
	time.Sleep(time.Duration(k.IntN(800)) * time.Millisecond)
	k.until("StopPodSandbox", &runtimeapi.StopPodSandboxRequest{PodSandboxId: made.PodSandboxId})
	k.until("RemovePodSandbox", &runtimeapi.RemovePodSandboxRequest{PodSandboxId: made.PodSandboxId})
	inside.Wait()
}

// container is one container's beginning, and perhaps its end. Any of its calls
// may fail: the pod may have been stopped or removed meanwhile.
func (k impatient) container(sandbox string, cfg *runtimeapi.PodSandboxConfig, image string, n int) {
	config := ctrConfig(image, "for i in 1 2 3; do echo $i; usleep 50000; done; sleep 1000")
	config.Metadata.Name = fmt.Sprintf("c%d", n)
	config.LogPath = config.Metadata.Name + "/0.log"
	var made runtimeapi.CreateContainerResponse
	if k.call("CreateContainer", &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, Config: config, SandboxConfig: cfg}, &made) != nil {
		return
	}
	for range 1 + k.IntN(2) {
		_ = k.call("StartContainer", &runtimeapi.StartContainerRequest{ContainerId: made.ContainerId}, discard())
	}
	time.Sleep(time.Duration(k.IntN(300)) * time.Millisecond)
	switch k.IntN(4) {
	case 0:
		_ = k.call("StopContainer", &runtimeapi.StopContainerRequest{ContainerId: made.ContainerId}, discard())
	case 1:
		_ = k.call("RemoveContainer", &runtimeapi.RemoveContainerRequest{ContainerId: made.ContainerId}, discard())
	case 2:
		_ = k.call("ReopenContainerLog", &runtimeapi.ReopenContainerLogRequest{ContainerId: made.ContainerId}, discard())
	}
}
