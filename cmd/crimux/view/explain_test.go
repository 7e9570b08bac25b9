package view_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store/eventpb"
)

const (
	run     = eventpb.ContainerState_CONTAINER_STATE_RUNNING
	exited  = eventpb.ContainerState_CONTAINER_STATE_EXITED
	isReady = eventpb.SandboxState_SANDBOX_STATE_READY

	notReady = eventpb.SandboxState_SANDBOX_STATE_NOTREADY
)

// routed adds the making of a sandbox that a rule decided.
func (s *script) routed(backend, handler, rule string, attempt uint32, id string) *script {
	op := "op-" + id
	return s.
		add(op, backend, &eventpb.Intent{
			Method: "RunPodSandbox", Pod: &eventpb.PodKey{Namespace: "default", Name: "web", Uid: "u", Attempt: attempt},
			Route: &eventpb.Route{Handler: handler, Backend: backend, Rule: rule, Epoch: 2},
		}).
		add(op, backend, &eventpb.Outcome{Id: id})
}

// container adds the making and the start of a container.
func (s *script) container(backend, sandbox, name string, attempt uint32, id string) *script {
	return s.
		done("create-"+id, backend, &eventpb.Intent{Method: "CreateContainer", SandboxId: sandbox, ContainerName: name, ContainerAttempt: attempt}, &eventpb.Outcome{Id: id}).
		done("start-"+id, backend, &eventpb.Intent{Method: "StartContainer", SandboxId: sandbox, ContainerId: id}, &eventpb.Outcome{})
}

// done adds an operation.
func (s *script) done(op, backend string, i *eventpb.Intent, o *eventpb.Outcome) *script {
	return s.add(op, backend, i).add(op, backend, o)
}

// ended adds that a container was seen to have ended.
func (s *script) ended(backend, id string, code int32, reason string) *script {
	return s.add("", backend, &eventpb.Observed{Cause: "poll", Containers: []*eventpb.Container{{
		Id: id, Backend: backend, State: exited, ExitCode: code, Reason: reason,
	}}})
}

// sandbox adds that a sandbox was seen in a state.
func (s *script) sandbox(backend, id string, state eventpb.SandboxState) *script {
	return s.add("", backend, &eventpb.Observed{Cause: "event", Sandboxes: []*eventpb.Sandbox{{Id: id, Backend: backend, State: state}}})
}

func migration(percent uint32) *eventpb.Policy {
	return &eventpb.Policy{DefaultBackend: "docker", MigrationTo: "containerd", MigrationPercent: percent, Epoch: 2}
}

// explained are the stories whose explanations testdata/explain.txt has.
var explained = []struct {
	name string
	log  *script
}{
	{"route by its handler", new(script).routed("containerd", "runc", "handler runc", 0, "aa")},
	{"the default", new(script).routed("docker", "", "default", 0, "aa")},
	{"not yet migrated", new(script).add("", "", migration(10)).routed("docker", "", "default: bucket 71 ≥ 10%", 0, "aa")},
	{"migrated, and made anew", new(script).
		add("", "", migration(10)).routed("docker", "", "default: bucket 71 ≥ 10%", 0, "aa").
		done("s", "docker", &eventpb.Intent{Method: "StopPodSandbox", SandboxId: "aa"}, &eventpb.Outcome{}).
		add("", "", migration(100)).routed("containerd", "", "migration to containerd: bucket 71 < 100%", 1, "bb").
		routed("containerd", "", "default: decided before", 2, "cc")},
	{"kept where it runs", new(script).routed("docker", "", "default", 0, "aa").routed("docker", "", "default: uid runs on docker", 1, "bb")},
	{"out of memory twice", new(script).routed("docker", "", "default", 0, "aa").
		container("docker", "aa", "app", 0, "c0").ended("docker", "c0", 137, "OOMKilled").
		container("docker", "aa", "app", 1, "c1").ended("docker", "c1", 137, "OOMKilled").
		container("docker", "aa", "app", 2, "c2")},
	{"an error once, and a stop that is none", new(script).routed("docker", "", "default", 0, "aa").
		container("docker", "aa", "app", 0, "c0").ended("docker", "c0", 1, "Error").
		container("docker", "aa", "app", 1, "c1").
		add("stop", "docker", &eventpb.Intent{Method: "StopContainer", SandboxId: "aa", ContainerId: "c1", Grace: 30}).
		ended("docker", "c1", 143, "Error").
		add("stop", "docker", &eventpb.Outcome{})},
	{"no image, then there", new(script).routed("docker", "", "default", 0, "aa").
		done("p1", "docker", &eventpb.Intent{Method: "PullImage", Pod: &eventpb.PodKey{Uid: "u"}, Image: "app:1"}, &eventpb.Outcome{Code: 5, Message: "app:1: not found."}).
		done("p2", "docker", &eventpb.Intent{Method: "PullImage", Pod: &eventpb.PodKey{Uid: "u"}, Image: "app:1"}, &eventpb.Outcome{Code: 5, Message: "app:1: not found."}).
		done("p3", "docker", &eventpb.Intent{Method: "PullImage", Pod: &eventpb.PodKey{Uid: "u"}, Image: "app:1"}, &eventpb.Outcome{})},
	{"never made", new(script).
		done("r", "docker", &eventpb.Intent{
			Method: "RunPodSandbox", Pod: &eventpb.PodKey{Namespace: "default", Name: "web", Uid: "u"},
			Route: &eventpb.Route{Backend: "docker", Rule: "default"},
		}, &eventpb.Outcome{Code: 13, Message: "set up the network: no CNI configuration"})},
	{"a crash in the middle", new(script).
		add("", "", &eventpb.Started{BootId: "b1"}).routed("docker", "", "default", 0, "aa").
		add("create-c0", "docker", &eventpb.Intent{Method: "CreateContainer", SandboxId: "aa", ContainerName: "app"}).
		add("", "", &eventpb.Started{BootId: "b1"}).
		add("create-c0", "docker", &eventpb.Outcome{Code: 10, Message: "interrupted by a crash; nothing is left of it", Recovered: true})},
	{"a reboot", new(script).add("", "", &eventpb.Started{BootId: "b1"}).routed("docker", "", "default", 0, "aa").
		add("", "", &eventpb.Stopped{Reason: "shutdown"}).add("", "", &eventpb.Started{BootId: "b2"})},
	{"an outage that is over and one that is not", new(script).routed("docker", "", "default", 0, "aa").
		add("", "docker", &eventpb.Health{Error: "no answer for 10s"}).add("", "docker", &eventpb.Health{Up: true}).
		add("", "docker", &eventpb.Health{Error: "connection refused"})},
	{"adopted", new(script).add("", "docker", &eventpb.Observed{Cause: "start", Sandboxes: []*eventpb.Sandbox{{
		Id: "aa", Backend: "docker", State: isReady, Pod: &eventpb.PodKey{Namespace: "default", Name: "web", Uid: "u"},
	}}, Containers: []*eventpb.Container{{Id: "c0", SandboxId: "aa", Backend: "docker", Name: "app", State: run}}})},
	{"forgotten", new(script).routed("docker", "", "default", 0, "aa").
		add("", "docker", &eventpb.Health{Error: "connection refused"}).
		add("", "docker", &eventpb.Forgotten{SandboxIds: []string{"aa"}})},
	{"lost lines of a log", new(script).routed("docker", "", "default", 0, "aa").container("docker", "aa", "app", 0, "c0").
		add("", "docker", &eventpb.Noticed{Name: "log.gap", ContainerId: "c0", Message: "the Engine's rotation outran the copy", Count: 3})},
	{"failing probes", new(script).routed("docker", "", "default", 0, "aa").container("docker", "aa", "app", 0, "c0").
		add("", "docker", &eventpb.Probed{ContainerId: "c0", Count: 12}).
		add("", "docker", &eventpb.Probed{ContainerId: "c0", Count: 3, ExitCode: 1})},
	{"removed", new(script).routed("docker", "", "default", 0, "aa").
		done("s", "docker", &eventpb.Intent{Method: "StopPodSandbox", SandboxId: "aa"}, &eventpb.Outcome{}).
		done("r", "docker", &eventpb.Intent{Method: "RemovePodSandbox", SandboxId: "aa"}, &eventpb.Outcome{})},
	{"gone by itself", new(script).routed("docker", "", "default", 0, "aa").
		add("", "docker", &eventpb.Observed{Cause: "poll", GoneSandboxes: []string{"aa"}})},
	{"stopped", new(script).routed("docker", "", "default", 0, "aa").container("docker", "aa", "app", 0, "c0").
		done("s", "docker", &eventpb.Intent{Method: "StopPodSandbox", SandboxId: "aa"}, &eventpb.Outcome{})},
	{"ended with its engine, and its container with it", new(script).routed("docker", "", "default", 0, "aa").
		container("docker", "aa", "app", 0, "c0").sandbox("docker", "aa", notReady).ended("docker", "c0", 137, "Error")},
	{"given up, and there again", new(script).routed("docker", "", "default", 0, "aa").container("docker", "aa", "app", 0, "c0").
		ended("docker", "c0", 1, "Error").
		add("", "docker", &eventpb.Health{Error: "connection refused"}).
		add("", "docker", &eventpb.Forgotten{SandboxIds: []string{"aa"}}).
		add("", "docker", &eventpb.Health{Up: true}).
		add("", "docker", &eventpb.Observed{Cause: "reconnect", Sandboxes: []*eventpb.Sandbox{{
			Id: "aa", Backend: "docker", State: isReady, Pod: &eventpb.PodKey{Namespace: "default", Name: "web", Uid: "u"},
		}}, Containers: []*eventpb.Container{{Id: "c0", SandboxId: "aa", Backend: "docker", Name: "app", State: exited, ExitCode: 1, Reason: "Error"}}})},
	{"a command that there is not, seen after the answer and before it", new(script).routed("docker", "", "default", 0, "aa").
		add("create-c0", "docker", &eventpb.Intent{Method: "CreateContainer", SandboxId: "aa", ContainerName: "app"}).
		add("create-c0", "docker", &eventpb.Outcome{Id: "c0"}).
		add("start-c0", "docker", &eventpb.Intent{Method: "StartContainer", SandboxId: "aa", ContainerId: "c0"}).
		add("start-c0", "docker", &eventpb.Outcome{Code: 3, Message: "no such file"}).ended("docker", "c0", 127, "ContainerCannotRun").
		add("create-c1", "docker", &eventpb.Intent{Method: "CreateContainer", SandboxId: "aa", ContainerName: "app", ContainerAttempt: 1}).
		add("create-c1", "docker", &eventpb.Outcome{Id: "c1"}).
		add("start-c1", "docker", &eventpb.Intent{Method: "StartContainer", SandboxId: "aa", ContainerId: "c1"}).ended("docker", "c1", 127, "ContainerCannotRun").
		add("start-c1", "docker", &eventpb.Outcome{Code: 3, Message: "no such file"})},
	{"killed from outside, once and for good", new(script).routed("docker", "", "default", 0, "aa").
		container("docker", "aa", "app", 0, "c0").ended("docker", "c0", 143, "Error")},
	{"a backend that comes and goes, and a daemon that is killed all the time", new(script).
		add("", "", &eventpb.Started{BootId: "b1"}).routed("docker", "", "default", 0, "aa").
		add("", "docker", &eventpb.Health{Error: "refused"}).add("", "docker", &eventpb.Health{Up: true}).
		add("", "", &eventpb.Started{BootId: "b1"}).
		add("", "docker", &eventpb.Health{Error: "refused"}).add("", "docker", &eventpb.Health{Up: true}).
		add("", "", &eventpb.Started{BootId: "b1"}).add("", "", &eventpb.Started{BootId: "b1"}).
		add("", "docker", &eventpb.Health{Error: "no answer for 10s"}).add("", "docker", &eventpb.Health{Up: true}).
		add("", "docker", &eventpb.Health{})},
	{"one failing probe", new(script).routed("docker", "", "default", 0, "aa").container("docker", "aa", "app", 0, "c0").
		add("", "docker", &eventpb.Probed{ContainerId: "c0", Count: 1, ExitCode: 1})},
	{"a crash in the middle, and the second try", new(script).
		add("", "", &eventpb.Started{BootId: "b1"}).
		add("cut", "docker", &eventpb.Intent{Method: "RunPodSandbox", Pod: &eventpb.PodKey{Namespace: "default", Name: "web", Uid: "u"}}).
		add("", "", &eventpb.Started{BootId: "b1"}).
		add("cut", "docker", &eventpb.Outcome{Code: 10, Message: "undone after a crash: ask again", Recovered: true}).
		routed("docker", "", "default", 0, "aa")},
	{"under way", new(script).routed("docker", "", "default", 0, "aa").
		add("x", "docker", &eventpb.Intent{Method: "CreateContainer", SandboxId: "aa", ContainerName: "app"})},
}

// TestExplain compares what is said with testdata/explain.txt, 5 minutes after
// the log's beginning.
func TestExplain(t *testing.T) {
	var all bytes.Buffer
	for _, x := range explained {
		fmt.Fprintf(&all, "# %s\n", x.name)
		for _, s := range stories(t, x.log.events, "u") {
			for _, sentence := range view.Explain(s, time.Unix(300, 0)) {
				fmt.Fprintln(&all, sentence)
				if strings.Contains(sentence, "\n") || !strings.HasSuffix(sentence, ".") || strings.HasSuffix(sentence, "..") {
					t.Errorf("%s: not a sentence: %q", x.name, sentence)
				}
			}
		}
		fmt.Fprintln(&all)
	}
	golden(t, "explain.txt", all.Bytes())
}

// known is the part of the state that decisions look at.
type known struct {
	live, decided string
	epoch         uint64
}

func (k known) Epoch() uint64 { return k.epoch }

func (k known) Live(string) (string, bool) { return k.live, k.live != "" }

func (k known) Decision(string) (policy.Decision, bool) {
	return policy.Decision{Backend: k.decided, Epoch: k.epoch}, k.decided != ""
}

// TestEveryRuleIsExplained has the policy decide in every way that it can: its
// words must be understood here.
func TestEveryRuleIsExplained(t *testing.T) {
	cfg, err := policy.Parse("test", []byte(`apiVersion: crimux.dev/v1
kind: Config
backends: {docker: {type: docker}, containerd: {type: cri, endpoint: "unix:///c.sock"}}
routes: [{handler: runc, backend: containerd}]
default: docker
`))
	if err != nil {
		t.Fatal(err)
	}
	moving := *cfg
	moving.Migration = policy.Migration{To: "containerd", Percent: 50}
	low, high := "", ""
	for i := 0; low == "" || high == ""; i++ {
		if uid := fmt.Sprint(i); policy.Bucket(uid) < 50 {
			low = uid
		} else {
			high = uid
		}
	}
	for name, x := range map[string]struct {
		pod  policy.Pod
		view known
		cfg  *policy.Config
		want string
	}{
		"handler":   {policy.Pod{UID: "u", Handler: "runc"}, known{}, cfg, "its RuntimeClass asks for handler runc"},
		"default":   {policy.Pod{UID: "u"}, known{}, cfg, "it asks for no RuntimeClass"},
		"migration": {policy.Pod{UID: low}, known{}, &moving, "is below that"},
		"bucket":    {policy.Pod{UID: high}, known{}, &moving, "is not below that"},
		"before":    {policy.Pod{UID: low}, known{decided: "docker"}, &moving, "a pod is decided once"},
		"runs":      {policy.Pod{UID: low}, known{live: "docker"}, &moving, "something of it still ran on docker"},
	} {
		r, err := policy.Decide(x.pod, x.view, x.cfg)
		if err != nil {
			t.Fatal(err)
		}
		log := new(script).add("", "", migration(50)).routed(r.Backend, r.Handler, r.Rule, 0, "aa")
		said := strings.Join(view.Explain(stories(t, log.events, "u")[0], time.Unix(300, 0)), "\n")
		if !strings.Contains(said, x.want) {
			t.Errorf("%s: %q is not in %q", name, x.want, said)
		}
		if strings.Contains(r.Rule, "bucket") && !strings.Contains(said, fmt.Sprintf("place in it, %d,", policy.Bucket(x.pod.UID))) {
			t.Errorf("%s: the place in the migration is not in %q", name, said)
		}
	}
}
