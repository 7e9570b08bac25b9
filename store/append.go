package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/crimux/crimux/store/eventpb"
)

// The queue takes this much before Append waits for the disk.
const (
	queueEvents = 8192
	queueBytes  = 32 << 20
)

// Pending is what an Append gives back: events on their way to the disk.
type Pending struct {
	events   []*eventpb.Event
	payloads [][]byte
	size     int

	done chan struct{}
	seq  uint64
	err  error
}

// Append queues events and returns; only while the queue is full does it wait.
// Calls take effect in the order in which they are made; the events of one are
// contiguous and are committed together or not at all. Append sets each
// event's sequence number, and its time where that is 0. The events are the
// log's from here on, and must not be changed nor used for another Append.
//
// Errors are those of [Pending.Wait]. Who does not call it leaves the events
// to be written behind. Append without events is a barrier: its Wait returns
// when all that was queued before is on disk.
func (l *Log) Append(events ...*eventpb.Event) *Pending {
	p := &Pending{events: events, payloads: make([][]byte, len(events)), done: make(chan struct{})}
	for i, e := range events {
		b, err := encode(e)
		if err != nil {
			p.finish(0, fmt.Errorf("%w: event %d of %d: %w", ErrRefused, i+1, len(events), err))
			return p
		}
		p.payloads[i] = b
		p.size += len(b)
	}
	if !l.queue.put(p) {
		p.finish(0, ErrClosed)
	}
	return p
}

// Wait waits until the events are on disk and in the published state, and
// returns the sequence number of the last of them (of a barrier: of the last
// event in the log). When ctx ends before that, its error is returned, and the
// events are written all the same. It may be called several times.
//
// Errors: ErrRefused where the events cannot be part of the log, ErrClosed
// where it was closed before, ErrDamaged where the file can no longer be
// written to at all, else what the commit failed with, such as
// syscall.ENOSPC. After any of them none of the events is in the log.
func (p *Pending) Wait(ctx context.Context) (seq uint64, err error) {
	select {
	case <-p.done: // even if ctx has ended, too
		return p.seq, p.err
	default:
	}
	select {
	case <-p.done:
		return p.seq, p.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (p *Pending) finish(seq uint64, err error) {
	p.seq, p.err = seq, err
	p.events, p.payloads = nil, nil
	close(p.done)
}

// queue holds what was appended and not yet taken by the writer.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond // something was put, taken or closed
	pending []*Pending
	events  int
	size    int
	closed  bool
}

func (q *queue) init() { q.changed.L = &q.mu }

// put waits for room. It returns false where the queue is closed.
func (q *queue) put(p *Pending) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && len(q.pending) > 0 && (q.events >= queueEvents || q.size >= queueBytes) {
		q.changed.Wait()
	}
	if q.closed {
		return false
	}
	q.pending = append(q.pending, p)
	q.events += len(p.events)
	q.size += p.size
	q.changed.Broadcast()
	return true
}

// take waits for something to write and returns all that there is. It returns
// nil when the queue is closed and empty.
func (q *queue) take() []*Pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && len(q.pending) == 0 {
		q.changed.Wait()
	}
	batch := q.pending
	q.pending, q.events, q.size = nil, 0, 0
	q.changed.Broadcast()
	return batch
}

// close makes put and, once it is empty, take give up. It returns false where
// that was so already.
func (q *queue) close() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	was := q.closed
	q.closed = true
	q.changed.Broadcast()
	return !was
}
