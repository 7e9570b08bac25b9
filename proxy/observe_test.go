package proxy

import (
	"context"
	"sync"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/store"
)

// TestAPodThatIsMadeDuringALook is not recorded as a container without its
// sandbox: the list of sandboxes was read before there was one.
func TestAPodThatIsMadeDuringALook(t *testing.T) {
	n := newNode(t)
	var once sync.Once
	n.b.setBefore(func(_ context.Context, method string, _ any) error {
		if method == "ListContainers" {
			once.Do(func() {
				n.b.edit(func() {
					n.b.sandboxes["old"] = &runtimeapi.PodSandbox{Id: "old", Metadata: &runtimeapi.PodSandboxMetadata{Name: "o", Namespace: "ns", Uid: "u"}, CreatedAt: 5}
					n.b.containers["oldc"] = &runtimeapi.Container{Id: "oldc", PodSandboxId: "old", Metadata: &runtimeapi.ContainerMetadata{Name: "c"}}
				})
			})
		}
		return nil
	})
	n.server.lanes["b"].wake()
	eventually(t, "both are known", func() bool {
		var sandbox, container bool
		n.log.View(func(st *store.State) { sandbox, container = st.Sandbox("old") != nil, st.Container("oldc") != nil })
		if container && !sandbox {
			t.Fatal("the container is known and its sandbox is not")
		}
		return sandbox && container
	})
	known := false
	for _, e := range n.events(t) {
		o := e.GetObserved()
		known = known || len(o.GetSandboxes()) > 0
		if len(o.GetContainers()) > 0 && !known {
			t.Errorf("the container is recorded before its sandbox: %v", e)
		}
	}
}
