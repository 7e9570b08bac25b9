package view

import (
	"slices"
	"time"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// Story is what happened to one pod, over all its sandboxes and on whatever
// backends.
type Story struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// State is READY or NOTREADY as its newest sandbox is, "removed" where it
	// has none any more, "" where it never had one.
	State string `json:"state"`
	// Backends and Sandboxes are those it had, in order.
	Backends  []string `json:"backends"`
	Sandboxes []string `json:"sandboxes"`
	// Restarts counts containers that were started in the place of one of the
	// same name, and Exits those that ended by themselves with an error.
	Restarts int `json:"restarts"`
	Exits    int `json:"exits"`
	// Cut is set where its beginning was taken out of the log.
	Cut bool `json:"cut,omitempty"`
	// Lines are in the order in which they began.
	Lines []*Line `json:"lines"`
}

// Line is one thing that happened: an operation with its outcome, a decision,
// or something seen.
type Line struct {
	// Seq is the event that it began with and End the one that it ended with;
	// 0 where an operation has no outcome of its own, and for what is one event.
	Seq  uint64    `json:"seq"`
	End  uint64    `json:"endSeq,omitempty"`
	Time time.Time `json:"time"`
	Op   string    `json:"op,omitempty"`
	// Event is the method, or Route, Observed, Noticed, Health, Started,
	// Forgotten or Salvaged.
	Event       string `json:"event"`
	Backend     string `json:"backend,omitempty"`
	SandboxID   string `json:"sandboxId,omitempty"`
	ContainerID string `json:"containerId,omitempty"`
	Container   string `json:"container,omitempty"`
	// Code is a gRPC code by name; "" where there is none (yet).
	Code       string   `json:"code,omitempty"`
	DurationMs *float64 `json:"durationMs,omitempty"`
	Steps      []Step   `json:"steps,omitempty"`
	// Result says in words what came of it.
	Result string `json:"result"`
	Failed bool   `json:"failed"`
	// Recovered is set on what recovery after a crash found or did.
	Recovered bool `json:"recovered,omitempty"`
	// Repeats counts failures like this one that were taken out of the log,
	// and LastRepeat is when the last of them ended.
	Repeats    uint64     `json:"repeats,omitempty"`
	LastRepeat *time.Time `json:"lastRepeat,omitempty"`

	facts
}

// facts are what a line's words were made of.
type facts struct {
	intent  *eventpb.Intent
	outcome *eventpb.Outcome
	// route is of a decision, and policy what was in force then.
	route  *eventpb.Route
	policy *eventpb.Policy
	// found is set where a sandbox was seen that nobody knew, ended where a
	// container was seen to end by itself.
	found bool
	ended *eventpb.Container
	// gone is set where the object was seen to be there no more, unready where
	// a sandbox was seen to have ended, cutShort where a crash kept an
	// operation from an outcome of its own.
	gone, unready, cutShort bool
	noticed                 *eventpb.Noticed
	probed                  *eventpb.Probed
	health                  *eventpb.Health
	run                     run
	// lost is set where the log lost events.
	lost bool
	// once is the result as it was before repeats of it were known.
	once string
}

// Step is an effect within an operation.
type Step struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Name string    `json:"name"`
	ID   string    `json:"id,omitempty"`
}

// StoryHelp documents Story for the commands' help.
const StoryHelp = `  namespace, name, uid
  state        READY, NOTREADY, removed, or "" where it never had a sandbox
  backends     those it was on, in order
  sandboxes    ids of its sandboxes, in order
  restarts     containers that were started in the place of one that ended
  exits        containers that ended by themselves with an error
  cut          true where its beginning was taken out of the log
  lines        what happened, in order:
    seq, endSeq  first and last event; no endSeq where there is no outcome
    time         when it began, RFC 3339
    event        CRI method, or Route, Observed, Noticed, Health, Started,
                 Forgotten or Salvaged
    op, backend, sandboxId, containerId, container (its name), code, durationMs
    steps        [{seq, time, name, id}], effects within the operation
    result       what came of it, in words
    failed       whether that is bad
    recovered    true on what recovery after a crash found or did
    repeats      failures like this one that were taken out of the log
    lastRepeat   when the last of them ended`

// Teller tells the stories of some pods. It must be given all events of a log.
type Teller struct {
	stories []*Story
	byPod   map[podKey]*Story
	// bySandbox and byContainer know ids that the state has forgotten, for
	// what is recorded behind.
	bySandbox, byContainer map[string]*Story
	open                   map[string]*Line // by operation
	runs                   runs
	// down are the backends whose absence a story has told.
	down map[*Story]map[string]bool
	// failed are the lines that a repeated failure may be like, by operation.
	failed map[string]*Line
	// ends are the containers of which it is known how they ended, or that they
	// never began, so that it counts once.
	ends map[string]bool
	// takenOut is set when events are not in the log any more.
	takenOut bool
}

// removed is the state of a pod of which nothing is there any more.
const removed = "removed"

// NewTeller returns a teller of the stories of pods.
func NewTeller(pods []FoundPod) *Teller {
	t := &Teller{
		byPod:       make(map[podKey]*Story),
		bySandbox:   make(map[string]*Story),
		byContainer: make(map[string]*Story),
		open:        make(map[string]*Line),
		down:        make(map[*Story]map[string]bool),
		failed:      make(map[string]*Line),
		ends:        make(map[string]bool),
	}
	for _, p := range pods {
		s := &Story{Namespace: p.Namespace, Name: p.Name, UID: p.UID}
		t.stories = append(t.stories, s)
		t.byPod[keyOf(&eventpb.PodKey{Namespace: p.Namespace, Name: p.Name, Uid: p.UID})] = s
	}
	return t
}

// Stories returns the stories as they stand; after is the state after the
// last event.
func (t *Teller) Stories(after *store.State) []*Story {
	for _, s := range t.stories {
		s.State = s.stateIn(after)
		s.Cut = t.takenOut && len(s.Sandboxes) > 0 && s.made(s.Sandboxes[0]) == nil
	}
	return t.stories
}

// stateIn returns the state of the newest sandbox that there is.
func (s *Story) stateIn(after *store.State) string {
	for _, id := range slices.Backward(s.Sandboxes) {
		if sb := after.Sandbox(id); sb != nil {
			return sandboxState(sb.GetState())
		}
	}
	if len(s.Sandboxes) > 0 {
		return removed
	}
	return ""
}

// made returns the line that told of a sandbox first: of its making, or that
// it was found.
func (s *Story) made(sandbox string) *Line {
	for _, l := range s.Lines {
		if l.SandboxID == sandbox && (l.found || l.Event == runPodSandbox && l.outcome != nil) {
			return l
		}
	}
	return nil
}

// Add takes in an event that came after the state before.
func (t *Teller) Add(before *store.State, e *eventpb.Event) {
	run := t.runs.next(before, e)
	switch k := e.GetKind().(type) {
	case *eventpb.Event_Started:
		t.started(before, e, k.Started, run)
	case *eventpb.Event_Health:
		t.health(before, e, k.Health)
	case *eventpb.Event_Salvaged:
		t.salvaged(before, e, k.Salvaged)
	case *eventpb.Event_Compacted:
		t.compacted(k.Compacted)
	default:
		for _, o := range objectsOf(before, e) {
			if s := t.storyOf(o); s != nil {
				t.know(s, o)
				t.tell(s, o, before, e)
			}
		}
	}
}

func (t *Teller) storyOf(o object) *Story {
	if o.pod != nil {
		return t.byPod[keyOf(o.pod)]
	}
	if s := t.byContainer[o.containerID]; s != nil {
		return s
	}
	return t.bySandbox[o.sandboxID]
}

// know remembers the ids of what a story is about.
func (t *Teller) know(s *Story, o object) {
	if o.containerID != "" {
		t.byContainer[o.containerID] = s
	}
	if o.sandboxID != "" && t.bySandbox[o.sandboxID] == nil {
		t.bySandbox[o.sandboxID] = s
		s.Sandboxes = append(s.Sandboxes, o.sandboxID)
	}
}

// add begins a line of a story.
func (s *Story) add(e *eventpb.Event, event string, o object) *Line {
	l := &Line{
		Seq: e.GetSeq(), Time: time.Unix(0, e.GetTime()).UTC(), Op: e.GetOp(), Event: clean(event), Backend: e.GetBackend(),
		SandboxID: o.sandboxID, ContainerID: o.containerID, Container: o.container,
	}
	s.Lines = append(s.Lines, l)
	if l.Backend != "" && !slices.Contains(s.Backends, l.Backend) {
		s.Backends = append(s.Backends, l.Backend)
	}
	return l
}
