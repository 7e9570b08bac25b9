package docker

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// Pauses between attempts to connect to an Engine that is away. A read
	// does not wait for the next one: it asks for it.
	reconnectFirst = 100 * time.Millisecond
	reconnectMax   = time.Second
	// syncBound bounds one attempt, syncWidth how many inspections it makes
	// at once.
	syncBound = 2 * time.Minute
	syncWidth = 4
	// auditEvery lies between two comparisons with the Engine's list: it drops
	// events silently for a slow reader, and replays only the last few.
	auditEvery = 30 * time.Second
	auditBound = 20 * time.Second
)

// feedActions are the events after which a container is another.
var feedActions = []events.Action{
	events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionOOM, events.ActionDestroy,
	events.ActionPause, events.ActionUnPause, events.ActionRename, events.ActionUpdate,
}

// keepFed keeps the cache equal to the Engine until ctx is done, connecting
// again whenever the Engine was away.
func (s *server) keepFed(ctx context.Context) {
	pause := reconnectFirst
	for ctx.Err() == nil {
		began := time.Now()
		f := newFeed(s)
		err := f.run(ctx)
		if f.whole && time.Since(began) > reconnectMax {
			pause = reconnectFirst
		}
		s.cache.attempted(err)
		select {
		case <-ctx.Done():
		case <-s.cache.feed.kick:
		case <-time.After(pause):
			pause = min(2*pause, reconnectMax)
		}
	}
}

// feed is one connection to the Engine's events.
type feed struct {
	*server
	// whole is set once everything was read.
	whole bool

	mu    sync.Mutex
	dirty map[string]bool // to be looked at
	wake  chan struct{}
	// untidy has a token when there is something to tidy.
	untidy chan struct{}
}

func newFeed(s *server) *feed {
	return &feed{server: s, dirty: map[string]bool{}, wake: make(chan struct{}, 1), untidy: make(chan struct{}, 1)}
}

// run subscribes, reads everything there is, and follows the events until they
// end. Events are taken at once, whatever else goes on: the Engine drops them
// for a slow reader.
func (f *feed) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	// The Engine is another one, maybe: settle the version and read its facts
	// anew.
	if err := f.api.again(ctx); err != nil {
		return f.fail(err, "connect")
	}
	f.facts.Store(nil)
	messages, failed := f.subscribe(ctx)
	synced, looked := make(chan error), make(chan error)
	var syncing bool
	var losses int
	read := func() {
		syncing, losses = true, f.cache.losses()
		busy.Go(func() { send(ctx, synced, f.sync(ctx)) })
	}
	read()
	busy.Go(func() { send(ctx, looked, f.look(ctx)) })
	busy.Go(func() { f.keepTidy(ctx) })
	busy.Go(func() { f.keepStarts(ctx) })
	busy.Go(func() { (&endWatch{server: f.server}).run(ctx) })
	audit := time.NewTicker(auditEvery)
	defer audit.Stop()
	for {
		select {
		case m := <-messages:
			f.take(ctx, &busy, m)
		case err := <-failed:
			return status.Errorf(codes.Unavailable, "events of the docker engine: %v", cmp.Or(err, errStreamEnded))
		case err := <-synced:
			if err != nil {
				return err
			}
			// Whoever reads from now on misses no event.
			f.events.begin()
			if !f.cache.synced(losses) {
				read()
				continue
			}
			f.whole, syncing = true, false
			poke(f.late.wake)
			busy.Go(func() { f.resumeLogs(ctx) })
		case err := <-looked:
			return err
		case <-f.cache.feed.kick:
			if !syncing && !f.cache.whole() {
				read()
			}
		case <-audit.C:
			busy.Go(func() { f.audit(ctx) })
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errStreamEnded stands for an end of the events without a reason.
var errStreamEnded = errors.New("the stream has ended")

// send tells how something has ended, if somebody still listens.
func send(ctx context.Context, to chan<- error, err error) {
	select {
	case to <- err:
	case <-ctx.Done():
	}
}

// subscribe asks for the pods' events, from a moment ago: the Engine answers
// before it has subscribed us.
func (f *feed) subscribe(ctx context.Context) (<-chan events.Message, <-chan error) {
	args := filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)), filters.Arg("label", labelType))
	for _, a := range feedActions {
		args.Add("event", string(a))
	}
	since := strconv.FormatInt(time.Now().Add(-time.Second).Unix(), 10)
	return f.engine.Events(ctx, events.ListOptions{Since: since, Filters: args})
}

// take deals with one event. It must not wait.
func (f *feed) take(ctx context.Context, busy *sync.WaitGroup, m events.Message) {
	id := m.Actor.ID
	switch m.Action {
	case events.ActionDestroy:
		f.forget(id)
		return
	case events.ActionOOM:
		f.memory.note(id)
	case events.ActionDie:
		if m.Actor.Attributes[labelType] == typeContainer {
			busy.Go(func() { f.noteLog(id, f.logs.ended(ctx, id)) })
		}
	}
	f.mark(id)
}

// mark has a container looked at.
func (f *feed) mark(id string) {
	f.mu.Lock()
	f.dirty[id] = true
	f.mu.Unlock()
	poke(f.wake)
}

// poke leaves a token in a channel that holds one.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// look looks at what was marked until ctx is done or the Engine does not
// answer. What is marked while it is looked at is looked at again.
func (f *feed) look(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.wake:
		}
		f.mu.Lock()
		ids := f.dirty
		f.dirty = map[string]bool{}
		f.mu.Unlock()
		if err := f.lookAt(ctx, ids); err != nil {
			return err
		}
	}
}

// lookAt looks at some containers. One that came late of an undone creation
// must not wait for the audit: it would be in the way of the next attempt.
func (f *feed) lookAt(ctx context.Context, ids map[string]bool) error {
	ctx, cancel := context.WithTimeout(ctx, syncBound)
	defer cancel()
	if err := f.refreshAll(ctx, maps.Keys(ids)); err != nil {
		return err
	}
	for id := range ids {
		if f.late.has(id) {
			poke(f.late.wake)
		}
		if c := f.cache.peek(id); c != nil && f.leftover(c) {
			poke(f.untidy)
		}
	}
	return nil
}

// keepTidy removes leftovers until ctx is done. It takes as long as the Engine
// and the network plugins do, for which no look may wait.
func (f *feed) keepTidy(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.untidy:
			bounded, cancel := context.WithTimeout(ctx, undoBound)
			f.tidy(bounded)
			cancel()
		}
	}
}

// sync makes the cache equal to the Engine, from whatever it was.
func (s *server) sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syncBound)
	defer cancel()
	states, asked, err := s.engineStates(ctx)
	if err != nil {
		return err
	}
	s.cache.back(states, asked)
	if err := s.refreshAll(ctx, maps.Keys(states)); err != nil {
		return err
	}
	for _, id := range s.cache.missing(states, asked) {
		s.forget(id)
	}
	return nil
}

// refreshAll inspects containers, a few at a time.
func (s *server) refreshAll(ctx context.Context, ids iter.Seq[string]) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(syncWidth)
	for id := range ids {
		group.Go(func() error { return safely(func() error { return s.refresh(ctx, id) }) })
	}
	return group.Wait()
}

// engineStates lists the pods' containers with their states in the Engine's
// words.
func (s *server) engineStates(ctx context.Context) (states map[string]container.ContainerState, asked time.Time, err error) {
	asked = time.Now()
	all, err := s.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelType))})
	if err != nil {
		return nil, asked, s.fail(err, "list containers")
	}
	states = make(map[string]container.ContainerState, len(all))
	for _, c := range all {
		if _, ok := decodeSummary(c); ok {
			states[c.ID] = c.State
		}
	}
	return states, asked, nil
}

// audit looks for differences that no event has told of, and has them looked
// at. An Engine that does not answer will end the events too.
func (f *feed) audit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, auditBound)
	defer cancel()
	states, asked, err := f.engineStates(ctx)
	if err != nil {
		return
	}
	f.cache.back(states, asked)
	for id, state := range states {
		if known := f.cache.peek(id); known == nil || known.State.Status != state && known.asked.Before(asked) {
			f.mark(id)
		}
	}
	for _, id := range f.cache.missing(states, asked) {
		f.mark(id)
	}
	poke(f.untidy)
}

// refresh takes in what the Engine has of an id now. That there is nothing,
// or nothing of ours, is as good.
func (s *server) refresh(ctx context.Context, id string) error {
	_, err := s.inspect(ctx, "", id)
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return err
}

// settled is refresh after a change of our own: a read that follows must see
// it. Where the Engine does not answer, the cache is not equal to it any
// more, and reads wait until it is.
func (s *server) settled(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditBound)
	defer cancel()
	if err := s.refresh(ctx, id); err != nil {
		s.cache.lost()
	}
}

// forget lets go of all that is kept of a container that is gone.
func (s *server) forget(id string) {
	s.cache.drop(id)
	s.logs.forget(id)
	s.memory.forget(id)
	s.pointed.forget(id)
	s.late.forget(id)
}

// resumeLogs takes on the logs of all containers: of those that run, and of
// those that ended while nobody was looking.
func (s *server) resumeLogs(ctx context.Context) {
	for _, f := range s.cache.all(typeContainer) {
		if ctx.Err() != nil {
			return
		}
		if s.logs.get(f.ID).complete {
			continue
		}
		// One log that cannot be copied must not keep the others from it.
		s.noteLog(f.ID, s.logs.follow(f))
	}
}

// noteLog tells of a log that could not be taken on. There is no caller to
// tell; the container's next status tries again.
func (s *server) noteLog(id string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.log.Warn("container log cannot be taken on", "container", id, "error", err)
	}
}
