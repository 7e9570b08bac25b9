package proxy

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store"
)

// describing is a backend that tells what its pods were made with.
type describing struct {
	backends.Backend
	pod  *runtimeapi.PodSandboxConfig
	ctr  *runtimeapi.ContainerConfig
	pid  int
	gone bool
}

func (d *describing) DescribeSandbox(context.Context, string) (backends.SandboxDescription, error) {
	return backends.SandboxDescription{Config: d.pod, Unknown: []string{"config.dns_config"}}, nil
}

func (d *describing) DescribeContainer(_ context.Context, id string) (backends.ContainerDescription, error) {
	if d.gone {
		return backends.ContainerDescription{}, status.Errorf(codes.NotFound, "no %s", id)
	}
	return backends.ContainerDescription{Config: d.ctr}, nil
}

func (d *describing) SandboxPID(context.Context, string) (int, error) { return d.pid, nil }

// rehearsalNode is a node with a pod on a, and what a tells of it.
func rehearsalNode(t *testing.T) (n *node, d *describing, sandbox string) {
	t.Helper()
	d = &describing{
		pid: os.Getpid(),
		pod: &runtimeapi.PodSandboxConfig{
			Hostname: "web", Labels: map[string]string{"app": "web"},
			Annotations:  map[string]string{"kubernetes.io/config.seen": "now", "other": "kept"},
			PortMappings: []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 8080}},
			Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/kubepods/x", SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_NODE},
			}},
		},
		ctr: &runtimeapi.ContainerConfig{
			Image: &runtimeapi.ImageSpec{Image: "busybox"}, Command: []string{"serve"}, Args: []string{"--all"},
			Envs: []*runtimeapi.KeyValue{{Key: "A", Value: []byte("one-value")}, {Key: "B", Value: []byte("two-value")}},
			Mounts: []*runtimeapi.Mount{
				{HostPath: "/srv", ContainerPath: "/data", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
				{HostPath: "/var/lib/kubelet/token", ContainerPath: serviceAccount},
			},
			Devices: []*runtimeapi.Device{{HostPath: "/dev/fuse"}},
		},
	}
	n = nodeOf(t, "", func(_ *fakeRuntime, b backends.Backend) backends.Backend {
		own := *d
		own.Backend = b
		if b.Name() == "a" {
			d.Backend = b
			return d
		}
		return &own
	})
	for _, f := range []*fakeRuntime{n.a, n.b} {
		f.edit(func() { f.images["busybox"] = &runtimeapi.Image{Id: "sha256:busybox"} })
	}
	sandbox = n.run(t, "web", "front-a")
	id := n.create(t, sandbox, "main")
	if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	return n, d, sandbox
}

// nothingOn checks that a fake has nothing and the folder of logs neither.
func nothingOn(t *testing.T, n *node, f *fakeRuntime) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sandboxes)+len(f.containers) > 0 {
		t.Errorf("left: %v, %v", f.sandboxes, f.containers)
	}
	if logs, _ := os.ReadDir(filepath.Join(n.dir, rehearsalLogs)); len(logs) > 0 {
		t.Errorf("left: the logs %v", logs)
	}
}

// TestRehearsal looks at what another backend is asked for, and at what the
// kubelet sees meanwhile.
func TestRehearsal(t *testing.T) {
	n, _, sandbox := rehearsalNode(t)
	var pod *runtimeapi.PodSandboxConfig
	var ctr *runtimeapi.ContainerConfig
	shown := 0
	n.b.setBefore(func(ctx context.Context, _ string, req any) error {
		switch r := req.(type) {
		case *runtimeapi.RunPodSandboxRequest:
			pod = r.Config
		case *runtimeapi.CreateContainerRequest:
			ctr = r.Config
		case *runtimeapi.StopPodSandboxRequest:
			shown = hiddenFrom(t, n, r.PodSandboxId)
		}
		return nil
	})
	var said []string
	r, err := n.server.Rehearse(t.Context(), RehearsalRequest{
		Sandbox: sandbox, On: "b", Level: LevelCreate, Env: []EnvVar{{"B", "other"}, {"C", "new"}},
	}, func(words string) { said = append(said, words) })
	if err != nil {
		t.Fatal(err)
	}
	if !r.Agreed || !r.Undone || len(r.Operations) != 2 || r.Operations[0].Recorded == nil || r.Operations[1].Recorded.Code != "OK" {
		t.Errorf("the report is %+v", r)
	}
	if shown != 1 || len(said) == 0 {
		t.Errorf("the lists were looked at %d times; it said %q", shown, said)
	}
	checkRehearsalPod(t, n, pod)
	checkRehearsalContainer(t, ctr)
	for _, want := range []string{
		"the host's port 8080", "the host's network namespace", "the host's pid namespace", "the host's ipc namespace",
		"main: the mount of /srv at /data", "main: the service account at " + serviceAccount, "main: the device /dev/fuse",
	} {
		if !slices.Contains(r.LeftOut, want) {
			t.Errorf("%q is not among what is left out: %q", want, r.LeftOut)
		}
	}
	if !slices.Equal(r.Missing, []string{"config.dns_config"}) {
		t.Errorf("missing is %q", r.Missing)
	}
	n.b.setBefore(nil)
	nothingOn(t, n, n.b)
	if n.b.called("StartContainer") > 0 {
		t.Error("something was started")
	}
}

func checkRehearsalPod(t *testing.T, n *node, pod *runtimeapi.PodSandboxConfig) {
	t.Helper()
	o := pod.GetLinux().GetSecurityContext().GetNamespaceOptions()
	switch {
	case pod.Metadata.Namespace != rehearsalNamespace, pod.Metadata.Name == "web", pod.Metadata.Uid == "uid-web",
		pod.Labels[backends.LabelRehearsal] == "", pod.Labels["app"] != "web", len(pod.PortMappings) > 0,
		pod.Annotations["other"] != "kept", pod.Annotations["kubernetes.io/config.seen"] != "",
		!strings.HasPrefix(pod.LogDirectory, n.dir), pod.Linux.CgroupParent != "", pod.Hostname != "web",
		o.Network != runtimeapi.NamespaceMode_POD, o.Ipc != runtimeapi.NamespaceMode_POD, o.Pid != runtimeapi.NamespaceMode_CONTAINER:
		t.Errorf("the pod is %v", pod)
	}
}

func checkRehearsalContainer(t *testing.T, ctr *runtimeapi.ContainerConfig) {
	t.Helper()
	var env []string
	for _, kv := range ctr.Envs {
		env = append(env, kv.Key+"="+string(kv.Value))
	}
	if !slices.Equal(ctr.Command, []string{"serve"}) || !slices.Equal(ctr.Args, []string{"--all"}) || ctr.Labels[backends.LabelRehearsal] == "" ||
		!slices.Equal(env, []string{"A=one-value", "B=other", "C=new"}) || len(ctr.Mounts)+len(ctr.Devices) > 0 {
		t.Errorf("the container is %v", ctr)
	}
}

// hiddenFrom checks that neither lists nor calls know of a sandbox.
func hiddenFrom(t *testing.T, n *node, id string) (looked int) {
	t.Helper()
	list, err := n.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("the sandboxes are %v, %v", list, err)
	}
	ctrs, err := n.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(ctrs.Containers) != 1 {
		t.Errorf("the containers are %v, %v", ctrs, err)
	}
	_, err = n.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if status.Code(err) != codes.NotFound {
		t.Errorf("its status is answered with %v", err)
	}
	_, err = n.CreateContainer(t.Context(), createRequest(id, "intruder"))
	if status.Code(err) != codes.NotFound {
		t.Errorf("a container in it is answered with %v", err)
	}
	return 1
}

// TestRehearsalIsRefusedByTheBackend: what the other runtime refuses is the
// result, in its words, less what is no one's business.
func TestRehearsalIsRefusedByTheBackend(t *testing.T) {
	n, _, sandbox := rehearsalNode(t)
	n.b.setBefore(func(_ context.Context, method string, _ any) error {
		if method == "CreateContainer" {
			return status.Error(codes.InvalidArgument, "config.odd: one-value is not possible")
		}
		return nil
	})
	r, err := n.server.Rehearse(t.Context(), RehearsalRequest{Sandbox: sandbox, On: "b", Level: LevelCreate, HostMounts: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"CreateContainer of main was OK, and is InvalidArgument: config.odd: [not recorded] is not possible"}
	if r.Agreed || !slices.Equal(r.Differences, want) || !r.Undone {
		t.Errorf("the report is %+v", r)
	}
	nothingOn(t, n, n.b)
}

// TestRehearsalNeverStartsOnTheNodesNetwork: the fakes' process is on it.
func TestRehearsalNeverStartsOnTheNodesNetwork(t *testing.T) {
	n, _, sandbox := rehearsalNode(t)
	_, err := n.server.Rehearse(t.Context(), RehearsalRequest{Sandbox: sandbox, On: "b", Level: LevelStart}, nil)
	if err == nil || !strings.Contains(err.Error(), "the node's own network") {
		t.Errorf("it says %v", err)
	}
	if n.b.called("CreateContainer")+n.b.called("StartContainer") > 0 {
		t.Error("something was made in it")
	}
	nothingOn(t, n, n.b)
}

// TestRehearsalEnds: a container that runs in the recording and ends in the
// rehearsal is a difference.
func TestRehearsalEnds(t *testing.T) {
	n, d, sandbox := rehearsalNode(t)
	rehearse := func() *Rehearsal {
		t.Helper()
		r, err := n.server.Rehearse(t.Context(), RehearsalRequest{
			Sandbox: sandbox, On: "b", Level: LevelStart, Network: true, Timeout: 300 * time.Millisecond,
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		nothingOn(t, n, n.b)
		return r
	}
	if r := rehearse(); !r.Agreed || len(r.Containers) != 1 || r.Containers[0].Rehearsed.State != endRunning {
		t.Errorf("what goes on running: %+v", r)
	}
	n.b.setBefore(func(_ context.Context, method string, req any) error {
		if method == "ContainerStatus" {
			n.b.mu.Lock()
			defer n.b.mu.Unlock()
			for _, c := range n.b.containers {
				c.State = runtimeapi.ContainerState_CONTAINER_EXITED
			}
		}
		return nil
	})
	if r := rehearse(); !slices.Equal(r.Differences, []string{"main is running, and has now exited with code 7 (Error)"}) {
		t.Errorf("what ends: %+v", r)
	}
	d.gone = true
	if r := rehearse(); !r.Agreed || !slices.Contains(r.Missing, "main: config.command") || len(r.Notes) != 1 {
		t.Errorf("what ends and is not known: %+v", r)
	}
}

// TestRehearsalCannotBe has every reason why one is not even begun.
func TestRehearsalCannotBe(t *testing.T) {
	n, _, sandbox := rehearsalNode(t)
	for want, req := range map[string]RehearsalRequest{
		"it names no pod":         {On: "b", Level: LevelCreate},
		`there is no backend "c"`: {Sandbox: sandbox, On: "c", Level: LevelCreate},
		"neither create nor":      {Sandbox: sandbox, On: "b", Level: "all"},
		"is not between":          {Sandbox: sandbox, On: "b", Level: LevelStart, Timeout: -1},
		`there is no sandbox "x"`: {Sandbox: "x", On: "b", Level: LevelCreate},
	} {
		if _, err := n.server.Rehearse(t.Context(), req, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", req, err, want)
		}
	}
	n.b.edit(func() { delete(n.b.images, "busybox") })
	_, err := n.server.Rehearse(t.Context(), RehearsalRequest{Sandbox: sandbox, On: "b", Level: LevelCreate}, nil)
	if err == nil || !strings.Contains(err.Error(), "add --pull") || n.b.called("PullImage") > 0 {
		t.Errorf("without the image: %v", err)
	}
	nothingOn(t, n, n.b)
	r, err := n.server.Rehearse(t.Context(), RehearsalRequest{Sandbox: sandbox, On: "b", Level: LevelCreate, Pull: true}, nil)
	if err != nil || !r.Agreed || n.b.called("PullImage") != 1 {
		t.Errorf("with a pull: %+v, %v", r, err)
	}
	n.b.stop()
	eventually(t, "b is away", func() bool { return n.server.set.Get("b").Check() != nil })
	if _, err := n.server.Rehearse(t.Context(), RehearsalRequest{Sandbox: sandbox, On: "b", Level: LevelCreate}, nil); status.Code(err) != codes.Unavailable {
		t.Errorf("on a backend that is away: %v", err)
	}
}

// TestRehearsalIsUndoneAtTheEnd of the daemon, and with who asked for it.
func TestRehearsalIsUndoneAtTheEnd(t *testing.T) {
	for _, ends := range []string{"caller", "daemon"} {
		n, _, sandbox := rehearsalNode(t)
		ctx, cancel := context.WithCancel(t.Context())
		started := make(chan struct{})
		var once sync.Once
		n.b.setBefore(func(_ context.Context, method string, _ any) error {
			if method == "ContainerStatus" {
				once.Do(func() { close(started) })
			}
			return nil
		})
		done := make(chan error, 1)
		go func() {
			_, err := n.server.Rehearse(ctx, RehearsalRequest{Sandbox: sandbox, On: "b", Level: LevelStart, Network: true}, nil)
			done <- err
		}()
		<-started
		if _, err := n.server.Rehearse(t.Context(), RehearsalRequest{Sandbox: sandbox, On: "b", Level: LevelCreate}, nil); status.Code(err) != codes.Aborted {
			t.Errorf("a second one beside it: %v", err)
		}
		if ends == "caller" {
			cancel()
		} else {
			n.stop()
		}
		if err := <-done; err == nil {
			t.Errorf("%s: it has ended well", ends)
		}
		nothingOn(t, n, n.b)
		cancel()
	}
}

// TestRehearsalLeft is what a crash has left on a backend, which the log may
// know or not: nobody sees it, and it is removed as soon as that can be done.
func TestRehearsalLeft(t *testing.T) {
	n := &node{a: newFake(t, "a"), b: newFake(t, "b"), dir: t.TempDir()}
	n.b.edit(func() {
		labels := map[string]string{backends.LabelRehearsal: "0123"}
		n.b.sandboxes["left"] = &runtimeapi.PodSandbox{Id: "left", Labels: labels, Metadata: &runtimeapi.PodSandboxMetadata{Name: "r", Namespace: rehearsalNamespace, Uid: "r"}}
		n.b.containers["in-it"] = &runtimeapi.Container{Id: "in-it", PodSandboxId: "left", Labels: labels, Metadata: &runtimeapi.ContainerMetadata{Name: "c"}}
	})
	var free bool
	n.b.setBefore(func(_ context.Context, method string, _ any) error {
		n.b.mu.Lock()
		defer n.b.mu.Unlock()
		if method == "RemovePodSandbox" && !free {
			return status.Error(codes.Internal, "not yet")
		}
		return nil
	})
	if err := os.MkdirAll(filepath.Join(n.dir, rehearsalLogs, "0123"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.begin(t)
	eventually(t, "its removal is tried", func() bool { return n.b.called("RemovePodSandbox") > 1 })
	own := n.run(t, "own", "front-b")
	n.create(t, own, "main")
	hiddenFrom(t, n, "left")
	_, err := n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: "in-it"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("its container is answered with %v", err)
	}
	n.log.View(func(st *store.State) {
		if st.Sandbox("left") != nil || st.Container("in-it") != nil {
			t.Error("it was observed")
		}
	})
	n.b.edit(func() { free = true })
	eventually(t, "it is gone", func() bool {
		n.b.mu.Lock()
		defer n.b.mu.Unlock()
		logs, _ := os.ReadDir(filepath.Join(n.dir, rehearsalLogs))
		return n.b.sandboxes["left"] == nil && len(logs) == 0
	})
}

// TestRehearsalStaysHiddenWhileItsBackendIsAway: not even lists as last known
// have it, before and after a crash.
func TestRehearsalStaysHiddenWhileItsBackendIsAway(t *testing.T) {
	n, _, sandbox := rehearsalNode(t)
	n.b.setBefore(func(_ context.Context, method string, _ any) error {
		if method == "StopPodSandbox" {
			return status.Error(codes.Internal, "stuck")
		}
		return nil
	})
	r, err := n.server.Rehearse(t.Context(), RehearsalRequest{Sandbox: sandbox, On: "b", Level: LevelCreate}, nil)
	if err != nil || r.Undone || !strings.Contains(r.Owed, "stuck") {
		t.Fatalf("%+v, %v", r, err)
	}
	n.b.stop()
	eventually(t, "b is away", func() bool { return n.server.set.Get("b").Check() != nil })
	id := ""
	n.log.View(func(st *store.State) {
		for sb := range st.SandboxesOf("b") {
			id = sb.GetId()
		}
	})
	if id == "" {
		t.Fatal("the log does not know it")
	}
	hiddenFrom(t, n, id)
	n.stop()
	n.beginWith(t, func(name string) bool { return name == "b" })
	hiddenFrom(t, n, id)
	n.b.setBefore(nil)
	n.b.start(t)
	eventually(t, "it is gone", func() bool {
		n.b.mu.Lock()
		defer n.b.mu.Unlock()
		return len(n.b.sandboxes) == 0
	})
}

// TestRehearsalLabelIsRefused: a pod that carries it would be hidden from its
// own kubelet.
func TestRehearsalLabelIsRefused(t *testing.T) {
	n := newNode(t)
	req := runRequest("sly", "front-b")
	req.Config.Labels = map[string]string{backends.LabelRehearsal: "mine"}
	if _, err := n.RunPodSandbox(t.Context(), req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), backends.LabelRehearsal) {
		t.Errorf("a sandbox with the label: %v", err)
	}
	ctr := createRequest(n.run(t, "honest", "front-b"), "sly")
	ctr.Config.Labels = map[string]string{backends.LabelRehearsal: "mine"}
	if _, err := n.CreateContainer(t.Context(), ctr); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a container with the label: %v", err)
	}
}

// TestRehearsalsAreTakenOutOfEveryList by their label, or their id where the
// list has no labels.
func TestRehearsalsAreTakenOutOfEveryList(t *testing.T) {
	n := newNode(t)
	n.server.rehearsals.note("known")
	labels := map[string]string{backends.LabelRehearsal: "1"}
	stat := func(id string, l map[string]string) *runtimeapi.ContainerStats {
		return &runtimeapi.ContainerStats{Attributes: &runtimeapi.ContainerAttributes{Id: id, Labels: l}}
	}
	podStat := func(id string, l map[string]string) *runtimeapi.PodSandboxStats {
		return &runtimeapi.PodSandboxStats{Attributes: &runtimeapi.PodSandboxAttributes{Id: id, Labels: l}}
	}
	for full, lists := range map[string][2]proto.Message{
		runtimeapi.RuntimeService_ListContainerStats_FullMethodName: {
			&runtimeapi.ListContainerStatsResponse{Stats: []*runtimeapi.ContainerStats{stat("x", labels), stat("own", nil), stat("known", nil)}},
			&runtimeapi.ListContainerStatsResponse{Stats: []*runtimeapi.ContainerStats{stat("own", nil)}},
		},
		runtimeapi.RuntimeService_ListPodSandboxStats_FullMethodName: {
			&runtimeapi.ListPodSandboxStatsResponse{Stats: []*runtimeapi.PodSandboxStats{podStat("x", labels), podStat("own", nil), podStat("known", nil)}},
			&runtimeapi.ListPodSandboxStatsResponse{Stats: []*runtimeapi.PodSandboxStats{podStat("own", nil)}},
		},
		runtimeapi.RuntimeService_ListPodSandboxMetrics_FullMethodName: {
			&runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: []*runtimeapi.PodSandboxMetrics{{PodSandboxId: "known"}, {PodSandboxId: "own"}}},
			&runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: []*runtimeapi.PodSandboxMetrics{{PodSandboxId: "own"}}},
		},
	} {
		f, err := rehearsalFrame(lists[0])
		if err != nil {
			t.Fatal(err)
		}
		want, err := rehearsalFrame(lists[1])
		if err != nil {
			t.Fatal(err)
		}
		if got := n.server.withoutRehearsals(full, f); string(got.Bytes()) != string(want.Bytes()) {
			t.Errorf("%s: %q, want %q", full, got.Bytes(), want.Bytes())
		}
	}
	for id, hidden := range map[string]bool{"own": false, "known": true} {
		e, err := proto.Marshal(&runtimeapi.ContainerEventResponse{ContainerId: id})
		if err != nil || n.server.hidesEvent(e) != hidden {
			t.Errorf("an event of %s is hidden: %v, %v", id, !hidden, err)
		}
	}
}
