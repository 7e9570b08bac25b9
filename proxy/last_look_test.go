package proxy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
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

// TestAnEndIsToldOnce, also where another removal comes while it is asked for.
func TestAnEndIsToldOnce(t *testing.T) {
	n := newIdleNode(t)
	sb := n.do(t, runtimeapi.RuntimeService_RunPodSandbox_FullMethodName, runRequest("web", "front-b"))
	var ids []string
	for _, name := range []string{"one", "two"} {
		id := n.do(t, runtimeapi.RuntimeService_CreateContainer_FullMethodName, createRequest(sb, name))
		n.do(t, runtimeapi.RuntimeService_StartContainer_FullMethodName, &runtimeapi.StartContainerRequest{ContainerId: id})
		n.b.edit(func() {
			ended := proto.CloneOf(n.b.containers[id])
			ended.State = runtimeapi.ContainerState_CONTAINER_EXITED
			n.b.containers[id] = ended
		})
		ids = append(ids, id)
	}
	var asked []string
	n.b.setBefore(func(_ context.Context, method string, req any) error {
		r, ok := req.(*runtimeapi.ContainerStatusRequest)
		if !ok {
			return nil
		}
		if asked = append(asked, r.ContainerId); len(asked) == 2 {
			n.do(t, runtimeapi.RuntimeService_RemoveContainer_FullMethodName, &runtimeapi.RemoveContainerRequest{ContainerId: asked[0]})
		}
		return nil
	})
	n.do(t, runtimeapi.RuntimeService_RemovePodSandbox_FullMethodName, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sb})
	told := map[string]int{}
	for _, e := range n.events(t) {
		for _, c := range e.GetObserved().GetContainers() {
			told[c.GetId()]++
		}
	}
	for _, id := range ids {
		if told[id] != 1 {
			t.Errorf("the end of %s is told of %d times", id, told[id])
		}
	}
}
