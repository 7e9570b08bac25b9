package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/store"
)

// TestAnEndIsInTheLogBeforeTheRemoval, also where the removal comes before any
// look at the backend could have told of it.
func TestAnEndIsInTheLogBeforeTheRemoval(t *testing.T) {
	for _, removal := range []string{"RemoveContainer", "RemovePodSandbox"} {
		t.Run(removal, func(t *testing.T) {
			n := newNode(t)
			// Why it was killed may change yet: a look leaves it for the next one.
			n.b.edit(func() {
				n.b.ended = func(st *runtimeapi.ContainerStatus) { st.ExitCode, st.FinishedAt = exitKilled, time.Now().UnixNano() }
			})
			sb := n.run(t, "web", "front-b")
			id, created := n.create(t, sb, "main"), n.create(t, sb, "never-started")
			if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
				t.Fatal(err)
			}
			n.b.edit(func() { n.b.containers[id].State = runtimeapi.ContainerState_CONTAINER_EXITED })
			var err error
			if removal == "RemoveContainer" {
				_, err = n.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id})
			} else {
				_, err = n.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sb})
			}
			if err != nil {
				t.Fatal(err)
			}
			var story []string
			if err := n.log.Records(1, func(r store.Record) error {
				e, err := r.Event()
				for _, c := range e.GetObserved().GetContainers() {
					if c.GetId() == created {
						t.Errorf("what never ran is said to be %v", c)
					}
					story = append(story, fmt.Sprintf("%s: %d %s", e.GetObserved().GetCause(), c.GetExitCode(), c.GetReason()))
				}
				if m := e.GetIntent().GetMethod(); m == removal {
					story = append(story, m)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if got, want := strings.Join(story, ", "), "removal: 137 Error, "+removal; got != want {
				t.Errorf("the log has %q, want %q", got, want)
			}
		})
	}
}
