package docker

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// TestStopThatIsCutOff: a StopPodSandbox that is given up at whichever moment,
// in the middle of a network plugin too, leaves nothing that the next one does
// not find.
func TestStopThatIsCutOff(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	for wait := 20 * time.Millisecond; wait < 400*time.Millisecond; wait += 20 * time.Millisecond {
		id := c.run(pod(t))
		body, err := proto.Marshal(&runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		_, err = c.Invoke(ctx, &backends.Call{Method: runtimeService + "StopPodSandbox", Request: backends.NewFrame(body), Journal: backends.NoJournal})
		cancel()
		if err == nil && wait == 20*time.Millisecond {
			t.Errorf("it was stopped within %v, and could not be cut off", wait)
		}
		c.removePod(id)
	}
}
