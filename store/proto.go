package store

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

// meet takes up a snapshot that is found after the last event in the state.
func (s *State) meet(e *eventpb.Event, snap *eventpb.Snapshot) error {
	m := snap.GetState()
	if e.GetSeq() != s.seq || m.GetSeq() != s.seq {
		return fmt.Errorf("snapshot %d: %w: the state is at event %d", e.GetSeq(), ErrRefused, s.seq)
	}
	if !s.partial {
		if snap.GetFold() != foldVersion {
			return nil // another release's; the events are here
		}
		have, err := marshalState(s.Proto())
		if err != nil {
			return err
		}
		if want, err := marshalState(m); err != nil || !bytes.Equal(have, want) {
			return fmt.Errorf("snapshot %d: %w: it is not what the events up to it amount to", e.GetSeq(), ErrRefused)
		}
		return nil
	}
	n, err := FromProto(m)
	if err != nil {
		return fmt.Errorf("snapshot %d: %w", e.GetSeq(), err)
	}
	*s = *n
	return nil
}

func marshalState(m *eventpb.State) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Proto returns the state as a message: the same state always gives the same
// message, and with deterministic marshalling the same bytes. The message
// shares its records with the state: they must not be changed.
func (s *State) Proto() *eventpb.State {
	return &eventpb.State{
		Seq:        s.seq,
		BootId:     s.bootID,
		Policy:     s.policy,
		Sandboxes:  sorted(s.sandboxes, (*eventpb.Sandbox).GetId),
		Containers: sorted(s.containers, (*eventpb.Container).GetId),
		Operations: sorted(s.operations, (*eventpb.Operation).GetOp),
		Backends:   sorted(s.backends, (*eventpb.Backend).GetName),
	}
}

func sorted[T any](m map[string]T, id func(T) string) []T {
	if len(m) == 0 {
		return nil
	}
	recs := make([]T, 0, len(m))
	for _, r := range m {
		recs = append(recs, r)
	}
	slices.SortFunc(recs, func(a, b T) int { return cmp.Compare(id(a), id(b)) })
	return recs
}

// FromProto returns the state that [State.Proto] turned into m. It keeps the
// records of m, which must not be changed afterwards. A message that names an
// object twice, or none, is ErrDamaged.
func FromProto(m *eventpb.State) (*State, error) {
	s := NewState()
	s.seq, s.bootID, s.policy = m.GetSeq(), m.GetBootId(), m.GetPolicy()
	if err := fill(m.GetSandboxes(), s.sandboxes, (*eventpb.Sandbox).GetId, s.putSandbox); err != nil {
		return nil, err
	}
	if err := fill(m.GetContainers(), s.containers, (*eventpb.Container).GetId, s.putContainer); err != nil {
		return nil, err
	}
	if err := fill(m.GetOperations(), s.operations, (*eventpb.Operation).GetOp, s.putOperation); err != nil {
		return nil, err
	}
	put := func(r *eventpb.Backend) { s.backends[r.GetName()] = r }
	if err := fill(m.GetBackends(), s.backends, (*eventpb.Backend).GetName, put); err != nil {
		return nil, err
	}
	return s, nil
}

func fill[T any](recs []T, known map[string]T, id func(T) string, put func(T)) error {
	for _, r := range recs {
		k := id(r)
		if _, twice := known[k]; twice || k == "" {
			return fmt.Errorf("state: %w: the id %q of a %T is empty or not unique", ErrDamaged, k, r)
		}
		put(r)
	}
	return nil
}
