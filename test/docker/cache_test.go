package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// engineCall makes a call of the Engine's API, as somebody else on the node
// would.
func engineCall(t *testing.T, verb, path string) []byte {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", node.lab.DockerSocket)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), verb, "http://docker"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode >= 400 {
		t.Fatalf("%s %s: %s: %s", verb, path, resp.Status, body)
	}
	return body
}

// engineStates are the pods' containers as the Engine lists them.
func engineStates(t *testing.T) map[string]string {
	t.Helper()
	var all []struct {
		ID     string `json:"Id"`
		State  string
		Labels map[string]string
	}
	if err := json.Unmarshal(engineCall(t, "GET", "/containers/json?all=1"), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, c := range all {
		if kind := c.Labels["io.kubernetes.docker.type"]; kind != "" {
			out[c.ID] = kind + " " + c.State
		}
	}
	return out
}

// criStates are the same as the backend lists them, in the Engine's words.
func (c cri) criStates() map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for id, p := range c.pods() {
		out[id] = "podsandbox " + map[runtimeapi.PodSandboxState]string{
			runtimeapi.PodSandboxState_SANDBOX_READY: "running", runtimeapi.PodSandboxState_SANDBOX_NOTREADY: "exited"}[p.State]
	}
	for _, ctr := range must[runtimeapi.ListContainersResponse](c, runtimeService+"ListContainers", &runtimeapi.ListContainersRequest{}).Containers {
		out[ctr.Id] = "container " + map[runtimeapi.ContainerState]string{
			runtimeapi.ContainerState_CONTAINER_CREATED: "created", runtimeapi.ContainerState_CONTAINER_RUNNING: "running",
			runtimeapi.ContainerState_CONTAINER_EXITED: "exited"}[ctr.State]
	}
	return out
}

// equal waits until the backend shows what the Engine has.
func (c cri) equal(what string) {
	c.t.Helper()
	eventually(c.t, what, func() bool {
		engine, shown := engineStates(c.t), c.criStates()
		if len(engine) != len(shown) {
			return false
		}
		for id, state := range engine {
			if shown[id] != state {
				return false
			}
		}
		return true
	})
}

// TestCacheEqualsTheEngine: whatever others do on the Engine, and whether or
// not its events arrive, what is shown is what there is.
func TestCacheEqualsTheEngine(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	_, first, _ := running(t, c, unchanged)
	_, second, _ := running(t, c, unchanged)
	_, third, _ := running(t, c, unchanged)
	c.equal("at first")

	engineCall(t, "DELETE", "/containers/"+first+"?force=1")
	c.equal("after docker rm")
	engineCall(t, "POST", "/containers/"+second+"/kill")
	c.equal("after docker kill")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := node.lab.KillDocker(ctx); err != nil {
		t.Fatal(err)
	}
	if err := node.lab.StartDocker(ctx); err != nil {
		t.Fatal(err)
	}
	// The Engine was away, and without live restore everything has ended.
	c.equal("after a restart of the engine")
	if st := c.status(third); st.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("%v", st)
	}
	id, fourth, _ := running(t, c, unchanged)
	if st := c.status(fourth); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("not shown as started: %v", st)
	}
	if st := c.podStatus(id); st.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("not shown as ready: %v", st)
	}
	c.equal("after a pod more")
}

// TestContainerEventsOfAPod: what a kubelet that lives by events is told.
func TestContainerEventsOfAPod(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := c.Stream(ctx, runtimeService+"GetContainerEvents")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.Send(backends.NewFrame(nil)), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	cfg := pod(t)
	id := c.run(cfg)
	ctr := c.create(id, cfg, ctrConfig(c.pull("busybox"), "exit 3"))
	c.start(ctr)
	names := map[string]string{id: "sandbox", ctr: "container"}
	var got []string
	for len(got) < 5 {
		f, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		var e runtimeapi.ContainerEventResponse
		if err := proto.Unmarshal(f.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		name, ours := names[e.ContainerId]
		if !ours {
			continue // another test's
		}
		got = append(got, name+" "+strings.ToLower(strings.Split(e.ContainerEventType.String(), "_")[1]))
		if e.PodSandboxStatus.GetMetadata().GetUid() != cfg.Metadata.Uid {
			t.Errorf("%s: pod %v", got[len(got)-1], e.PodSandboxStatus)
		}
		if e.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT &&
			(len(e.ContainersStatuses) != 1 || e.ContainersStatuses[0].ExitCode != 3) {
			t.Errorf("stopped: %v", e.ContainersStatuses)
		}
	}
	if want := []string{"sandbox created", "sandbox started", "container created", "container started", "container stopped"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}
