package proxy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func TestOldPodsAreFoundAndRemembered(t *testing.T) {
	n := newNode(t)
	n.b.edit(func() {
		n.b.sandboxes["old"] = &runtimeapi.PodSandbox{Id: "old", Metadata: &runtimeapi.PodSandboxMetadata{Name: "o", Namespace: "ns", Uid: "u"}, CreatedAt: 5}
		n.b.containers["oldc"] = &runtimeapi.Container{Id: "oldc", PodSandboxId: "old", Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	})
	st, err := n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: "oldc"})
	if err != nil || st.Status.Id != "oldc" {
		t.Fatalf("%v, %v", st, err)
	}
	n.log.View(func(s *store.State) {
		if s.Sandbox("old").GetBackend() != "b" || s.Container("oldc").GetBackend() != "b" {
			t.Errorf("the state has %v and %v", s.Sandbox("old"), s.Container("oldc"))
		}
	})
	// An id that nobody knows gets the default backend's own answer.
	_, err = n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: "nowhere"})
	wantCode(t, err, codes.NotFound, `a has no container "nowhere"`)
}

func TestObservation(t *testing.T) {
	n := newNode(t)
	sb := n.run(t, "web", "front-b")
	c := n.create(t, sb, "c")
	if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c}); err != nil {
		t.Fatal(err)
	}
	n.b.edit(func() { n.b.containers[c].State = runtimeapi.ContainerState_CONTAINER_EXITED })
	eventually(t, "the exit is in the state, with its code", func() bool {
		ctr := n.server.knownContainer(c)
		return ctr.GetState() == eventpb.ContainerState_CONTAINER_STATE_EXITED && ctr.GetExitCode() == 7 && ctr.GetReason() == "Error"
	})
	n.b.edit(func() { delete(n.b.sandboxes, sb); delete(n.b.containers, c) })
	eventually(t, "the removal is in the state", func() bool {
		return n.server.knownSandbox(sb) == nil && n.server.knownContainer(c) == nil
	})
}

// TestKilledForMemoryIsKnownLate: a runtime may say at first that a container
// was killed, and only then that it was for want of memory. Recorded is what
// it says in the end.
func TestKilledForMemoryIsKnownLate(t *testing.T) {
	n := newNode(t)
	sb := n.run(t, "web", "front-b")
	greedy, stopped := n.create(t, sb, "greedy"), n.create(t, sb, "stopped")
	for _, id := range []string{greedy, stopped} {
		if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
			t.Fatal(err)
		}
	}
	at, asked := time.Now().UnixNano(), 0
	n.b.edit(func() {
		n.b.ended = func(st *runtimeapi.ContainerStatus) {
			st.ExitCode, st.FinishedAt = 137, at
			if st.Id != greedy {
				return
			}
			if asked++; asked > 1 {
				st.Reason = "OOMKilled"
			} else {
				st.FinishedAt = time.Now().UnixNano() // however late it is asked
			}
		}
		for _, id := range []string{greedy, stopped} {
			n.b.containers[id].State = runtimeapi.ContainerState_CONTAINER_EXITED
		}
	})
	for id, want := range map[string]string{greedy: "OOMKilled", stopped: "Error"} {
		eventually(t, "the end is in the state", func() bool {
			return n.server.knownContainer(id).GetState() == eventpb.ContainerState_CONTAINER_STATE_EXITED
		})
		if got := n.server.knownContainer(id).GetReason(); got != want {
			t.Errorf("recorded as %q, want %q", got, want)
		}
	}
}

func TestProbesAreCounted(t *testing.T) {
	n := newNode(t)
	sb := n.run(t, "web", "front-b")
	c := n.create(t, sb, "c")
	probe := func(cmd ...string) {
		if _, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: cmd}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		probe("ok")
	}
	probe("fails", "canary-argument")
	eventually(t, "the run of equal results is one event", func() bool {
		var got []*eventpb.Probed
		for _, e := range n.events(t) {
			if p := e.GetProbed(); p != nil {
				got = append(got, p)
			}
		}
		return len(got) == 1 && got[0].Count == 5 && got[0].ContainerId == c && got[0].ExitCode == 0
	})
}

func TestSecretsAreNotRecorded(t *testing.T) {
	n := newNode(t)
	quoting := func(_ context.Context, method string, req any) error {
		if method == "CreateContainer" || method == "PullImage" {
			return status.Errorf(codes.Unknown, "cannot: %v", req)
		}
		return nil
	}
	run := runRequest("web", "front-b")
	run.Config.Annotations = map[string]string{
		"kubectl.kubernetes.io/last-applied-configuration": "canary-annotation", "io.kubernetes.kept": "kept-annotation",
	}
	r, err := n.RunPodSandbox(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	n.b.setBefore(quoting)
	n.a.setBefore(quoting)
	create := createRequest(r.PodSandboxId, "c")
	create.Config.Command, create.Config.Args = []string{"canary-command"}, []string{"canary-arg"}
	create.Config.Envs = []*runtimeapi.KeyValue{{Key: "K", Value: []byte("canary-env")}}
	_, err = n.CreateContainer(t.Context(), create)
	wantCode(t, err, codes.Unknown, "cannot")
	_, err = n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: "i"}, Auth: &runtimeapi.AuthConfig{Username: "canary-user", Password: "canary-password", Auth: "canary-auth", IdentityToken: "canary-token"},
	})
	wantCode(t, err, codes.Unknown, "cannot")
	n.b.setBefore(nil)
	c := n.create(t, r.PodSandboxId, "d")
	if _, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"canary-exec"}}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	file, err := os.ReadFile(filepath.Join(n.dir, "events.db"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(file), "kept-annotation") || !strings.Contains(string(file), "cannot") {
		t.Error("the file lacks what it should have: the test looks in the wrong place")
	}
	for at := 0; ; {
		i := strings.Index(string(file[at:]), "canary")
		if i < 0 {
			break
		}
		at += i + 1
		t.Errorf("the file has %q", file[at-1:min(at+30, len(file))])
	}
}

// TestRecordedEnvironment is recorded only as far as the operator says.
func TestRecordedEnvironment(t *testing.T) {
	for setting, want := range map[string]string{
		"default": "",
		"none":    "",
		"names":   "USER= TOKEN= TOKEN= ",
		"values":  "USER=me TOKEN=canary TOKEN=last ",
	} {
		t.Run(setting, func(t *testing.T) {
			extra := "record: {environment: " + setting + "}\n"
			if setting == "default" {
				extra = ""
			}
			n := nodeOf(t, extra, nil)
			create := createRequest(n.run(t, "web", "front-b"), "c")
			create.Config.Envs = []*runtimeapi.KeyValue{
				{Key: "USER", Value: []byte("me")}, {Key: "TOKEN", Value: []byte("canary")}, {Key: "TOKEN", Value: []byte("last")},
			}
			if _, err := n.CreateContainer(t.Context(), create); err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := n.log.Records(1, func(r store.Record) error {
				e, err := r.Event()
				for _, v := range e.GetIntent().GetEnvironment() {
					got += v.GetName() + "=" + v.GetValue() + " "
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("recorded is %q, want %q", got, want)
			}
			n.stop()
			file, err := os.ReadFile(filepath.Join(n.dir, "events.db"))
			if err != nil || strings.Contains(string(file), "canary") != strings.Contains(want, "canary") {
				t.Errorf("the file has the value, or lacks it: %v", err)
			}
		})
	}
}

// TestProbesEndWithTheirContainer: a run of results does not outlive what was
// probed, in memory or unwritten.
func TestProbesEndWithTheirContainer(t *testing.T) {
	n := newNode(t)
	sb := n.run(t, "web", "front-b")
	c := n.create(t, sb, "c")
	for range 3 {
		if _, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"ok"}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sb}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the run is written", func() bool {
		for _, e := range n.events(t) {
			if p := e.GetProbed(); p != nil {
				return p.Count == 3 && p.ContainerId == c
			}
		}
		return false
	})
	if left := n.server.probes.take(func(string) bool { return true }); len(left) != 0 {
		t.Errorf("%d runs are kept", len(left))
	}
}
