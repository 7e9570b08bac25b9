package store

import (
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

// SandboxByKey returns the newest READY sandbox of exactly that pod and
// attempt, or nil.
func (s *State) SandboxByKey(key *eventpb.PodKey) *eventpb.Sandbox {
	var newest *eventpb.Sandbox
	for r := range s.SandboxesOfPod(key.GetUid()) {
		if r.GetState() == ready && proto.Equal(r.GetPod(), key) && newerSandbox(r, newest) {
			newest = r
		}
	}
	return newest
}

// ContainerByName returns the newest container of that name and attempt in the
// sandbox, or nil.
func (s *State) ContainerByName(sandboxID, name string, attempt uint32) *eventpb.Container {
	var newest *eventpb.Container
	for r := range s.ContainersIn(sandboxID) {
		if r.GetName() != name || r.GetAttempt() != attempt {
			continue
		}
		if newest == nil || after(r.GetFirstSeq(), r.GetId(), newest.GetFirstSeq(), newest.GetId()) {
			newest = r
		}
	}
	return newest
}

// Epoch returns the migration epoch in force, 0 where no policy was recorded.
func (s *State) Epoch() uint64 { return s.policy.GetEpoch() }

// Decision returns the newest placement of the pod with that UID: the route of
// its newest sandbox, or of a RunPodSandbox that has no outcome yet and began
// after that became known. ok is false where there is none.
func (s *State) Decision(uid string) (route *eventpb.Route, ok bool) {
	var seq uint64
	var id string
	consider := func(r *eventpb.Route, atSeq uint64, atID string) {
		if r != nil && (route == nil || after(atSeq, atID, seq, id)) {
			route, seq, id = r, atSeq, atID
		}
	}
	for r := range s.SandboxesOfPod(uid) {
		consider(r.GetRoute(), r.GetFirstSeq(), r.GetId())
	}
	for o := range s.runsByUID.of(uid) {
		consider(o.GetIntent().GetRoute(), o.GetSeq(), o.GetOp())
	}
	return route, route != nil
}

// Live returns the backend on which anything of the pod with that UID runs or
// is about to: a READY sandbox, a RUNNING container, or a RunPodSandbox
// without an outcome; the newest where there are several.
func (s *State) Live(uid string) (backend string, ok bool) {
	var seq uint64
	var id string
	consider := func(b string, atSeq uint64, atID string) {
		if !ok || after(atSeq, atID, seq, id) {
			backend, ok, seq, id = b, true, atSeq, atID
		}
	}
	for r := range s.SandboxesOfPod(uid) {
		if r.GetState() == ready || s.anyRunning(r.GetId()) {
			consider(r.GetBackend(), r.GetFirstSeq(), r.GetId())
		}
	}
	for o := range s.runsByUID.of(uid) {
		consider(o.GetBackend(), o.GetSeq(), o.GetOp())
	}
	return backend, ok
}

func (s *State) anyRunning(sandboxID string) bool {
	for c := range s.ContainersIn(sandboxID) {
		if c.GetState() == running {
			return true
		}
	}
	return false
}

func newerSandbox(a, b *eventpb.Sandbox) bool {
	return b == nil || after(a.GetFirstSeq(), a.GetId(), b.GetFirstSeq(), b.GetId())
}

// after orders records by sequence number, and those that one event made known
// by id: an answer must not depend on the order of a map.
func after(seqA uint64, idA string, seqB uint64, idB string) bool {
	if seqA != seqB {
		return seqA > seqB
	}
	return idA > idB
}
