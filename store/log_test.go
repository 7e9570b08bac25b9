package store

import (
	"path/filepath"
	"testing"

	"github.com/crimux/crimux/store/eventpb"
)

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", FileName)
	l, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	op := NewOp()
	p := l.Append(&eventpb.Event{Op: op, Backend: "docker", Kind: &eventpb.Event_Intent{Intent: &eventpb.Intent{
		Method: methodRunPodSandbox, Pod: &eventpb.PodKey{Namespace: "ns", Name: "p", Uid: "u"}, Route: &eventpb.Route{Backend: "docker"}}}})
	q := l.Append(&eventpb.Event{Op: op, Backend: "docker", Kind: &eventpb.Event_Outcome{Outcome: &eventpb.Outcome{Id: "sb1"}}})
	if seq, err := p.Wait(t.Context()); err != nil || seq != 1 {
		t.Fatal(seq, err)
	}
	if seq, err := q.Wait(t.Context()); err != nil || seq != 2 {
		t.Fatal(seq, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rep, err := Verify(r)
	if err != nil || !rep.Sound() || rep.Count != 2 {
		t.Fatal(rep, err)
	}
	s, err := r.State()
	if err != nil || s.Sandbox("sb1").GetPod().GetUid() != "u" {
		t.Fatal(s.Proto(), err)
	}
}
