package docker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// TestStartThatIsCutOff: a container whose StartContainer was given up, while the
// Engine went on with it, has its log all the same.
func TestStartThatIsCutOff(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	cfg := pod(t)
	config := ctrConfig(c.pull("busybox"), "while true; do echo here; usleep 100000; done")
	id := c.run(cfg)
	// Not too early, or the Engine is not asked, and not too late.
	for try := range 20 {
		if c.startedLate(c.create(id, cfg, config), time.Duration(10+10*(try%8))*time.Millisecond) {
			break
		}
		if try == 19 {
			t.Fatal("it was never cut off while the Engine went on")
		}
		config.Metadata.Attempt++
		config.LogPath = fmt.Sprintf("main/%d.log", config.Metadata.Attempt)
	}
	eventually(t, "the log to be copied", func() bool {
		st, err := os.Stat(filepath.Join(cfg.LogDirectory, config.LogPath))
		return err == nil && st.Size() > 0
	})
}

// startedLate starts a container for no longer than that, and reports whether the
// Engine has started it afterwards.
func (c cri) startedLate(ctr string, wait time.Duration) bool {
	c.t.Helper()
	body, err := proto.Marshal(&runtimeapi.StartContainerRequest{ContainerId: ctr})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), wait)
	defer cancel()
	if _, err := c.Invoke(ctx, &backends.Call{Method: runtimeService + "StartContainer", Request: backends.NewFrame(body), Journal: backends.NoJournal}); err == nil {
		return false // it was not cut off
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if c.listed(ctr) == runtimeapi.ContainerState_CONTAINER_RUNNING {
			return true
		}
	}
	return false
}
