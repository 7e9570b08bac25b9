package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
)

// A rehearsal carries out a pod's requests once more on another backend, to
// learn whether the pod would run there before it moves. What it makes is not
// the kubelet's: it has a namespace, names and a uid of its own, carries
// [backends.LabelRehearsal], and does not show on the CRI socket, since a
// kubelet kills the pods that it does not know. It is recorded as all else is,
// so that a crash leaves nothing that is not found again.

// Levels of a rehearsal.
const (
	// LevelCreate makes sandbox and containers and starts nothing.
	LevelCreate = "create"
	// LevelStart starts the containers, with the network's links down unless
	// the network is asked for.
	LevelStart = "start"
)

const (
	// rehearsalNamespace is the namespace of all rehearsals.
	rehearsalNamespace = "crimux-rehearsal"
	// rehearsalLogs is the folder below stateDir with their containers' logs.
	rehearsalLogs = "rehearsals"
	// rehearsalTimeout is how long a container that has ended in the recording
	// may take to end, unless the request says otherwise.
	rehearsalTimeout = time.Minute
	// rehearsalBound bounds making everything, undoBound taking it away.
	rehearsalBound = 15 * time.Minute
	undoBound      = 2 * time.Minute
	// rehearsalSettle is how long a container that runs in the recording has to
	// go on running.
	rehearsalSettle = 5 * time.Second
)

// RehearsalRequest is what to rehearse, and how.
type RehearsalRequest struct {
	// Sandbox is the id of the pod's sandbox.
	Sandbox string `json:"sandbox"`
	// On names the backend.
	On string `json:"on"`
	// Level is LevelCreate or LevelStart.
	Level string `json:"level"`
	// Network keeps the pod's network; HostMounts brings the host's folders and
	// devices in, the folders read-only; Pull allows an image to be pulled.
	Network    bool `json:"network"`
	HostMounts bool `json:"hostMounts"`
	Pull       bool `json:"pull"`
	// Env is set in all containers, over what they have.
	Env []EnvVar `json:"env"`
	// Timeout is how long a container that has ended in the recording may take
	// to end; 0 is a minute.
	Timeout time.Duration `json:"timeout"`
}

// EnvVar is one variable of an environment.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// check refuses a request that says what cannot be meant.
func (r *RehearsalRequest) check() error {
	switch {
	case r.Sandbox == "":
		return status.Error(codes.InvalidArgument, "sandbox: it names no pod")
	case r.Level != LevelCreate && r.Level != LevelStart:
		return status.Errorf(codes.InvalidArgument, "level: %q is neither %s nor %s", r.Level, LevelCreate, LevelStart)
	case r.Timeout < 0 || r.Timeout > rehearsalBound:
		return status.Errorf(codes.InvalidArgument, "timeout: %s is not between 0 and %s", r.Timeout, rehearsalBound)
	}
	if r.Timeout == 0 {
		r.Timeout = rehearsalTimeout
	}
	return nil
}

// rehearsals is what the front knows of rehearsals: which ids are theirs, and
// where something of them may be left.
type rehearsals struct {
	// one is held by the rehearsal under way: each costs the node a pod.
	one sync.Mutex
	// undoStop is how long a sandbox has to stop, see there.
	undoStop time.Duration
	// woken makes the sweeper look at once.
	woken chan struct{}

	mu sync.Mutex
	// ids are the sandboxes and containers of rehearsals since the oldest that
	// the log knows.
	ids map[string]bool
	// owed are the backends on which something may be left to undo, each with
	// how often that was said.
	owed map[string]int
	// active is the rehearsal under way, "" for none; cancel ends it, and over
	// is closed when it has ended.
	active string
	cancel context.CancelFunc
	over   chan struct{}
	closed bool
}

// begin notes the rehearsal that is under way.
func (r *rehearsals) begin(id string, cancel context.CancelFunc) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errEnding
	}
	r.active, r.cancel, r.over = id, cancel, make(chan struct{})
	return nil
}

// end notes that it is over: what it has left is for the sweeper now.
func (r *rehearsals) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active, r.cancel = "", nil
	close(r.over)
	r.wake()
}

// isActive tells whether a rehearsal is the one under way.
func (r *rehearsals) isActive(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return id != "" && r.active == id
}

// shut ends the rehearsal under way and lets none begin. It returns when it is
// undone, or ctx is done.
func (r *rehearsals) shut(ctx context.Context) {
	r.mu.Lock()
	r.closed = true
	cancel, over := r.cancel, r.over
	r.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// Rehearse carries out a rehearsal and undoes it. Progress is told in words,
// one line each. An error says that it could not be carried out; whatever was
// made is undone then, too, and also when ctx is done.
func (s *Server) Rehearse(ctx context.Context, req RehearsalRequest, tell func(string)) (report *Rehearsal, err error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	if !s.rehearsals.one.TryLock() {
		return nil, status.Error(codes.Aborted, "another rehearsal is under way: wait for its end")
	}
	defer s.rehearsals.one.Unlock()
	r, err := s.planRehearsal(ctx, req)
	if err != nil {
		return nil, err
	}
	r.tell = tell
	ctx, cancel := context.WithTimeout(ctx, rehearsalBound)
	defer cancel()
	if err := s.rehearsals.begin(r.id, cancel); err != nil {
		return nil, err
	}
	defer s.rehearsals.end()
	if err := os.MkdirAll(r.logs(), 0o700); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "make the log folder of the rehearsal: %v", err)
	}
	err = r.carryOut(ctx)
	r.undo(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	r.report.conclude()
	return r.report, nil
}

// rehearsal is one rehearsal under way.
type rehearsal struct {
	s      *Server
	req    RehearsalRequest
	id     string
	target *backends.Member
	source *source
	tell   func(string)
	report *Rehearsal

	// sandbox is the id of the sandbox, "" before it is made.
	sandbox string
}

// newRehearsalID is short enough for a name and long enough never to come
// twice.
func newRehearsalID() string {
	var b [8]byte
	// It does not fail: see package crypto/rand.
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// logs is the log folder of the rehearsal's containers.
func (r *rehearsal) logs() string { return filepath.Join(r.s.rehearsalFolder(), r.id) }

func (s *Server) rehearsalFolder() string { return filepath.Join(s.config.StateDir, rehearsalLogs) }

func (r *rehearsal) say(format string, args ...any) {
	if r.tell != nil {
		r.tell(fmt.Sprintf(format, args...))
	}
}
