package store

import (
	"testing"

	"github.com/crimux/crimux/store/eventpb"
)

// TestForgotten: what was given up is gone, and nothing else.
func TestForgotten(t *testing.T) {
	forgets := func(backend string, f *eventpb.Forgotten) *eventpb.Event {
		return &eventpb.Event{Backend: backend, Kind: &eventpb.Event_Forgotten{Forgotten: f}}
	}
	// Two pods on docker, a container that has no sandbox, and one elsewhere.
	before := func() []*eventpb.Event {
		return aPod(
			run("o5", "docker", "v"), done("o5", "sb2"),
			sees(nil, &eventpb.Container{Id: "lost", State: running}),
			run("o6", "containerd", "w"), done("o6", "sb3"),
			ev("", "docker", &eventpb.Health{Error: "gone"}), ev("", "containerd", &eventpb.Health{Up: true}))
	}
	for _, row := range []struct {
		name                  string
		event                 *eventpb.Event
		sandboxes, containers []string
		backends              []string
	}{
		{"one pod", forgets("docker", &eventpb.Forgotten{SandboxIds: []string{"sb"}}), []string{"sb2", "sb3"}, []string{"lost"}, []string{"docker", "containerd"}},
		{"a backend", forgets("docker", &eventpb.Forgotten{Whole: true, SandboxIds: []string{"sb", "sb2"}}), []string{"sb3"}, nil, []string{"containerd"}},
		{"a backend, without saying what of it", forgets("docker", &eventpb.Forgotten{Whole: true}), []string{"sb3"}, nil, []string{"containerd"}},
		{"what is another backend's", forgets("docker", &eventpb.Forgotten{SandboxIds: []string{"sb3"}}), []string{"sb", "sb2", "sb3"}, []string{"c", "lost"}, []string{"docker", "containerd"}},
		{"what there is not", forgets("docker", &eventpb.Forgotten{SandboxIds: []string{"none"}}), []string{"sb", "sb2", "sb3"}, []string{"c", "lost"}, []string{"docker", "containerd"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := fold(t, append(before(), row.event)...)
			same := func(what string, n int, want []string, has func(string) bool) {
				for _, id := range want {
					if !has(id) {
						t.Errorf("%s %s is gone", what, id)
					}
				}
				if n != len(want) {
					t.Errorf("there are %d of %s, want %v", n, what, want)
				}
			}
			same("sandbox", len(s.sandboxes), row.sandboxes, func(id string) bool { return s.Sandbox(id) != nil })
			same("container", len(s.containers), row.containers, func(id string) bool { return s.Container(id) != nil })
			same("backend", len(s.backends), row.backends, func(id string) bool { return s.Backend(id) != nil })
			// The indexes follow: the fold of its own snapshot is the same.
			sameState(t, "rebuilt", s, rebuildState(t, stateBytes(t, s)))
		})
	}
}
