package docker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Pauses between attempts to connect to an Engine that is away.
const (
	reconnectFirst = 200 * time.Millisecond
	reconnectMax   = 5 * time.Second
)

// Run implements [backends.Runner]: it serves exec, attach and port-forward,
// copies container logs and measures the disk, until ctx is done.
func (b *Backend) Run(ctx context.Context) error {
	b.ran.Store(true)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := b.srv.streams.Run(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("backend %s: streaming server: %w", b.name, err)
		}
		return nil
	})
	group.Go(func() error {
		if b.srv.api.await(ctx) {
			b.srv.watchLogs(ctx)
		}
		return nil
	})
	group.Go(func() error {
		if b.srv.api.await(ctx) {
			b.srv.measureUsage(ctx)
		}
		return nil
	})
	return group.Wait()
}

// watchLogs keeps the logs of containers in step with the Engine, connecting
// again whenever it was away.
func (s *server) watchLogs(ctx context.Context) {
	pause := reconnectFirst
	for ctx.Err() == nil {
		began := time.Now()
		// Why the Engine is away is told by Probe and Status, over and over.
		_ = s.watchLogsOnce(ctx)
		if time.Since(began) > reconnectMax {
			pause = reconnectFirst
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(2*pause, reconnectMax)
		}
	}
}

// watchLogsOnce takes on all containers there are and follows the Engine's
// events until they end.
func (s *server) watchLogsOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	// Whatever takes its time must not keep the events waiting: the Engine
	// drops them silently for a slow reader.
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	if _, err := s.engine.Ping(ctx); err != nil {
		return err
	}
	// From before the list, so that nothing falls between the two.
	since := time.Now().Add(-time.Second)
	messages, failed := s.engine.Events(ctx, events.ListOptions{
		Since: strconv.FormatInt(since.Unix(), 10),
		Filters: filters.NewArgs(
			filters.Arg("type", string(events.ContainerEventType)),
			filters.Arg("event", string(events.ActionDie)), filters.Arg("event", string(events.ActionDestroy)), filters.Arg("event", string(events.ActionOOM)),
			filters.Arg("label", labelType+"="+typeContainer)),
	})
	// The Engine is another one, maybe: read its facts anew.
	s.facts.Store(nil)
	resumed := make(chan error, 1)
	busy.Go(func() { resumed <- s.resumeLogs(ctx) })
	for {
		select {
		case m := <-messages:
			switch m.Action {
			case events.ActionDie:
				busy.Go(func() { s.noteLog(m.Actor.ID, s.logs.ended(ctx, m.Actor.ID)) })
			case events.ActionDestroy:
				s.logs.forget(m.Actor.ID)
				s.memory.forget(m.Actor.ID)
			case events.ActionOOM:
				s.memory.note(m.Actor.ID)
			}
		case err := <-resumed:
			if err != nil {
				return err
			}
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// resumeLogs takes on the logs of all containers: of those that run, and of
// those that ended while nobody was looking.
func (s *server) resumeLogs(ctx context.Context) error {
	all, err := s.list(ctx, typeContainer)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.op == "" || c.logPath == "" || s.logs.get(c.ID).complete {
			continue
		}
		f, err := s.inspect(ctx, typeContainer, c.ID)
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return err
		}
		// One log that cannot be copied must not keep the others from it.
		s.noteLog(c.ID, s.logs.follow(ctx, f))
	}
	return nil
}

// noteLog tells of a log that could not be taken on. There is no caller to
// tell; the container's next status tries again.
func (s *server) noteLog(id string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.log.Warn("container log cannot be taken on", "container", id, "error", err)
	}
}
