package backends

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// Call is one unary CRI call on its way to a backend.
type Call struct {
	// Method is the full gRPC name, /runtime.v1.RuntimeService/RunPodSandbox.
	Method string
	// Request is the serialized request. It stays the caller's: a backend
	// does not free it and does not keep it after it has answered.
	Request *Frame
	// Journal takes the steps of a recorded operation. It is never nil.
	Journal Journal
}

// Answer is a backend's answer to a unary call. Header and Trailer may be nil.
type Answer struct {
	Body            *Frame
	Header, Trailer metadata.MD
}

// Backend is a runtime that pods run on. All methods may be called
// concurrently. Errors are gRPC statuses: the runtime's own, code and message
// unchanged, or Unavailable where it could not be reached.
type Backend interface {
	// Name returns the name that the configuration gives the backend.
	Name() string
	// Invoke carries out one unary call. It returns when the runtime has
	// answered or ctx is done; in the second case what came of the call is
	// not known. The answer's body is the caller's to free. On an error the
	// answer may still carry header and trailer, and has no body.
	Invoke(ctx context.Context, c *Call) (Answer, error)
	// Stream opens a streaming call. It ends when ctx is done.
	Stream(ctx context.Context, method string) (Stream, error)
	// Probe asks the runtime for a sign of life.
	Probe(ctx context.Context) error
	// Close lets go of the runtime and returns when nothing of the backend
	// runs any more. Pods are left alone.
	Close() error
}

// Stream is the client's side of a streaming call: the part of
// grpc.ClientStream that the front needs.
type Stream interface {
	Send(*Frame) error
	CloseSend() error
	// Recv returns io.EOF at the end of a stream that ended well.
	Recv() (*Frame, error)
	Header() (metadata.MD, error)
	Trailer() metadata.MD
}

// Runner is a backend that works in the background: Run returns when ctx is
// done, or with the error that ended it.
type Runner interface {
	Run(ctx context.Context) error
}

// Bounder is a backend on which an operation, once begun, is finished or
// undone whether or not its caller still waits. Bound returns how long the
// operation that req asks for may take at most; ok is false where the
// caller's own context is the bound.
type Bounder interface {
	Bound(method string, req *Frame) (d time.Duration, ok bool)
}

// Recoverer is a backend that can finish or undo an operation that a crash
// left without an outcome. Recover is called before any new operation is sent
// to the backend; it must be repeatable, since a crash may interrupt it too.
// An error means that the operation is still owed and is tried again later.
type Recoverer interface {
	Recover(ctx context.Context, op Unfinished, j Journal) (Recovered, error)
}

// Unfinished is an operation with an intent and no outcome.
type Unfinished struct {
	Op     string
	Method string
	Since  time.Time
	// The sandbox and container that the operation acts on, where they
	// existed when it began.
	SandboxID, ContainerID string
	Steps                  []Step
}

// Recovered is how an unfinished operation ended.
type Recovered struct {
	// Code is OK where the operation took full effect, and Aborted where it
	// was undone.
	Code    codes.Code
	Message string
	// ID is what the operation would have returned; "" unless Code is OK.
	ID string
}

// Journal takes the steps of one operation for the event log.
type Journal interface {
	// Op is the operation's id, which a backend stamps on what it makes, so
	// that it can be found again without the log.
	Op() string
	// Step records s. The returned function waits until s is on disk.
	Step(s Step) (durable func(context.Context) error)
}

// Step is one effect of an operation: what Unfinished.Steps brings back.
type Step struct {
	// Name is the backend's own word, such as "sandbox.created".
	Name string
	// ID is the object concerned.
	ID string
	// Data is what undoing the step needs, in the backend's own format.
	// No secrets: it is written to the log as it is.
	Data []byte
}

// NoJournal is the Journal of calls that are not recorded.
var NoJournal Journal = noJournal{}

type noJournal struct{}

func (noJournal) Op() string { return "" }
func (noJournal) Step(Step) func(context.Context) error {
	return func(context.Context) error { return nil }
}
