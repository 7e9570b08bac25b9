package proxy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// Forget records that the operator gives up pods of a backend that will never
// come back: what is not there any more would be listed for ever, since a list
// never omits what may be. It is refused where the backend is there and has
// them. With dry it only says whether it would be.
func (s *Server) Forget(ctx context.Context, backend string, f *eventpb.Forgotten, dry bool) error {
	if err := s.mayForget(ctx, backend, f); err != nil || dry {
		return err
	}
	var events []*eventpb.Event
	s.log.View(func(st *store.State) { events = ForgetEvents(st, backend, f) })
	if _, err := s.log.Append(events...).Wait(ctx); err != nil {
		return fmt.Errorf("record what is forgotten: %w", err)
	}
	return nil
}

// ForgetEvents are the events that forget: an outcome for each operation that
// is open on what is given up, and the forgetting itself.
func ForgetEvents(st *store.State, backend string, f *eventpb.Forgotten) []*eventpb.Event {
	var events []*eventpb.Event
	for _, op := range operationsOn(st, backend, f) {
		out := aborted("given up with what it was to change")
		out.Recovered = true
		events = append(events, &eventpb.Event{Op: op.GetOp(), Backend: backend, Kind: &eventpb.Event_Outcome{Outcome: out}})
	}
	return append(events, &eventpb.Event{Backend: backend, Kind: &eventpb.Event_Forgotten{Forgotten: f}})
}

// operationsOn are the open operations on what f gives up, oldest first.
func operationsOn(st *store.State, backend string, f *eventpb.Forgotten) []*eventpb.Operation {
	var ops []*eventpb.Operation
	for op := range st.OperationsOf(backend) {
		in := op.GetIntent()
		sandbox := in.GetSandboxId()
		if sandbox == "" {
			sandbox = st.Container(in.GetContainerId()).GetSandboxId()
		}
		if f.GetWhole() || sandbox != "" && slices.Contains(f.GetSandboxIds(), sandbox) {
			ops = append(ops, op)
		}
	}
	slices.SortFunc(ops, func(a, b *eventpb.Operation) int { return int(int64(a.GetSeq()) - int64(b.GetSeq())) })
	return ops
}

// mayForget tells why not.
func (s *Server) mayForget(ctx context.Context, backend string, f *eventpb.Forgotten) error {
	if m := s.set.Get(backend); m != nil {
		if err := missing(ctx, m, f); err != nil {
			return err
		}
	}
	var running *eventpb.Operation
	s.log.View(func(st *store.State) {
		for _, op := range operationsOn(st, backend, f) {
			if op.GetSeq() > s.startSeq {
				running = op
			}
		}
	})
	if running != nil {
		return status.Errorf(codes.FailedPrecondition, "%s on backend %q is under way since %s: try again when it has ended",
			running.GetIntent().GetMethod(), backend, time.Unix(0, running.GetTime()).UTC().Format(time.RFC3339))
	}
	return nil
}

// missing is an error unless the backend is away, or is there and says that it
// has none of the sandboxes.
func missing(ctx context.Context, m *backends.Member, f *eventpb.Forgotten) error {
	switch {
	case m.Check() != nil:
		return nil
	case !m.Health().Up:
		return status.Errorf(codes.FailedPrecondition, "whether backend %q is there is not known yet: try again in a moment", m.Name())
	case f.GetWhole():
		return status.Errorf(codes.FailedPrecondition, "backend %q is available: what it has is removed by deleting its pods, not by forgetting them", m.Name())
	}
	for _, id := range f.GetSandboxIds() {
		found, err := askOne(ctx, m, runtimeapi.RuntimeService_ListPodSandbox_FullMethodName, wire.AppendItem(nil, 1, byID(id)))
		if err != nil {
			return err
		}
		if found != nil {
			return status.Errorf(codes.FailedPrecondition, "backend %q is available and has sandbox %s: delete the pod instead", m.Name(), id)
		}
	}
	return nil
}
