package view

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// Record is one event for programs.
type Record struct {
	Seq         uint64          `json:"seq"`
	Time        string          `json:"time"`
	Kind        string          `json:"kind"`
	Op          string          `json:"op,omitempty"`
	Backend     string          `json:"backend,omitempty"`
	Method      string          `json:"method,omitempty"`
	Pod         *Pod            `json:"pod,omitempty"`
	SandboxID   string          `json:"sandboxId,omitempty"`
	ContainerID string          `json:"containerId,omitempty"`
	Container   string          `json:"container,omitempty"`
	Code        string          `json:"code,omitempty"`
	Message     string          `json:"message,omitempty"`
	DurationMs  *float64        `json:"durationMs,omitempty"`
	MinReader   uint32          `json:"minReader,omitempty"`
	Detail      json.RawMessage `json:"detail"`
}

// Pod names a pod, and where Attempt is of interest one sandbox of it.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Attempt   uint32 `json:"attempt"`
}

// RecordHelp documents Record for the commands' help.
const RecordHelp = `  seq          position in the log, 1, 2, 3, … without gaps
  time         when it was recorded, RFC 3339 in UTC with nanoseconds
  kind         started, stopped, intent, step, outcome, observed, health,
               policy, called, probed, noticed, forgotten, salvaged or
               compacted (in place of events that were taken out); unknown when
               a newer crimux wrote it
  op           operation that an intent, its steps and its outcome belong to
  backend      backend concerned
  method       CRI method of the operation or call
  pod          {namespace, name, uid, attempt}; as the three that follow it is
               left out where an observation is of several
  sandboxId, containerId, container (its name)
  code         gRPC code by name: OK, NotFound, …
  message      error message of an outcome, or why a backend is down
  durationMs   milliseconds that the operation or call took
  minReader    oldest schema that can fold the event, where not any can
  detail       the rest: the kind's message of store/eventpb/event.proto in
               protobuf's JSON form (64 bit numbers are strings, what is zero
               is left out), without the data of steps`

// Kinds are the kinds of events by name, in the order of their definition.
var Kinds = func() []string {
	var names []string
	fields := kindOneof.Fields()
	for i := range fields.Len() {
		names = append(names, fields.Get(i).JSONName())
	}
	return names
}()

// Kinds of records that are no events that happened: one stands in place of
// events that were taken out, the other holds the state at its place.
const (
	KindCompacted = "compacted"
	KindSnapshot  = "snapshot"
)

var kindOneof = (&eventpb.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("kind")

// KindOf returns the kind of an event: one of [Kinds], or "unknown".
func KindOf(e *eventpb.Event) string {
	if f := e.ProtoReflect().WhichOneof(kindOneof); f != nil {
		return f.JSONName()
	}
	return "unknown"
}

// messageOf returns the message of an event's kind; of an unknown kind one that
// is empty.
func messageOf(e *eventpb.Event) proto.Message {
	m := e.ProtoReflect()
	if f := m.WhichOneof(kindOneof); f != nil {
		return m.Get(f).Message().Interface()
	}
	return (*eventpb.Started)(nil)
}

// NewRecord returns the record of an event that came after the state before.
func NewRecord(before *store.State, e *eventpb.Event) (Record, error) {
	r := Record{Seq: e.GetSeq(), Time: Exact(time.Unix(0, e.GetTime())), Op: e.GetOp(), Backend: e.GetBackend(), MinReader: e.GetMinReader()}
	r.Kind = KindOf(e)
	r.Method = before.Operation(e.GetOp()).GetIntent().GetMethod()
	r.of(objectsOf(before, e))
	message := messageOf(e)
	switch k := e.GetKind().(type) {
	case *eventpb.Event_Intent:
		r.Method = k.Intent.GetMethod()
	case *eventpb.Event_Step:
		message = withoutData(k.Step)
	case *eventpb.Event_Outcome:
		r.ended(k.Outcome.GetCode(), k.Outcome.GetDuration())
		r.Message = k.Outcome.GetMessage()
	case *eventpb.Event_Health:
		r.Message = k.Health.GetError()
	case *eventpb.Event_Called:
		r.Method = k.Called.GetMethod()
		r.ended(k.Called.GetCode(), k.Called.GetDuration())
	case *eventpb.Event_Probed:
		r.Method, r.Code = execSync, codeName(k.Probed.GetCode())
	case *eventpb.Event_Noticed:
		r.Message = k.Noticed.GetMessage()
	case *eventpb.Event_Salvaged:
		r.Message = k.Salvaged.GetCause()
	case *eventpb.Event_Snapshot:
		// Its state has the data of steps: only an export has it, and strips it.
		message = &eventpb.Snapshot{Fold: k.Snapshot.GetFold()}
	}
	detail, err := protojson.Marshal(message)
	if err != nil {
		return r, fmt.Errorf("event %d: %w", e.GetSeq(), err)
	}
	r.Detail = detail
	return r, nil
}

func (r *Record) ended(code uint32, nanos int64) {
	r.Code, r.DurationMs = codeName(code), milliseconds(time.Duration(nanos))
}

func milliseconds(d time.Duration) *float64 {
	ms := float64(d) / float64(time.Millisecond)
	return &ms
}

// of sets what all objects have in common.
func (r *Record) of(objects []object) {
	if len(objects) != 1 {
		return
	}
	o := objects[0]
	r.SandboxID, r.ContainerID, r.Container = o.sandboxID, o.containerID, o.container
	if o.pod != nil {
		r.Pod = &Pod{o.pod.GetNamespace(), o.pod.GetName(), o.pod.GetUid(), o.pod.GetAttempt()}
	}
}

// withoutData returns a step less what only its backend understands.
func withoutData(s *eventpb.Step) *eventpb.Step {
	return &eventpb.Step{Name: s.GetName(), Id: s.GetId()}
}
