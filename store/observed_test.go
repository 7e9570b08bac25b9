package store

import (
	"strings"
	"testing"

	"github.com/crimux/crimux/store/eventpb"
)

func TestFoldObserved(t *testing.T) {
	tests := []struct {
		name   string
		events []*eventpb.Event
		want   string
	}{
		{"a pod that crimux did not make", []*eventpb.Event{
			sees([]*eventpb.Sandbox{{Id: "sb", State: ready, Pod: pod("u"), CreatedAt: 5, Route: &eventpb.Route{Handler: "runc"}}},
				&eventpb.Container{Id: "c", SandboxId: "sb", Name: "web", State: running, StartedAt: 6}),
		}, "sandbox sb on docker READY pod=u created=5 handler=runc first=1 last=1\n" +
			"container c in sb on docker RUNNING name=web started=6 first=1 last=1"},
		{"nothing at all", []*eventpb.Event{sees([]*eventpb.Sandbox{{}}, &eventpb.Container{})}, ""},
		{"what was known is kept", aPod(sees([]*eventpb.Sandbox{{Id: "sb", State: notReady, Route: &eventpb.Route{Handler: "runc"}}},
			&eventpb.Container{Id: "c", State: running, StartedAt: 55, ImageRef: "sha"})),
			strings.NewReplacer("READY", "NOTREADY", "last=2", "last=7").Replace(sandboxLine) +
				"container c in sb on docker RUNNING name=web image=img ref=sha created=40 started=55" + containerTail + " last=7"},
		{"no state keeps the state", aPod(sees([]*eventpb.Sandbox{{Id: "sb", Labels: map[string]string{"x": "y"}}}, &eventpb.Container{Id: "c"})),
			strings.NewReplacer("app:u,tier:x", "x:y", "last=2", "last=7").Replace(sandboxLine) +
				"container c in sb on docker RUNNING name=web image=img created=40 started=60" + containerTail + " last=7"},
		{"an observation before the outcome", []*eventpb.Event{
			run("o1", "docker", "u"),
			sees([]*eventpb.Sandbox{{Id: "sb", State: notReady, Pod: pod("u"), CreatedAt: 5}}),
			done("o1", "sb"),
		}, "sandbox sb on docker NOTREADY pod=u created=5 labels=app:u,tier:x rule=routes[0] handler=h logs=/var/log/pods/u op=o1 first=2 last=3"},
		{"the same answer to a second operation", append(aPod()[:2], run("o7", "docker", "u"), done("o7", "sb")),
			strings.Replace(sandboxLine, "last=2", "last=4", 1)},
		{"gone", aPod(ev("", "docker", &eventpb.Observed{GoneContainers: []string{"c", "nobody"}})), sandboxLine},
		{"a sandbox gone takes its containers along", aPod(ev("", "docker", &eventpb.Observed{GoneSandboxes: []string{"sb", "nobody"}})), ""},
		{"a container that changes its sandbox and backend", aPod(
			sees(nil, &eventpb.Container{Id: "c", SandboxId: "other", Backend: "cri"}),
			ev("", "docker", &eventpb.Observed{GoneSandboxes: []string{"sb"}})),
			"container c in other on cri RUNNING name=web image=img created=40 started=60" + containerTail + " last=7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := fold(t, tt.events...)
			if got := dump(s); got != strings.TrimSpace(tt.want) {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			checkIndexes(t, s)
		})
	}
}

// What is seen of a container may be older than what is known.
func TestContainerLife(t *testing.T) {
	c := func(state eventpb.ContainerState, startedAt, finishedAt int64, code int32) *eventpb.Event {
		return sees(nil, &eventpb.Container{Id: "c", State: state, StartedAt: startedAt, FinishedAt: finishedAt, ExitCode: code})
	}
	tests := []struct {
		name   string
		events []*eventpb.Event
		want   string // after "container c in sb on docker "
	}{
		{"exit", []*eventpb.Event{c(exited, 55, 70, 137)}, "EXITED started=55 finished=70 code=137"},
		{"exit without times", []*eventpb.Event{c(exited, 0, 0, 1)}, "EXITED started=60 code=1"},
		{"exit after a stop", []*eventpb.Event{on("o4", methodStopContainer, "sb", "c"), done("o4", ""), c(exited, 0, 75, 143)},
			"EXITED started=60 finished=75 code=143"},
		{"a poll from before the exit", []*eventpb.Event{c(exited, 55, 70, 1), c(running, 55, 0, 0)}, "EXITED started=55 finished=70 code=1"},
		{"a poll from before the stop", []*eventpb.Event{on("o4", methodStopContainer, "sb", "c"), done("o4", ""), c(running, 55, 0, 0)},
			"EXITED started=60 finished=80"},
		{"a poll from before the start", []*eventpb.Event{c(created, 0, 0, 0)}, "RUNNING started=60"},
		{"started anew", []*eventpb.Event{c(exited, 55, 70, 1), c(running, 90, 0, 0)}, "RUNNING started=90"},
		{"not known", []*eventpb.Event{c(unknown, 0, 0, 0)}, "UNKNOWN started=60"},
		{"not known any more after the exit", []*eventpb.Event{c(exited, 55, 70, 1), c(unknown, 0, 0, 0), c(running, 55, 0, 0)},
			"EXITED started=55 finished=70 code=1"},
		{"not known, and a poll from before the start", []*eventpb.Event{c(unknown, 0, 0, 0), c(created, 0, 0, 0)}, "UNKNOWN started=60"},
		{"found again", []*eventpb.Event{c(unknown, 0, 0, 0), c(running, 60, 0, 0)}, "RUNNING started=60"},
		{"stopped when not known", []*eventpb.Event{c(unknown, 0, 0, 0), on("o4", methodStopContainer, "sb", "c"), done("o4", "")}, "EXITED started=60"},
		{"a start whose container exits before the outcome", []*eventpb.Event{
			on("o4", methodStartContainer, "sb", "c"), c(exited, 72, 74, 3), done("o4", "")}, "EXITED started=72 finished=74 code=3"},
		{"a start whose container runs before the outcome", []*eventpb.Event{
			on("o4", methodStartContainer, "sb", "c"), c(running, 72, 0, 0), done("o4", "")}, "RUNNING started=72"},
		{"a second start", []*eventpb.Event{c(exited, 55, 65, 3), on("o4", methodStartContainer, "sb", "c"), done("o4", "")}, "RUNNING started=90"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := dump(fold(t, aPod(tt.events...)...))
			got = strings.TrimPrefix(got, strings.TrimSpace(sandboxLine)+"\ncontainer c in sb on docker ")
			got = strings.Replace(got, "name=web image=img created=40 ", "", 1)
			got, _, _ = strings.Cut(got, " labels=")
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
