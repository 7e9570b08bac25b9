package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
	"github.com/crimux/crimux/test/stream"
)

// TestStreams: the URLs that both backends return work as they are.
func TestStreams(t *testing.T) {
	n := start(t, node.Options{})
	for _, handler := range []string{"docker", "containerd"} {
		p := runWeb(t, n, handler, "streams-"+handler)
		x, err := n.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: p.Container, Cmd: []string{"cat"}, Stdin: true, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := stream.Pipe(x.Url, "there and back"); err != nil || out != "there and back" {
			t.Errorf("%s: exec at %s gave %q, %v", handler, x.Url, out, err)
		}
		f, err := n.PortForward(t.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: p.Sandbox, Port: []int32{8080}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := stream.Forward(f.Url, 8080, "GET / HTTP/1.0\r\n\r\n")
		if err != nil || !strings.Contains(out, strings.TrimSpace(lab.WebBody)) {
			t.Errorf("%s: port-forward at %s gave %q, %v", handler, f.Url, out, err)
		}
	}
	events, err := n.Run(t.Context(), "events")
	if err != nil || strings.Count(events, " Exec ") != 2 || strings.Count(events, " PortForward ") != 2 {
		t.Errorf("the events of it are\n%s%v", events, err)
	}
}

func TestReopenContainerLog(t *testing.T) {
	n := start(t, node.Options{})
	for _, handler := range []string{"docker", "containerd"} {
		p, err := n.RunPod(t.Context(), handler, node.PodConfig("reopen-"+handler, logs(t)),
			node.ContainerConfig("main", shared.Image("busybox"), "sh", "-c", "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done"))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the log has begun", func() error { return logHas(p.LogPath, "line 0") })
		if err := os.Rename(p.LogPath, p.LogPath+".old"); err != nil {
			t.Fatal(err)
		}
		if _, err := n.ReopenContainerLog(t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: p.Container}); err != nil {
			t.Errorf("%s: %v", handler, err)
		}
		eventually(t, "the new log goes on", func() error { return logHas(p.LogPath, "line 9") })
		if logHas(p.LogPath, "line 0") == nil {
			t.Errorf("%s: the new log has the old lines", handler)
		}
	}
}

// TestPodsOlderThanCrimux: a log that knows nothing finds and manages what is
// on both engines.
func TestPodsOlderThanCrimux(t *testing.T) {
	n := start(t, node.Options{})
	pods := []*node.Pod{runSleep(t, n, "docker", "old-d"), runSleep(t, n, "containerd", "old-c")}
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(n.EventsFile)); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		st, err := n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: p.Container})
		if err != nil || st.Status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("status: %v, %v", st, err)
		}
		if _, err := n.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: p.Container}); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	out, err := n.Run(t.Context(), "state")
	if err != nil || !strings.Contains(out, "old-d") || !strings.Contains(out, "old-c") {
		t.Errorf("the state is\n%s%v", out, err)
	}
}

// TestMigration: pods without a RuntimeClass go to the migration's target;
// those that run stay, also when the migration is taken back.
func TestMigration(t *testing.T) {
	n := start(t, node.Options{Extra: "migration: {to: containerd, percent: 100}\nruntimeName: docker\n"})
	p := runSleep(t, n, "", "moving")
	onContainerd(t, p.Sandbox)
	out, err := n.Run(t.Context(), "timeline", "moving")
	if err != nil || !strings.Contains(out, "migration to containerd") {
		t.Errorf("the timeline does not say why:\n%s%v", out, err)
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(n.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.ConfigFile, []byte(strings.Replace(string(b), "percent: 100", "percent: 0", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: p.Container, Cmd: []string{"true"}, Timeout: 5}); err != nil {
		t.Errorf("the pod that had moved: %v", err)
	}
	back := runSleep(t, n, "", "staying")
	if ids := pauses(t, "staying"); len(ids) != 1 || ids[0] != back.Sandbox {
		t.Errorf("after the migration was taken back docker has %v", ids)
	}
	v, err := n.Version(t.Context(), &runtimeapi.VersionRequest{})
	if err != nil || v.RuntimeName != "docker" {
		t.Errorf("the runtime's name is %v, %v", v, err)
	}
}

func onContainerd(t *testing.T, sandbox string) {
	t.Helper()
	list, err := shared.CRI().ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{Id: sandbox}})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("containerd has %v, %v; want sandbox %s", list, err, sandbox)
	}
}

// TestEveryRPCIsAnsweredOnPurpose: with an empty request each of the 43 is
// answered, refused by name, or said not to be implemented by name.
func TestEveryRPCIsAnsweredOnPurpose(t *testing.T) {
	for _, o := range []node.Options{{NoContainerd: true}, {NoDocker: true}, {}} {
		n := start(t, o)
		asked := 0
		for _, service := range []grpc.ServiceDesc{runtimeapi.RuntimeService_ServiceDesc, runtimeapi.ImageService_ServiceDesc} {
			for _, m := range service.Methods {
				asked++
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				err := n.Conn.Invoke(ctx, "/"+service.ServiceName+"/"+m.MethodName, new(emptypb.Empty), new(emptypb.Empty))
				cancel()
				onPurpose(t, m.MethodName, err)
			}
			for _, m := range service.Streams {
				asked++
				onPurpose(t, m.StreamName, openStream(t, n, service.ServiceName, m))
			}
		}
		if asked != 43 {
			t.Errorf("%d RPCs were asked", asked)
		}
		if got := sandboxes(t, n); len(got) != 0 {
			t.Errorf("empty requests made %v", got)
		}
	}
}

// openStream begins a server-streaming call and waits for its first message,
// its end, or a while.
func openStream(t *testing.T, n *node.Node, service string, m grpc.StreamDesc) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	st, err := n.Conn.NewStream(ctx, &m, "/"+service+"/"+m.StreamName)
	if err != nil {
		return err
	}
	if err := st.SendMsg(new(emptypb.Empty)); err != nil {
		return err
	}
	if err := st.CloseSend(); err != nil {
		return err
	}
	defer time.AfterFunc(time.Second, cancel).Stop()
	err = st.RecvMsg(new(emptypb.Empty))
	if status.Code(err) == codes.Canceled || fmt.Sprint(err) == "EOF" {
		return nil
	}
	return err
}

func onPurpose(t *testing.T, rpc string, err error) {
	t.Helper()
	if rpc == "PodSandboxStats" && (status.Code(err) == codes.Unknown || strings.Contains(fmt.Sprint(err), "pod_sandbox_id")) {
		return // the runtime's own words for the sandbox "", with which a kubelet tries it out
	}
	switch status.Code(err) {
	case codes.OK, codes.NotFound:
	case codes.InvalidArgument, codes.Unimplemented:
		if !strings.Contains(err.Error(), rpc) {
			t.Errorf("%s: the answer does not name it: %v", rpc, err)
		}
	default:
		t.Errorf("%s: %v", rpc, err)
	}
}

// TestContainerd2 has the newer containerd behind the same front.
func TestContainerd2(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Options{Containerd: lab.V2, NoDocker: true, Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
	})
	n := startOn(t, l, node.Options{NoDocker: true})
	p, err := n.RunPod(t.Context(), "containerd", node.PodConfig("newer", logs(t)), node.ContainerConfig("web", l.Image("web")))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := get(p.IP); err != nil || body == "" {
		t.Errorf("the pod answers %q, %v", body, err)
	}
	st, err := n.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil || len(st.RuntimeHandlers) == 0 {
		t.Errorf("its handlers are %v, %v", st.GetRuntimeHandlers(), err)
	}
}
