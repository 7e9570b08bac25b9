package proxy

import (
	"cmp"
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
)

// What waits for one reader of GetContainerEvents before its stream is ended:
// by number, and by size, since an event carries the status of a whole pod.
const (
	readerEvents = 4096
	readerBytes  = 16 << 20
)

// hub hands the containers' events of all backends to everybody who asked for
// them. Each backend is listened to once, however many readers there are: some
// runtimes have one queue of events for all who listen.
type hub struct {
	mu      sync.Mutex
	readers map[*reader]struct{}
	closed  bool
	// most replaces readerEvents where it is not 0.
	most int
}

// join returns a reader of all events from now on.
func (h *hub) join() *reader {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &reader{woken: make(chan struct{}, 1), over: make(chan struct{}), most: cmp.Or(h.most, readerEvents)}
	if h.closed {
		r.end(errEnding)
		return r
	}
	if h.readers == nil {
		h.readers = make(map[*reader]struct{})
	}
	h.readers[r] = struct{}{}
	return r
}

func (h *hub) leave(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
}

// watched tells whether anybody reads.
func (h *hub) watched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.readers) > 0
}

// publish queues one serialized event for every reader, and waits for none.
// It keeps body.
func (h *hub) publish(body []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for r := range h.readers {
		if !r.push(body) {
			delete(h.readers, r)
		}
	}
}

// errEnding is what readers are told when the daemon ends.
var errEnding = status.Error(codes.Unavailable, "crimux is ending; ask again")

// close ends all readers' streams, which would otherwise keep the daemon from
// ending.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for r := range h.readers {
		delete(h.readers, r)
		r.end(errEnding)
	}
}

// reader is one open stream of GetContainerEvents.
type reader struct {
	woken chan struct{}
	// most is how many events may wait.
	most int
	// over is closed when nothing comes any more; err says why.
	over chan struct{}
	err  error

	mu      sync.Mutex
	waiting [][]byte
	bytes   int
}

// push queues an event; false says that the reader was too slow, and its
// stream has ended. An event is never left out for it silently.
func (r *reader) push(body []byte) bool {
	r.mu.Lock()
	full := len(r.waiting) >= r.most || r.bytes+len(body) > readerBytes && len(r.waiting) > 0
	if !full {
		r.waiting = append(r.waiting, body)
		r.bytes += len(body)
	}
	n := len(r.waiting)
	r.mu.Unlock()
	if full {
		r.end(status.Errorf(codes.ResourceExhausted,
			"GetContainerEvents: the reader is too slow: %d events wait for it, and further ones would be lost: read faster, list the containers, and ask again", n))
		return false
	}
	poke(r.woken)
	return true
}

// end is called once: by whoever takes the reader out of the hub.
func (r *reader) end(err error) {
	r.err = err
	close(r.over)
}

// take returns what waits.
func (r *reader) take() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.waiting
	r.waiting, r.bytes = nil, 0
	return list
}

// send sends the events until ctx is done or the client is gone.
func (r *reader) send(ctx context.Context, ss grpc.ServerStream) error {
	for {
		for _, body := range r.take() {
			if err := ss.SendMsg(backends.NewFrame(body)); err != nil {
				return err
			}
		}
		select {
		case <-r.woken:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// containerEvents sends the containers' events of all backends in one stream,
// which ends with the client. That a backend ends, fails or lacks the call
// does not end it: what it does not tell is told by its watcher (feed).
func (s *Server) containerEvents(ctx context.Context, ss grpc.ServerStream) error {
	// A stream without events must be told from one that has not begun. The
	// reader is there before: what happens after the header is not missed.
	r := s.events.join()
	defer s.events.leave(r)
	if err := ss.SendHeader(nil); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- r.send(ctx, ss) }()
	select {
	case err := <-sent:
		return err
	case <-r.over:
		// Sending may be stuck with a client that reads nothing; the end of
		// the call ends it.
		return r.err
	}
}
