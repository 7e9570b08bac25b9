package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// probing makes outages short.
const probing = "health: {probeInterval: 500ms, downAfter: 1500ms}\n"

// onLayouts runs a test with a containerd of dockerd's own; with dockerd on the
// containerd that serves the CRI, where both are away together; and with a
// containerd that tells of its containers' events, which 1.6 does not.
func onLayouts(t *testing.T, test func(t *testing.T, l *lab.Lab, both bool)) {
	t.Run("own containerd", func(t *testing.T) { test(t, shared, false) })
	for _, layout := range []lab.Options{{Layout: lab.SharedContainerd}, {Containerd: lab.V2}} {
		t.Run(fmt.Sprintf("%s containerd, %s", layout.Layout, layout.Containerd), func(t *testing.T) {
			layout.Log = os.Stderr
			l, err := lab.Start(t.Context(), layout)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Stop(); err != nil {
					t.Error(err)
				}
			})
			test(t, l, layout.Layout == lab.SharedContainerd)
		})
	}
}

// outage is a node over a lab, with a pod on each engine and an open stream of
// events, as a kubelet has.
type outage struct {
	t      *testing.T
	l      *lab.Lab
	n      *node.Node
	d, c   *node.Pod
	events chan string
}

func newOutage(t *testing.T, l *lab.Lab) *outage {
	o := &outage{t: t, l: l, n: startOn(t, l, node.Options{Extra: probing}), events: make(chan string, 1000)}
	o.d, o.c = o.run("docker"), o.run("containerd")
	o.watch()
	return o
}

func (o *outage) run(handler string) *node.Pod {
	o.t.Helper()
	return o.pod("on-"+handler, handler)
}

// pod runs a pod that ends at once when it is told to, as dockerd does with
// what it finds at its start.
func (o *outage) pod(name, handler string) *node.Pod {
	o.t.Helper()
	p, err := o.n.RunPod(o.t.Context(), handler, node.PodConfig(name, logs(o.t)),
		node.ContainerConfig("main", o.l.Image("busybox"), "sh", "-c", "trap exit TERM; sleep 1000000 & wait"))
	if err != nil {
		o.t.Fatal(err)
	}
	return p
}

// watch opens a stream of events; its end is an event, too.
func (o *outage) watch() {
	o.t.Helper()
	st, err := o.n.GetContainerEvents(o.t.Context(), &runtimeapi.GetEventsRequest{})
	if err == nil {
		_, err = st.Header()
	}
	if err != nil {
		o.t.Fatal(err)
	}
	go func() {
		for {
			e, err := st.Recv()
			if err != nil {
				o.events <- "end: " + err.Error()
				return
			}
			kind := strings.TrimSuffix(strings.TrimPrefix(e.ContainerEventType.String(), "CONTAINER_"), "_EVENT")
			o.events <- fmt.Sprintf("%s %s of %s", kind, e.ContainerId, e.GetPodSandboxStatus().GetMetadata().GetUid())
		}
	}()
}

// told waits for an event.
func (o *outage) told(want string) {
	o.t.Helper()
	o.toldOf(want, func(e string) bool { return e == want })
}

// toldOf waits for an event that is right.
func (o *outage) toldOf(want string, right func(e string) bool) {
	o.t.Helper()
	var got []string
	timeout := time.After(25 * time.Second)
	for {
		select {
		case e := <-o.events:
			if got = append(got, e); right(e) {
				return
			}
			if strings.HasPrefix(e, "end") {
				o.t.Fatalf("the stream of events has ended: %s", e)
			}
		case <-timeout:
			o.t.Fatalf("no event %q, only %q", want, got)
		}
	}
}

// lists are what the kubelet is shown: the state of all by id.
func (o *outage) lists() map[string]string {
	o.t.Helper()
	got := make(map[string]string)
	for id, state := range sandboxes(o.t, o.n) {
		got[id] = state.String()
	}
	list, err := o.n.ListContainers(o.t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil {
		o.t.Fatal(err)
	}
	for _, c := range list.Containers {
		got[c.Id] = c.State.String()
	}
	return got
}

// same checks that the lists are as before.
func (o *outage) same(when string, want map[string]string) {
	o.t.Helper()
	if got := o.lists(); !maps.Equal(got, want) {
		o.t.Errorf("%s the lists are %v, and were %v", when, got, want)
	}
}

// away waits until calls about a pod fail at once, with its backend's name.
func (o *outage) away(backend string, p *node.Pod) {
	o.t.Helper()
	eventually(o.t, "a call for "+backend+" fails at once", func() error {
		ctx, cancel := context.WithTimeout(o.t.Context(), 4*time.Second)
		defer cancel()
		_, err := o.n.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: p.Container})
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), fmt.Sprintf("%q", backend)) {
			return fmt.Errorf("got %w", errors.Join(err, errors.New("want Unavailable")))
		}
		return nil
	})
}

// pid is a container's process.
func (o *outage) pid(p *node.Pod) int {
	o.t.Helper()
	if p == o.d {
		c, err := o.l.Docker().ContainerInspect(o.t.Context(), p.Container)
		if err != nil {
			o.t.Fatal(err)
		}
		return c.State.Pid
	}
	st, err := o.l.CRI().ContainerStatus(o.t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: p.Container, Verbose: true})
	if err != nil {
		o.t.Fatal(err)
	}
	var info struct{ PID int }
	if err := json.Unmarshal([]byte(st.Info["info"]), &info); err != nil || info.PID == 0 {
		o.t.Fatalf("no pid in %v: %v", st.Info, err)
	}
	return info.PID
}

// seen waits until an exit that happened behind an outage is listed, told and
// recorded, and reports how long it took from the engine's return.
func (o *outage) seen(what string, p *node.Pod, back time.Time) {
	o.t.Helper()
	eventually(o.t, what+" is listed", func() error {
		if got := o.lists()[p.Container]; got != runtimeapi.ContainerState_CONTAINER_EXITED.String() {
			return &notYet{got}
		}
		return nil
	})
	o.t.Logf("%s is listed %s after its engine was back", what, time.Since(back).Round(10*time.Millisecond))
	o.told(fmt.Sprintf("STOPPED %s of %s", p.Container, p.Config.Metadata.Uid))
	eventually(o.t, what+" is in the timeline", func() error {
		out, err := o.n.Run(o.t.Context(), "timeline", p.Config.Metadata.Name)
		// The code is what the runtime found out; containerd 2 does not.
		if err == nil && !strings.Contains(out, "RUNNING → EXITED, exit ") {
			return &notYet{out}
		}
		return err
	})
}

func (o *outage) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// TestOutages: the lists stay whole while engines are away, and what happened
// meanwhile is listed, told and recorded when they are back.
func TestOutages(t *testing.T) {
	onLayouts(t, func(t *testing.T, l *lab.Lab, both bool) {
		o := newOutage(t, l)
		o.freeze(both)
		o.crash(both)
		o.absent()
	})
}

// freeze has nothing refused and nothing answered: by dockerd, or by the
// containerd that both stand on.
func (o *outage) freeze(both bool) {
	o.t.Helper()
	ctx := o.t.Context()
	pause, resume, backend, asked := o.l.PauseDocker, o.l.ResumeDocker, "docker", o.d
	hung := []*node.Pod{o.d}
	if both {
		pause, resume, backend, asked = o.l.PauseContainerd, o.l.ResumeContainerd, "containerd", o.c
		hung = append(hung, o.c)
	}
	before := o.lists()
	pid := o.pid(o.d)
	o.must(pause(ctx))
	frozen := true
	defer func() {
		if frozen {
			o.must(resume(context.WithoutCancel(ctx)))
		}
	}()
	probed := o.probe(hung...)
	o.must(syscall.Kill(pid, syscall.SIGKILL))
	o.away(backend, asked)
	o.same("while an engine is frozen", before)
	if !both {
		p := o.pod("meanwhile", "containerd")
		o.told(fmt.Sprintf("STARTED %s of %s", p.Container, p.Config.Metadata.Uid))
	}
	probed()
	frozen = false
	o.must(resume(ctx))
	o.seen("an exit behind a frozen engine", o.d, time.Now())
}

// probe begins an exec probe of each pod on engines that hang. To the kubelet
// it must not look as if a container did not answer: it would kill it.
func (o *outage) probe(pods ...*node.Pod) (ended func()) {
	o.t.Helper()
	var probes sync.WaitGroup
	for _, p := range pods {
		probes.Go(func() {
			ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
			defer cancel()
			_, err := o.n.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: p.Container, Cmd: []string{"true"}, Timeout: 1})
			if status.Code(err) != codes.Unavailable {
				o.t.Errorf("a probe of %s on a frozen engine: %v", p.Config.Metadata.Name, err)
			}
		})
	}
	return probes.Wait
}

// crash has containerd die and come back; dockerd, where it stands on the same,
// is lame meanwhile.
func (o *outage) crash(both bool) {
	o.t.Helper()
	ctx := o.t.Context()
	before := o.lists()
	pid := o.pid(o.c)
	o.must(o.l.KillContainerd(ctx))
	o.same("right after containerd died", before)
	o.must(syscall.Kill(pid, syscall.SIGKILL))
	o.away("containerd", o.c)
	o.same("while containerd is away", before)
	if !both {
		o.pod("later", "docker")
	}
	o.must(o.l.StartContainerd(ctx))
	o.seen("an exit behind a dead containerd", o.c, time.Now())
}

// absent has both engines away when the daemon starts: it serves what it
// knows, says what is missing, and goes on by itself.
func (o *outage) absent() {
	o.t.Helper()
	ctx := o.t.Context()
	before := o.lists()
	o.must(o.n.Kill())
	o.must(o.l.KillDocker(ctx))
	o.must(o.l.KillContainerd(ctx))
	o.must(o.n.Start(ctx))
	o.same("with both engines away", before)
	r, err := o.n.Status(ctx, &runtimeapi.StatusRequest{})
	o.must(err)
	conditions := make(map[string]bool)
	for _, c := range r.Status.Conditions {
		conditions[c.Type] = c.Status
	}
	if want := (map[string]bool{"RuntimeReady": false, "NetworkReady": false, "Backend/docker": false, "Backend/containerd": false}); !maps.Equal(conditions, want) {
		o.t.Errorf("with both engines away the conditions are %v", conditions)
	}
	o.must(o.l.StartContainerd(ctx))
	o.must(o.l.StartDocker(ctx))
	o.must(o.n.WaitBackends(ctx))
	eventually(o.t, "both answer for their pods", func() error {
		_, err := o.n.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: o.c.Sandbox})
		_, derr := o.n.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: o.d.Sandbox})
		return errors.Join(err, derr)
	})
}

// TestForget: an engine that is gone for good can be forgotten and dropped.
func TestForget(t *testing.T) {
	o := newOutage(t, shared)
	ctx := t.Context()
	_, err := o.n.Run(ctx, "forget", "docker", "--yes")
	if err == nil || !strings.Contains(err.Error(), "available") {
		t.Errorf("forgetting an engine that is there: %v", err)
	}
	o.must(shared.StopDocker(ctx))
	started := false
	defer func() {
		if !started {
			o.must(shared.StartDocker(context.WithoutCancel(ctx)))
		}
	}()
	o.away("docker", o.d)

	// Without the engine in the configuration the daemon does not start, and
	// says what to do.
	o.must(o.n.Stop())
	with, err := os.ReadFile(o.n.ConfigFile)
	o.must(err)
	o.must(os.WriteFile(o.n.ConfigFile, withoutDocker(with), 0o600))
	if _, err := o.n.Run(ctx, "serve"); err == nil || !strings.Contains(err.Error(), "crimux forget docker") {
		t.Fatalf("a configuration that drops an engine with a pod: %v", err)
	}
	if _, err := o.n.Run(ctx, "forget", "docker"); err == nil || !strings.Contains(err.Error(), "not confirmed") {
		t.Errorf("without confirmation: %v", err)
	}
	out, err := o.n.Run(ctx, "forget", "docker", "--yes")
	if err != nil || !strings.Contains(out, o.d.Sandbox[:12]) || strings.Contains(out, o.c.Sandbox[:12]) {
		t.Errorf("forgetting on the file: %v\n%s", err, out)
	}
	o.must(o.n.Start(ctx))
	if got := sandboxes(t, o.n); len(got) != 1 || got[o.c.Sandbox] != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("after that the list is %v", got)
	}
	out, err = o.n.Run(ctx, "timeline", "on-docker")
	if err != nil || !strings.Contains(out, "given up by the operator") {
		t.Errorf("the timeline: %v\n%s", err, out)
	}

	// It comes back all the same, and so does its pod.
	o.must(o.n.Stop())
	o.must(os.WriteFile(o.n.ConfigFile, with, 0o600))
	o.must(o.n.Start(ctx))
	o.must(shared.StartDocker(ctx))
	started = true
	eventually(t, "what was forgotten is listed again", func() error {
		if got := sandboxes(t, o.n); len(got) != 2 {
			return &notYet{got}
		}
		return nil
	})
}

// withoutDocker takes the engine out of a node's configuration.
func withoutDocker(config []byte) []byte {
	var out [][]byte
	skip := false
	for _, line := range bytes.Split(config, []byte("\n")) {
		text := string(line)
		switch {
		case strings.HasPrefix(text, "  docker:"):
			skip = true
			continue
		case !strings.HasPrefix(text, "    "):
			skip = false
		}
		if skip || strings.Contains(text, "backend: docker}") {
			continue
		}
		out = append(out, []byte(strings.Replace(text, "default: docker", "default: containerd", 1)))
	}
	return bytes.Join(out, []byte("\n"))
}
