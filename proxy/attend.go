package proxy

import (
	"context"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

const (
	// attendAgain lies between two attempts at what a backend is owed.
	attendAgain = 5 * time.Second
	// attendBound bounds one question to a backend, asked on nobody's behalf
	// or on behalf of a call that can do without the answer.
	attendBound = 3 * time.Second
)

// attendant keeps what the front must know of one backend to answer for the
// node as a whole, and what that backend must be told: its cgroup driver, its
// status as last given, its metrics' labels, the node's runtime config. All of
// it is in memory only, asked anew whenever the backend has come back, since
// it may be another version of it that did.
type attendant struct {
	s     *Server
	m     *backends.Member
	woken chan struct{}

	// asking is held while the cgroup driver is asked for.
	asking sync.Mutex

	mu sync.Mutex
	// came counts how often the backend has come up: an answer of before that
	// is not one of the backend that is there now.
	came uint64
	// driver is the cgroup driver, "" where it is not known; learned is set
	// once the backend was asked since it came up.
	driver  string
	learned bool
	// status is the last one that it gave, nil before.
	status *runtimeapi.StatusResponse
	// descriptors are those of its metrics, nil where they have to be asked
	// for.
	descriptors []wire.Message
	// told is the number of the last runtime config that it took.
	told uint64
}

func newAttendant(s *Server, m *backends.Member) *attendant {
	return &attendant{s: s, m: m, woken: make(chan struct{}, 1)}
}

// healthChanged is told of each change of the backend's health. It does not
// block.
func (t *attendant) healthChanged(h backends.Health) {
	if !h.Up {
		// It can be seen to be up again before this is told of it.
		t.mu.Lock()
		t.learned = false
		t.mu.Unlock()
		return
	}
	t.mu.Lock()
	t.came++
	t.learned, t.descriptors, t.told = false, nil, 0
	t.mu.Unlock()
	t.wake()
}

// arrival is the number of the backend's coming up that is the present one.
func (t *attendant) arrival() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.came
}

func (t *attendant) wake() { poke(t.woken) }

// run gives the backend what it is owed until ctx is done.
func (t *attendant) run(ctx context.Context) {
	for {
		var again <-chan time.Time
		if !t.attend(ctx) {
			again = time.After(attendAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.woken:
		case <-again:
		}
	}
}

// attend asks and tells what is open; done is false where some of it is left.
// A backend that is away is attended to when it is back.
func (t *attendant) attend(ctx context.Context) (done bool) {
	if !t.m.Health().Up {
		return true
	}
	learned := t.learn(ctx)
	return t.s.settings.tell(ctx, t) && learned
}
