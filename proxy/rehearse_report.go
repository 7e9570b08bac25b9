package proxy

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/crimux/crimux/store/eventpb"
)

// Rehearsal is what came of a rehearsal, beside what the log has of the pod.
type Rehearsal struct {
	ID string `json:"id"`
	// Namespace, Name, UID, Sandbox and From are the pod's, From its backend.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Sandbox   string `json:"sandbox"`
	From      string `json:"from"`
	// On is the backend of the rehearsal.
	On         string `json:"on"`
	Level      string `json:"level"`
	Network    bool   `json:"network"`
	HostMounts bool   `json:"hostMounts"`

	// Agreed tells that there are no Differences.
	Agreed      bool     `json:"agreed"`
	Differences []string `json:"differences"`

	Operations []RehearsedOperation `json:"operations"`
	Containers []RehearsedContainer `json:"containers"`
	// LeftOut is what the pod has and its rehearsal has not, Missing what is
	// not known of the pod. Neither was compared.
	LeftOut []string `json:"leftOut"`
	Missing []string `json:"missing"`
	// Notes are what else is worth knowing.
	Notes []string `json:"notes"`
	// Undone tells that nothing is left of it; otherwise Owed says why.
	Undone bool   `json:"undone"`
	Owed   string `json:"owed,omitempty"`
}

// RehearsedOperation is one request, as it went when it was recorded and as it
// went now. Recorded is nil where the log does not have it.
type RehearsedOperation struct {
	Method    string  `json:"method"`
	Container string  `json:"container,omitempty"`
	Recorded  *Result `json:"recorded"`
	Rehearsed *Result `json:"rehearsed"`
}

// Result is how an operation went.
type Result struct {
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
	// Nanoseconds is its duration.
	Nanoseconds int64 `json:"nanoseconds"`
}

// OK tells that it went well.
func (r *Result) OK() bool { return r.Code == codes.OK.String() }

// RehearsedContainer is one container, as it was last known and as it was when
// its rehearsal ended. Rehearsed is nil where it was not started.
type RehearsedContainer struct {
	Name      string        `json:"name"`
	Recorded  ContainerEnd  `json:"recorded"`
	Rehearsed *ContainerEnd `json:"rehearsed"`
}

// ContainerEnd is how a container is, and how it ended where it has.
type ContainerEnd struct {
	State    string `json:"state"`
	ExitCode int32  `json:"exitCode"`
	Reason   string `json:"reason,omitempty"`
	// Restarts is how often the container was made anew before.
	Restarts uint32 `json:"restarts,omitempty"`
}

// States of a ContainerEnd.
const (
	endCreated = "created"
	endRunning = "running"
	endExited  = "exited"
	endUnclear = "unknown"
)

var endStates = map[eventpb.ContainerState]string{
	eventpb.ContainerState_CONTAINER_STATE_CREATED: endCreated,
	eventpb.ContainerState_CONTAINER_STATE_RUNNING: endRunning,
	eventpb.ContainerState_CONTAINER_STATE_EXITED:  endExited,
}

// endOf is how a container is, as far as it is known.
func endOf(c *eventpb.Container) ContainerEnd {
	e := ContainerEnd{State: endUnclear, Restarts: c.GetAttempt()}
	if st, ok := endStates[c.GetState()]; ok {
		e.State = st
	}
	if e.State == endExited {
		e.ExitCode, e.Reason = c.GetExitCode(), c.GetReason()
	}
	return e
}

// String says it in words.
func (e ContainerEnd) String() string {
	switch {
	case e.State != endExited:
		return e.State
	case e.Reason == "":
		return fmt.Sprintf("exited with code %d", e.ExitCode)
	}
	return fmt.Sprintf("exited with code %d (%s)", e.ExitCode, e.Reason)
}

// oomKilled is the one reason that runtimes have the same word for.
const oomKilled = "OOMKilled"

// same tells whether two containers are or ended alike.
func (e ContainerEnd) same(o ContainerEnd) bool {
	return e.State == o.State && (e.State != endExited || e.ExitCode == o.ExitCode && (e.Reason == oomKilled) == (o.Reason == oomKilled))
}

// resultOf is the recorded result of an outcome.
func resultOf(o *eventpb.Outcome) *Result {
	if o == nil {
		return nil
	}
	return &Result{Code: codes.Code(o.GetCode()).String(), Message: o.GetMessage(), Nanoseconds: o.GetDuration()}
}

// operation adds a request to the report, and what differs.
func (r *Rehearsal) operation(method, container string, recorded *Result, now *Result) {
	r.Operations = append(r.Operations, RehearsedOperation{Method: method, Container: container, Recorded: recorded, Rehearsed: now})
	was := codes.OK.String()
	if recorded != nil {
		was = recorded.Code
	}
	if was == now.Code {
		return
	}
	what := method
	if container != "" {
		what += " of " + container
	}
	said := now.Code
	if now.Message != "" {
		said += ": " + now.Message
	}
	r.differ("%s was %s, and is %s", what, was, said)
}

func (r *Rehearsal) differ(format string, args ...any) {
	r.Differences = append(r.Differences, fmt.Sprintf(format, args...))
}

// conclude says whether it agreed.
func (r *Rehearsal) conclude() {
	r.Agreed = len(r.Differences) == 0
	for _, list := range []*[]string{&r.Differences, &r.LeftOut, &r.Missing, &r.Notes} {
		if *list == nil {
			*list = []string{}
		}
	}
}

// took is a duration as a result has it.
func took(since time.Time) int64 { return int64(time.Since(since)) }
