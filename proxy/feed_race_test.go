package proxy

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/proxy/wire"
)

// says has the feed of backend b hear an event of container c1, in sandbox s1.
func (n *node) says(t *testing.T, kind runtimeapi.ContainerEventType) {
	t.Helper()
	body, err := proto.Marshal(&runtimeapi.ContainerEventResponse{
		ContainerId: "c1", ContainerEventType: kind, PodSandboxStatus: &runtimeapi.PodSandboxStatus{Id: "s1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.server.feeds["b"].heard(body)
}

// listOfC1 is the list of containers with c1 in it.
func listOfC1(t *testing.T, state runtimeapi.ContainerState) wire.Message {
	t.Helper()
	body, err := proto.Marshal(&runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{{Id: "c1", PodSandboxId: "s1", State: state}}})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// published are the events that wait for a reader.
func published(t *testing.T, r *reader) (names []string) {
	t.Helper()
	for _, body := range r.take() {
		e := new(runtimeapi.ContainerEventResponse)
		if err := proto.Unmarshal(body, e); err != nil {
			t.Fatal(err)
		}
		names = append(names, eventName(e))
	}
	return names
}

const (
	eventCreated = runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT
	eventStarted = runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
	eventStopped = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
	eventDeleted = runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT
)

// TestWhatIsNewerThanTheListIsNotGone: a container whose event comes while a look
// is under way is told of once, and not as deleted since the list lacks it.
func TestWhatIsNewerThanTheListIsNotGone(t *testing.T) {
	n := newIdleNode(t)
	f, r := n.server.feeds["b"], n.server.events.join()
	f.fresh = false
	f.rely(t.Context())
	began := time.Now()
	n.says(t, eventCreated)
	f.tell(t.Context(), f.seen(began, nil, nil))
	f.relyNoMore()
	f.tell(t.Context(), f.seen(time.Now(), nil, listOfC1(t, runtimeapi.ContainerState_CONTAINER_CREATED)))
	f.tell(t.Context(), f.seen(time.Now(), nil, nil))
	if got, want := published(t, r), []string{"CREATED c1", "DELETED c1"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// TestEventsOfALookAreNotOvertaken: what the backend tells of while the events of
// a look are made up is the last of them.
func TestEventsOfALookAreNotOvertaken(t *testing.T) {
	for _, row := range []struct {
		name   string
		before bool // c1 was there before the look
		list   wire.Message
		says   runtimeapi.ContainerEventType
		want   []string
	}{
		{"stopped", false, listOfC1(t, runtimeapi.ContainerState_CONTAINER_RUNNING), eventStopped, []string{"STOPPED c1"}},
		{"deleted", true, nil, eventDeleted, []string{"DELETED c1"}},
	} {
		n := newIdleNode(t)
		f, r := n.server.feeds["b"], n.server.events.join()
		f.fresh = false
		if row.before {
			f.seen(time.Now(), nil, listOfC1(t, runtimeapi.ContainerState_CONTAINER_EXITED))
		}
		changes := f.seen(time.Now(), nil, row.list)
		n.b.setBefore(func(_ context.Context, method string, _ any) error {
			if method == "PodSandboxStatus" {
				n.says(t, row.says)
			}
			return nil
		})
		f.tell(t.Context(), changes)
		if got := published(t, r); !slices.Equal(got, row.want) {
			t.Errorf("%s: events %q, want %q", row.name, got, row.want)
		}
	}
}

// TestALookThatIsFasterIsNotRepeated: what a look has told of does not come once
// more when the backend's own events arrive; what comes after it does.
func TestALookThatIsFasterIsNotRepeated(t *testing.T) {
	n := newIdleNode(t)
	f, r := n.server.feeds["b"], n.server.events.join()
	f.fresh = false
	changes := f.seen(time.Now(), nil, listOfC1(t, runtimeapi.ContainerState_CONTAINER_EXITED))
	f.tell(t.Context(), changes)
	n.says(t, eventCreated)
	n.says(t, eventStarted)
	n.says(t, eventStopped)
	n.says(t, eventDeleted)
	if got, want := published(t, r), []string{"CREATED c1", "STARTED c1", "STOPPED c1", "DELETED c1"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}
