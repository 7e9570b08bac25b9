package proxy

import (
	"context"
	"errors"
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

// recoverTimeout bounds the recovery of one operation.
const recoverTimeout = 2 * time.Minute

// recover closes every operation that an earlier run left open on a backend:
// it is finished or undone, by the backend itself where it can, and otherwise
// by looking at what the backend has. An error means that some are still owed.
func (s *Server) recover(ctx context.Context, m *backends.Member) error {
	var errs []error
	for _, op := range s.leftOpen(m.Name()) {
		if err := s.recoverOne(ctx, m, op); err != nil {
			errs = append(errs, fmt.Errorf("%s (operation %s): %w", op.GetIntent().GetMethod(), op.GetOp(), err))
		}
	}
	return errors.Join(errs...)
}

// leftOpen returns the open operations of earlier runs, oldest first.
func (s *Server) leftOpen(backend string) []*eventpb.Operation {
	var ops []*eventpb.Operation
	s.log.View(func(st *store.State) {
		for op := range st.OperationsOf(backend) {
			if op.GetSeq() <= s.startSeq {
				ops = append(ops, op)
			}
		}
	})
	slices.SortFunc(ops, func(a, b *eventpb.Operation) int { return int(int64(a.GetSeq()) - int64(b.GetSeq())) })
	return ops
}

func (s *Server) recoverOne(ctx context.Context, m *backends.Member, op *eventpb.Operation) error {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	began := time.Now()
	out, err := s.recovered(ctx, m, op)
	if err != nil {
		return err
	}
	out.Recovered, out.Duration = true, int64(time.Since(began))
	e := &eventpb.Event{Op: op.GetOp(), Backend: m.Name(), Kind: &eventpb.Event_Outcome{Outcome: out}}
	if _, err := s.log.Append(e).Wait(ctx); err != nil {
		return fmt.Errorf("record its outcome: %w", err)
	}
	s.logger.Info("operation recovered", "method", op.GetIntent().GetMethod(), "backend", m.Name(),
		"op", op.GetOp(), "code", codes.Code(out.Code).String())
	return nil
}

// recovered finds out or decides how op ended.
func (s *Server) recovered(ctx context.Context, m *backends.Member, op *eventpb.Operation) (*eventpb.Outcome, error) {
	r, ok := m.Backend.(backends.Recoverer)
	if !ok {
		return s.lookedAt(ctx, m, op)
	}
	j := &journal{log: s.log, op: op.GetOp(), backend: m.Name()}
	rec, err := r.Recover(ctx, unfinished(op), j)
	if err != nil {
		return nil, err
	}
	return &eventpb.Outcome{Code: uint32(rec.Code), Message: rec.Message, Id: rec.ID}, nil
}

func unfinished(op *eventpb.Operation) backends.Unfinished {
	u := backends.Unfinished{
		Op: op.GetOp(), Method: op.GetIntent().GetMethod(), Since: time.Unix(0, op.GetTime()),
		SandboxID: op.GetIntent().GetSandboxId(), ContainerID: op.GetIntent().GetContainerId(),
	}
	for _, st := range op.GetSteps() {
		u.Steps = append(u.Steps, backends.Step{Name: st.GetName(), ID: st.GetId(), Data: st.GetData()})
	}
	return u
}

// lookedAt is recovery on a remote runtime, which has a recovery of its own:
// what it now has is how the operation ended. A sandbox or container that the
// operation made becomes its result, so that the identical retry gets it.
func (s *Server) lookedAt(ctx context.Context, m *backends.Member, op *eventpb.Operation) (*eventpb.Outcome, error) {
	in := op.GetIntent()
	switch in.GetMethod() {
	case "RunPodSandbox":
		return s.lookForSandbox(ctx, m, in)
	case "CreateContainer":
		return s.lookForContainer(ctx, m, in)
	}
	// What came of the others shows in the lists, which observe compares.
	return aborted("interrupted by a crash; what came of it is observed"), nil
}

func aborted(msg string) *eventpb.Outcome {
	return &eventpb.Outcome{Code: uint32(codes.Aborted), Message: msg}
}

const nothingFound = "interrupted by a crash; the backend has nothing of it"

func (s *Server) lookForSandbox(ctx context.Context, m *backends.Member, in *eventpb.Intent) (*eventpb.Outcome, error) {
	list, err := read(ctx, m, runtimeapi.RuntimeService_ListPodSandbox_FullMethodName, backends.NewFrame(nil))
	if err != nil {
		return nil, err
	}
	out := aborted(nothingFound)
	wire.Message(list.Body.Bytes()).Each(1, func(item wire.Message) bool {
		sb := s.sandboxRecord(m.Name(), item)
		if podID(sb.GetPod()) != podID(in.GetPod()) {
			return true
		}
		out = &eventpb.Outcome{Code: uint32(codes.OK), Id: sb.GetId()}
		if sb.GetState() != eventpb.SandboxState_SANDBOX_STATE_READY {
			out = aborted("interrupted by a crash; what the backend has of it is not ready")
			out.Sandbox = sb
			return true
		}
		return false
	})
	return out, nil
}

func (s *Server) lookForContainer(ctx context.Context, m *backends.Member, in *eventpb.Intent) (*eventpb.Outcome, error) {
	filter := wire.AppendItem(nil, 1, wire.AppendItem(nil, 3, []byte(in.GetSandboxId())))
	list, err := read(ctx, m, runtimeapi.RuntimeService_ListContainers_FullMethodName, backends.NewFrame(filter))
	if status.Code(err) == codes.NotFound {
		return aborted(nothingFound), nil
	}
	if err != nil {
		return nil, err
	}
	out := aborted(nothingFound)
	wire.Message(list.Body.Bytes()).Each(1, func(item wire.Message) bool {
		ctr := s.containerRecord(m.Name(), item)
		if ctr.GetName() != in.GetContainerName() || ctr.GetAttempt() != in.GetContainerAttempt() {
			return true
		}
		out = &eventpb.Outcome{Code: uint32(codes.OK), Id: ctr.GetId()}
		return false
	})
	return out, nil
}
