package docker

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// crashed runs a pod up to the end and then forgets all that is in memory, as
// if the daemon had been killed before the outcome.
func crashed(t *testing.T) (*bench, string, backends.Unfinished) {
	t.Helper()
	b := newBench(t)
	j := &fakeJournal{op: "op-1"}
	id, err := b.runPod(j, podConfig())
	if err != nil {
		t.Fatal(err)
	}
	b.server.ops = newOperations()
	b.server.pods = newAttachments(b.net, fakePins{b.trace}, b.server.pods.kept)
	b.trace.effects()
	return b, id, backends.Unfinished{Op: j.op, Method: "/runtime.v1.RuntimeService/RunPodSandbox", Steps: j.steps}
}

func TestRecoverRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*bench, string)
		want   []string
	}{
		{"all done", func(*bench, string) {}, []string{"quiesce", "DEL", "remove"}},
		{"container vanished", func(b *bench, id string) { delete(b.engine.containers, id) }, []string{"quiesce", "DEL"}},
		{"nothing cached", func(b *bench, id string) { delete(b.net.attached, id) }, []string{"quiesce", "DEL", "remove"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, id, op := crashed(t)
			c.before(b, id)
			got, err := b.backend.Recover(t.Context(), op, backends.NoJournal)
			if err != nil || got.Code != codes.Aborted || got.ID != "" {
				t.Errorf("recovered %+v, %v", got, err)
			}
			if effects := b.trace.effects(); !slices.Equal(effects, c.want) {
				t.Errorf("effects %q, want %q", effects, c.want)
			}
			if _, err := b.backend.Recover(t.Context(), op, backends.NoJournal); err != nil {
				t.Errorf("once more: %v", err)
			}
			if len(b.engine.containers)+len(b.net.attached) != 0 {
				t.Error("something is left")
			}
		})
	}
}

// TestRecoverWithoutStep: before the step there was no ADD, so no DEL is made.
func TestRecoverWithoutStep(t *testing.T) {
	b, id, op := crashed(t)
	op.Steps = nil
	delete(b.net.attached, id)
	if _, err := b.backend.Recover(t.Context(), op, backends.NoJournal); err != nil {
		t.Fatal(err)
	}
	if effects, want := b.trace.effects(), []string{"quiesce", "remove"}; !slices.Equal(effects, want) {
		t.Errorf("effects %q, want %q", effects, want)
	}
}

// TestRecoverFails: while it cannot be undone it is listed, and not ready.
func TestRecoverFails(t *testing.T) {
	for _, fault := range []string{"DEL", "quiesce", "remove"} {
		t.Run(fault, func(t *testing.T) {
			b, id, op := crashed(t)
			b.net.fail[fault], b.engine.before[fault] = errInjected, errInjected
			if _, err := b.backend.Recover(t.Context(), op, backends.NoJournal); err == nil {
				t.Fatal("recovered")
			}
			if got := b.listedPods(t); got[id] != runtimeapi.PodSandboxState_SANDBOX_NOTREADY || len(got) != 1 {
				t.Errorf("list %v", got)
			}
			clear(b.net.fail)
			clear(b.engine.before)
			if _, err := b.backend.Recover(t.Context(), op, backends.NoJournal); err != nil {
				t.Error(err)
			}
			if len(b.engine.containers) != 0 {
				t.Error("container left")
			}
		})
	}
}

func TestRecoverForward(t *testing.T) {
	for _, method := range []string{"StopPodSandbox", "RemovePodSandbox"} {
		t.Run(method, func(t *testing.T) {
			b, id, op := crashed(t)
			op.Op, op.Method, op.SandboxID, op.Steps = "op-2", "/runtime.v1.RuntimeService/"+method, id, nil
			for range 2 {
				if got, err := b.backend.Recover(t.Context(), op, backends.NoJournal); err != nil || got.Code != codes.OK {
					t.Errorf("recovered %+v, %v", got, err)
				}
			}
			if len(b.net.attached) != 0 {
				t.Error("network left")
			}
			if state, ok := b.listedPods(t)[id]; ok != (method == "StopPodSandbox") || state == runtimeapi.PodSandboxState_SANDBOX_READY && ok {
				t.Errorf("listed %v %s", ok, state)
			}
		})
	}
}

func TestRecoverContainer(t *testing.T) {
	b, sandbox, _ := crashed(t)
	create := func(op string) string {
		t.Helper()
		r, err := b.CreateContainer(withJournal(t.Context(), &fakeJournal{op: op}), createRequest(sandbox))
		if err != nil {
			t.Fatal(err)
		}
		return r.ContainerId
	}
	id := create("op-2")
	again := func(method, op string) codes.Code {
		t.Helper()
		got, err := b.backend.Recover(t.Context(), backends.Unfinished{Op: op, Method: "/runtime.v1.RuntimeService/" + method, SandboxID: sandbox, ContainerID: id}, backends.NoJournal)
		if err != nil {
			t.Fatal(err)
		}
		return got.Code
	}
	if code := again("StartContainer", "op-3"); code != codes.Aborted {
		t.Errorf("start that did not happen: %s", code)
	}
	if _, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"StartContainer", "StopContainer", "StartContainer", "RemoveContainer", "RemoveContainer"} {
		if code := again(method, "op-4"); code != codes.OK {
			t.Errorf("%s: %s", method, code)
		}
	}
	if code := again("StartContainer", "op-5"); code != codes.Aborted {
		t.Errorf("start of what is gone: %s", code)
	}
	id = create("op-6")
	if code := again("CreateContainer", "op-6"); code != codes.Aborted {
		t.Errorf("create: %s", code)
	}
	if _, ok := b.engine.containers[id]; ok || len(b.engine.containers) != 1 {
		t.Errorf("containers %v", b.engine.containers)
	}
}
