package view_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store/eventpb"
)

// script builds a log.
type script struct {
	events []*eventpb.Event
}

func (s *script) add(op, backend string, kind any) *script {
	e := &eventpb.Event{Seq: uint64(len(s.events) + 1), Time: int64(len(s.events)+1) * 1e9, Op: op, Backend: backend}
	switch k := kind.(type) {
	case *eventpb.Started:
		e.Kind = &eventpb.Event_Started{Started: k}
	case *eventpb.Stopped:
		e.Kind = &eventpb.Event_Stopped{Stopped: k}
	case *eventpb.Intent:
		e.Kind = &eventpb.Event_Intent{Intent: k}
	case *eventpb.Outcome:
		e.Kind = &eventpb.Event_Outcome{Outcome: k}
	case *eventpb.Observed:
		e.Kind = &eventpb.Event_Observed{Observed: k}
	case *eventpb.Health:
		e.Kind = &eventpb.Event_Health{Health: k}
	case *eventpb.Probed:
		e.Kind = &eventpb.Event_Probed{Probed: k}
	case *eventpb.Noticed:
		e.Kind = &eventpb.Event_Noticed{Noticed: k}
	case *eventpb.Policy:
		e.Kind = &eventpb.Event_Policy{Policy: k}
	case *eventpb.Forgotten:
		e.Kind = &eventpb.Event_Forgotten{Forgotten: k}
	}
	s.events = append(s.events, e)
	return s
}

// pod adds the making of a sandbox.
func (s *script) pod(backend, name, uid, id string) *script {
	op := "op-" + id
	return s.
		add(op, backend, &eventpb.Intent{Method: "RunPodSandbox", Pod: &eventpb.PodKey{Namespace: "default", Name: name, Uid: uid}}).
		add(op, backend, &eventpb.Outcome{Id: id})
}

// find returns the uids of the pods that text names.
func find(t *testing.T, events []*eventpb.Event, text string) (string, error) {
	t.Helper()
	finder := view.NewFinder(view.NewSelector(text))
	each(t, events, finder.Add)
	pods, err := finder.Pods()
	var uids []string
	for _, p := range pods {
		uids = append(uids, p.UID)
	}
	return strings.Join(uids, " "), err
}

func TestFind(t *testing.T) {
	log := new(script).
		pod("docker", "web-0", "aaa1", "1111aa").
		pod("docker", "web-0", "aaa2", "2222aa").
		pod("docker", "aaa", "bbb1", "2222bb").
		pod("docker", "crictl", "", "3333aa").
		add("", "docker", &eventpb.Observed{Containers: []*eventpb.Container{{Id: "c0ffee", SandboxId: "2222aa", Name: "app"}}}).
		events
	for text, want := range map[string]string{
		"web-0":           "aaa1 aaa2",
		"default/web-0":   "aaa1 aaa2",
		"aaa1":            "aaa1",
		"aaa":             "bbb1", // a whole name goes before the beginning of uids
		"1111":            "aaa1",
		"2222a":           "aaa2",
		"docker://c0ffee": "aaa2",
		"c0f":             "aaa2",
		"default/crictl":  "",
	} {
		got, err := find(t, log, text)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"other/web-0", "app", "web", "9"} {
		if got, err := find(t, log, text); !errors.Is(err, view.ErrNoPod) {
			t.Errorf("%s: got %q, %v, want ErrNoPod", text, got, err)
		}
	}
	_, err := find(t, log, "2222")
	var ambiguous *view.AmbiguousError
	if !errors.As(err, &ambiguous) || len(ambiguous.Pods) != 2 {
		t.Fatalf("got %v, want two pods", err)
	}
	const want = `"2222" is the beginning of ids of 2 pods; write more of it, or one of these uids:
  aaa2  default/web-0 (last event 9, 1970-01-01T00:00:09Z)
  bbb1  default/aaa (last event 6, 1970-01-01T00:00:06Z)`
	if err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// told returns the lines of the only story that text names: events and results.
func told(t *testing.T, s *script, text string) []string {
	t.Helper()
	all := stories(t, s.events, text)
	if len(all) != 1 {
		t.Fatalf("%d stories, want 1", len(all))
	}
	var lines []string
	for _, l := range all[0].Lines {
		lines = append(lines, l.Event+" "+l.Result)
	}
	return lines
}

func TestStories(t *testing.T) {
	key := &eventpb.PodKey{Namespace: "default", Name: "web", Uid: "u"}
	exited := func(code int32, reason string) *eventpb.Container {
		return &eventpb.Container{Id: "cc", SandboxId: "aa", Name: "app", State: eventpb.ContainerState_CONTAINER_STATE_EXITED, ExitCode: code, Reason: reason}
	}
	for name, tt := range map[string]struct {
		log  *script
		want []string
	}{
		"a backend's absence concerns the pods on it": {
			new(script).
				add("", "docker", &eventpb.Health{Up: true}).
				pod("docker", "web", "u", "aa").
				add("", "containerd", &eventpb.Health{Error: "gone"}).
				add("", "docker", &eventpb.Health{Error: "gone"}).
				add("", "docker", &eventpb.Health{Error: "still gone"}).
				add("", "docker", &eventpb.Health{Up: true}).
				add("", "docker", &eventpb.Health{Up: true}),
			[]string{"RunPodSandbox OK: sandbox aa", "Health backend down: gone", "Health backend up"},
		},
		"a restart in order does not, a crash does": {
			new(script).
				add("", "", &eventpb.Started{Version: "1", BootId: "b"}).
				pod("docker", "web", "u", "aa").
				add("", "", &eventpb.Stopped{}).
				add("", "", &eventpb.Started{Version: "1", BootId: "b"}).
				add("", "", &eventpb.Started{Version: "2", BootId: "b", Pid: 7}),
			[]string{"RunPodSandbox OK: sandbox aa", "Started crimux 2, pid 7; the daemon was killed before this"},
		},
		"nor does a crash after the pod's end": {
			new(script).
				add("", "", &eventpb.Started{Version: "1", BootId: "b"}).
				pod("docker", "web", "u", "aa").
				add("rm", "docker", &eventpb.Intent{Method: "RemovePodSandbox", SandboxId: "aa", Pod: key}).
				add("rm", "docker", &eventpb.Outcome{}).
				add("", "", &eventpb.Started{Version: "1", BootId: "b"}),
			[]string{"RunPodSandbox OK: sandbox aa", "RemovePodSandbox OK: sandbox aa"},
		},
		"a probe is recorded after its container is gone": {
			new(script).
				pod("docker", "web", "u", "aa").
				add("", "docker", &eventpb.Observed{Containers: []*eventpb.Container{exited(0, "Completed")}, Cause: "lookup"}).
				add("", "docker", &eventpb.Observed{GoneContainers: []string{"cc"}, Cause: "poll"}).
				add("", "docker", &eventpb.Probed{ContainerId: "cc", Count: 2, Code: 4}),
			[]string{
				"RunPodSandbox OK: sandbox aa",
				"Observed container app EXITED, found, exit 0 (Completed), seen on lookup",
				"Observed container app is gone, seen on poll",
				"ExecSync 2 × DeadlineExceeded: container cc",
			},
		},
		"lines of a log were lost": {
			new(script).
				pod("docker", "web", "u", "aa").
				add("", "docker", &eventpb.Observed{Containers: []*eventpb.Container{exited(0, "Completed")}, Cause: "lookup"}).
				add("", "docker", &eventpb.Noticed{Name: "log.gap", ContainerId: "cc", Message: "lost", Count: 3}),
			[]string{
				"RunPodSandbox OK: sandbox aa",
				"Observed container app EXITED, found, exit 0 (Completed), seen on lookup",
				"Noticed log.gap: lost (3 times): container app",
			},
		},
		"the backend was given up": {
			new(script).
				pod("docker", "web", "u", "aa").
				pod("docker", "other", "v", "bb").
				add("", "docker", &eventpb.Health{Error: "gone"}).
				add("", "docker", &eventpb.Forgotten{Whole: true, SandboxIds: []string{"aa", "bb"}}),
			[]string{
				"RunPodSandbox OK: sandbox aa",
				"Health backend down: gone",
				"Forgotten given up by the operator: sandbox aa",
			},
		},
		"recovery finds what is left": {
			new(script).
				add("run", "docker", &eventpb.Intent{Method: "RunPodSandbox", Pod: key}).
				add("run", "docker", &eventpb.Outcome{Code: 10, Message: "half done", Recovered: true, Sandbox: &eventpb.Sandbox{Id: "aa"}}),
			[]string{"RunPodSandbox cut short", "RunPodSandbox recovered: Aborted: half done; sandbox aa is left of it"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := told(t, tt.log, "web")
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// TestExitsAreCountedOnce: how a container ended is known once, though it is
// found anew, and one that never began has not ended.
func TestExitsAreCountedOnce(t *testing.T) {
	for name, want := range map[string]int{
		"given up, and there again":                                        1,
		"a command that there is not, seen after the answer and before it": 0,
		"out of memory twice":                                              2,
		"an error once, and a stop that is none":                           1,
	} {
		found := false
		for _, x := range explained {
			if x.name != name {
				continue
			}
			found = true
			if got := stories(t, x.log.events, "u")[0].Exits; got != want {
				t.Errorf("%s: %d exits, want %d", name, got, want)
			}
		}
		if !found {
			t.Errorf("there is no story %q", name)
		}
	}
}
