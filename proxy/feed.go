package proxy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
)

const (
	// listenAgain is the first pause before a backend's event stream that has
	// ended is opened again; it doubles up to listenMax. listenLacking is the
	// pause after one said that it has none: a runtime may be upgraded.
	listenAgain   = 100 * time.Millisecond
	listenMax     = 5 * time.Second
	listenLacking = 30 * time.Second
	// listenSettle is how long a stream must have been open to be relied on: a
	// runtime that has no events says so within that, and one that has them
	// has taken note of the listener.
	listenSettle = 250 * time.Millisecond
)

// feed is how the containers' events of one backend come in: over its own
// stream of events, which also wakes its watcher, and where there is none, or
// it was interrupted, from what the watcher's looks show to have changed. So
// every change is told, whatever the backend can do.
type feed struct {
	s    *Server
	m    *backends.Member
	lane *lane

	mu sync.Mutex
	// since is when the backend's stream became reliable; zero while it is
	// not.
	since time.Time
	// looked is when the last look began that was taken in.
	looked time.Time
	// fresh is set until the first look at a backend that the log does not
	// know: what it has had all along is no event.
	fresh bool
	// told are the sandboxes and containers that there are, as far as they
	// have been told of.
	told map[string]told
}

// newFeed returns the feed of a backend. It begins with what the log knows, so
// that what happened while crimux was away is told.
func newFeed(s *Server, m *backends.Member) *feed {
	f := &feed{s: s, m: m, lane: s.lanes[m.Name()], told: make(map[string]told)}
	s.log.View(func(st *store.State) {
		f.fresh = st.Backend(m.Name()) == nil
		for sb := range st.SandboxesOf(m.Name()) {
			if isRehearsal(sb.GetLabels()) {
				continue
			}
			// A record can always be encoded: its strings are UTF-8.
			item, _ := proto.Marshal(sandboxAnswer(sb))
			f.told[sb.GetId()] = told{phase: sandboxPhase(item), sandbox: sb.GetId(), item: item}
		}
		for ctr := range st.ContainersOf(m.Name()) {
			if isRehearsal(ctr.GetLabels()) {
				continue
			}
			item, _ := proto.Marshal(containerAnswer(ctr))
			f.told[ctr.GetId()] = told{phase: containerPhase(item), sandbox: ctr.GetSandboxId()}
		}
	})
	return f
}

// run listens to the backend until ctx is done.
func (f *feed) run(ctx context.Context) {
	pause := listenAgain
	for {
		if f.m.Health().Up && f.lane.isClear() {
			began := time.Now()
			err := f.listen(ctx)
			switch {
			case status.Code(err) == codes.Unimplemented:
				pause = listenLacking
			case time.Since(began) > listenMax:
				pause = listenAgain
			default:
				pause = min(2*pause, listenMax)
			}
		} else {
			pause = listenAgain
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// listen passes the events of one stream on, until it ends.
func (f *feed) listen(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	settled := time.AfterFunc(listenSettle, func() { f.rely(ctx) })
	defer func() {
		cancel()
		settled.Stop()
		f.relyNoMore()
	}()
	st, err := open(ctx, f.m, runtimeapi.RuntimeService_GetContainerEvents_FullMethodName, backends.NewFrame(nil))
	if err != nil {
		return err
	}
	for {
		event, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// Readers share the bytes and are done with them at their own time.
		f.heard(append([]byte(nil), event.Bytes()...))
		event.Free()
	}
}

// rely notes that the stream of ctx is relied on from now on. What was before
// is for the watcher to find.
func (f *feed) rely(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() == nil {
		f.since = time.Now()
		f.lane.wake()
	}
}

// relyNoMore notes that the stream has ended. What has happened since its last
// event is for the watcher to find, too.
func (f *feed) relyNoMore() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.since.IsZero() {
		f.since = time.Time{}
		f.lane.wake()
	}
}

// listening tells whether the backend tells of its events by itself.
func (f *feed) listening() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.since.IsZero()
}

// heard takes in an event of the backend's own.
func (f *feed) heard(event wire.Message) {
	f.lane.wake()
	if event.Valid() != nil {
		return // What it says is found by looking.
	}
	if f.s.hidesEvent(event) {
		return
	}
	id, sandbox := event.String(1), event.Msg(4).String(1)
	if phase, ok := phaseOf(event.Int(2)); ok {
		f.mu.Lock()
		have := f.told[id]
		if phase <= have.shown {
			f.mu.Unlock()
			return // A look was faster.
		}
		have.phase, have.sandbox, have.heard = max(phase, have.phase), cmp.Or(sandbox, have.sandbox), time.Now()
		f.told[id] = have
		f.mu.Unlock()
	}
	if f.s.events.watched() {
		f.s.events.publish(f.s.eventOut(event, f.m.Name()))
	}
}

// told is what has been told of a sandbox or container.
type told struct {
	phase phase
	// sandbox is the id of the sandbox that it is in, or is.
	sandbox string
	// item is of sandboxes the item of a list: when they are gone, nobody
	// else knows them.
	item wire.Message
	// heard is when the backend itself told of it last, shown how far a look
	// has told.
	heard time.Time
	shown phase
}

// phase is how far a sandbox or container has come.
type phase int

const (
	phaseNone phase = iota
	phaseCreated
	phaseStarted
	phaseStopped
	phaseDeleted
)

// phases are the phases that events lead to, in order.
var phases = []struct {
	phase phase
	kind  runtimeapi.ContainerEventType
}{
	{phaseCreated, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT},
	{phaseStarted, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT},
	{phaseStopped, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT},
	{phaseDeleted, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT},
}

func phaseOf(kind int64) (phase, bool) {
	for _, p := range phases {
		if int64(p.kind) == kind {
			return p.phase, true
		}
	}
	return phaseNone, false
}

// change is an event that only a look has shown.
type change struct {
	id   string
	told told
	kind runtimeapi.ContainerEventType
}

// overtaken tells whether the backend has told of what a change is of since the
// look that has shown it was taken in. f.mu is held.
func (f *feed) overtaken(c change) bool { return f.told[c.id].heard.After(c.told.heard) }

// seen takes in what a look at the backend that began at began has shown,
// and returns what nobody has told of. Where the backend's own stream was open
// from before the look before this one, it has told of everything itself.
func (f *feed) seen(began time.Time, sandboxes, containers wire.Message) []change {
	f.mu.Lock()
	defer f.mu.Unlock()
	if began.Before(f.looked) {
		return nil
	}
	quiet := f.fresh || !f.since.IsZero() && f.since.Before(f.looked)
	f.looked, f.fresh = began, false
	now := make(map[string]told, len(f.told))
	var changes []change
	note := func(id string, t told) {
		from := f.told[id].phase
		if from == phaseDeleted {
			return // The list is older than the news.
		}
		t.heard, t.shown = f.told[id].heard, f.told[id].shown
		if !quiet {
			t.shown = max(t.shown, t.phase)
			changes = append(changes, between(id, t, from)...)
		}
		t.phase = max(t.phase, from)
		now[id] = t
	}
	sandboxes.Each(1, func(item wire.Message) bool {
		if f.s.hidesSandbox(item) {
			return true
		}
		id := item.String(1)
		t := told{phase: sandboxPhase(item), sandbox: id, item: f.told[id].item}
		if t.item == nil {
			t.item = append(wire.Message(nil), item...)
		}
		note(id, t)
		return true
	})
	containers.Each(1, func(item wire.Message) bool {
		if f.s.hidesContainer(item) {
			return true
		}
		note(item.String(1), told{phase: containerPhase(item), sandbox: item.String(2)})
		return true
	})
	for id, t := range f.told {
		if _, there := now[id]; !there && !t.heard.Before(began) {
			now[id] = t // It may be newer than the lists.
		}
	}
	if !quiet {
		changes = append(changes, f.goneFrom(now)...)
	}
	f.told = now
	return changes
}

// goneFrom are the changes of what was told of and is not in now: containers
// before their sandboxes.
func (f *feed) goneFrom(now map[string]told) (changes []change) {
	for _, ofSandboxes := range []bool{false, true} {
		for id, t := range f.told {
			if _, there := now[id]; there || t.phase == phaseDeleted || (t.sandbox == id) != ofSandboxes {
				continue
			}
			if t.sandbox != id {
				t.item = f.told[t.sandbox].item
			}
			from := t.phase
			t.phase = phaseDeleted
			changes = append(changes, between(id, t, from)...)
		}
	}
	return changes
}

// between are the events that lead from one phase to that of t. What has
// passed in between is told as well, unless it never was: what has not run
// does not stop.
func between(id string, t told, from phase) (list []change) {
	for _, p := range phases {
		ran := p.phase != phaseStarted && p.phase != phaseStopped || from == phaseStarted || t.phase != phaseDeleted
		if from < p.phase && p.phase <= t.phase && ran {
			list = append(list, change{id, t, p.kind})
		}
	}
	return list
}

func sandboxPhase(item wire.Message) phase {
	if runtimeapi.PodSandboxState(item.Int(3)) == runtimeapi.PodSandboxState_SANDBOX_READY {
		return phaseStarted
	}
	return phaseStopped
}

func containerPhase(item wire.Message) phase {
	switch runtimeapi.ContainerState(item.Int(6)) {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return phaseCreated
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return phaseStarted
	}
	return phaseStopped
}
