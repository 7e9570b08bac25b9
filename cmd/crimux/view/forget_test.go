package view_test

import (
	"testing"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// TestForgottenIsTold in the list of events, to people and to programs.
func TestForgottenIsTold(t *testing.T) {
	log := new(script).pod("docker", "web", "u", "aa").pod("docker", "other", "v", "bb").
		add("", "docker", &eventpb.Forgotten{Whole: true, SandboxIds: []string{"aa", "bb"}}).
		add("", "docker", &eventpb.Forgotten{SandboxIds: []string{"aa"}}).events
	before := store.NewState()
	for i, e := range log {
		if i == len(log)-2 {
			break
		}
		if err := before.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{
		"docker 2 pods Forgotten given up by the operator: the backend and 2 sandboxes",
		"docker default/web Forgotten given up by the operator: 1 sandbox",
	} {
		e := log[len(log)-2+i]
		r := new(view.Rows).Row(before, e, view.Selector{})
		if got := r.Backend + " " + r.Pod + " " + r.Event + " " + r.Detail; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		rec, err := view.NewRecord(before, e)
		if err != nil || rec.Kind != "forgotten" || rec.Backend != "docker" || len(rec.Detail) < 10 {
			t.Errorf("got %+v, %v", rec, err)
		}
	}
}
