package store

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Options change how a log is opened. The zero value is right for a daemon.
type Options struct {
	// NoSync leaves out every fdatasync. For tests only: a crash of the
	// machine loses what was acknowledged.
	NoSync bool
	// Now tells the time that events get; nil is time.Now.
	Now func() time.Time
	// OnFailure is called for each commit that failed, so that somebody
	// hears of events that nobody waited for. It runs on the log's own
	// goroutine: it must return soon and not call the log.
	OnFailure func(error)
}

// Log is an event log opened for appending. All methods may be called
// concurrently.
type Log struct {
	file *file
	opts Options

	queue queue
	done  chan struct{} // closed when the writer has ended

	// update carries out one bbolt transaction; tests put faults here.
	update func(func(*bbolt.Tx) error) error
	// Of the writer alone: the chain up to the last commit, and whether a
	// commit after it failed and may have left records behind.
	chain  Chain
	failed bool

	mu       sync.RWMutex
	state    *State
	watchers map[uint64]chan struct{} // by the sequence number to be passed
	closed   bool
}

// Open opens the log at path for appending and folds it; where there is none
// it makes an empty one, with its directory. It verifies every record.
//
// Errors: *LockedError where another process has the file (told within a
// second), ErrDamaged and ErrNewer with the record concerned, or the error of
// the system.
func Open(path string, o Options) (*Log, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := create(path, o.Now); err != nil {
		return nil, fmt.Errorf("create event log: %w", err)
	}
	f, err := openFile(path, false, o.NoSync)
	if err != nil {
		return nil, err
	}
	state, chain, err := load(f)
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	l := &Log{
		file:     f,
		opts:     o,
		done:     make(chan struct{}),
		update:   f.db.Update,
		chain:    *chain,
		state:    state,
		watchers: map[uint64]chan struct{}{},
	}
	l.queue.init()
	go l.write()
	return l, nil
}

// Close commits what was queued and lets go of the file. It returns when
// nothing of the log runs any more. A second Close gives ErrClosed.
func (l *Log) Close() error {
	if !l.queue.close() {
		return ErrClosed
	}
	<-l.done
	l.mu.Lock()
	l.closed = true
	for seq, ch := range l.watchers {
		close(ch)
		delete(l.watchers, seq)
	}
	l.mu.Unlock()
	return l.file.close()
}

// View calls fn with the state as of the last commit. fn must be quick, since
// it holds up the publishing of the next, must not call the log's methods, and
// must not keep the State; records out of it may be kept. View works on a
// closed log too.
func (l *Log) View(fn func(*State)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	fn(l.state)
}

// Last returns the sequence number of the last event that is on disk and in
// the state, 0 where there is none.
func (l *Log) Last() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state.Seq()
}

// Changed returns a channel that is closed when the log has grown past the
// sequence number after, or is closed.
func (l *Log) Changed(after uint64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := l.watchers[after]
	if ch == nil {
		ch = make(chan struct{})
		if l.closed || l.state.Seq() > after {
			close(ch)
			return ch
		}
		l.watchers[after] = ch
	}
	return ch
}

// Records calls fn for each record from sequence number from to what was the
// last at the time of the call, in order. It ends with the first error of fn
// or of reading; ErrClosed where the log is closed meanwhile. The record is
// fn's to keep. fn may take its time and may call the log.
func (l *Log) Records(from uint64, fn func(Record) error) error {
	return l.file.records(from, l.Last(), fn)
}
