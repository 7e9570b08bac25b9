package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// checkBackends refuses a configuration without a backend that the log knows
// sandboxes on, which would vanish from the lists while they run, or
// operations that are not finished, whose remains nobody would clean up.
func (s *Server) checkBackends() error {
	var err error
	s.log.View(func(st *store.State) {
		var names []string
		for sb := range st.Sandboxes() {
			if s.set.Get(sb.GetBackend()) == nil && !slices.Contains(names, sb.GetBackend()) {
				names = append(names, sb.GetBackend())
			}
		}
		for op := range st.Operations() {
			if b := op.GetBackend(); b != "" && s.set.Get(b) == nil && !slices.Contains(names, b) {
				names = append(names, b)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			err = errors.Join(err, lacking(st, name))
		}
	})
	return err
}

// lacking says what a backend that the configuration lacks still has.
func lacking(st *store.State, name string) error {
	n, one := stillThere(st, name)
	has := "operations that were never finished"
	if n > 0 {
		has = fmt.Sprintf("%d pod sandboxes, such as %s of %s/%s", n, one.GetId(), one.GetPod().GetNamespace(), one.GetPod().GetName())
	}
	return fmt.Errorf("the configuration lacks backend %q, which still has %s: put it back and remove what it has, "+
		"or if it will never come back, run: crimux forget %s", name, has, name)
}

// recordStart records this run, and the policy where it has changed.
func (s *Server) recordStart() error {
	boot, err := store.BootID()
	if err != nil {
		return err
	}
	events := []*eventpb.Event{{Kind: &eventpb.Event_Started{Started: &eventpb.Started{
		Version: s.version, Pid: int32(os.Getpid()), BootId: boot,
	}}}}
	var last *eventpb.Policy
	s.log.View(func(st *store.State) { last = st.Policy() })
	if p := s.policyEvent(last); p != nil {
		events = append(events, &eventpb.Event{Kind: &eventpb.Event_Policy{Policy: p}})
	}
	_, err = s.log.Append(events...).Wait(context.Background())
	return err
}

// policyEvent returns the configuration's policy as an event of a new epoch,
// nil where it is the one in force.
func (s *Server) policyEvent(last *eventpb.Policy) *eventpb.Policy {
	m := s.config.Migration
	p := &eventpb.Policy{
		DefaultBackend:          s.config.Default,
		MigrationTo:             m.To,
		MigrationBackendHandler: m.BackendHandler,
		MigrationPercent:        uint32(m.Percent),
		Epoch:                   last.GetEpoch() + 1,
		Source:                  "config",
	}
	if last != nil &&
		last.GetDefaultBackend() == p.DefaultBackend &&
		last.GetMigrationTo() == p.MigrationTo &&
		last.GetMigrationBackendHandler() == p.MigrationBackendHandler &&
		last.GetMigrationPercent() == p.MigrationPercent {
		return nil
	}
	return p
}

// recordStop records that this run ended in order.
func (s *Server) recordStop() {
	s.log.Append(&eventpb.Event{Kind: &eventpb.Event_Stopped{Stopped: &eventpb.Stopped{Reason: "shutdown"}}})
}

// healthChanged records that a backend came or went.
func (s *Server) healthChanged(m *backends.Member, h backends.Health) {
	e := &eventpb.Health{Up: h.Up}
	if h.Err != nil {
		e.Error = valid(status.Convert(h.Err).Message())
	}
	s.log.Append(&eventpb.Event{Backend: m.Name(), Kind: &eventpb.Event_Health{Health: e}})
	if h.Up {
		s.logger.Info("backend is available", "backend", m.Name())
	} else {
		s.logger.Warn("backend is not available", "backend", m.Name(), "error", e.Error)
	}
	s.lanes[m.Name()].wake()
}
