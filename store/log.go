package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// Options change how a log is opened. The zero value is right for a daemon.
type Options struct {
	// NoSync leaves out every fdatasync. For tests only: a crash of the
	// machine loses what was acknowledged.
	NoSync bool
	// Now tells the time that events get; nil is time.Now. It is called from
	// several goroutines.
	Now func() time.Time
	// OnFailure is called for each commit that failed, so that somebody
	// hears of events that nobody waited for, and where taking care of the
	// file failed. It runs on the log's own goroutines: it must return soon
	// and not call the log.
	OnFailure func(error)
	// OnDamage is called, like OnFailure, when a record of before the newest
	// snapshot is found to be damaged. The state does not depend on it.
	OnDamage func(error)
	// OnDropped is called for each damaged file that [OpenOrSalvage] removes,
	// since there are newer ones.
	OnDropped func(path string)

	// MaxSize is what the events may take up in the file, in bytes; 0 is no
	// bound. The file itself may be larger by what bbolt keeps in reserve, 16
	// MiB and as much again as is in use.
	MaxSize int64
	// Retention is how long events are kept after they happened, and the
	// events of a pod after it has ended; 0 is for ever. MaxSize comes first.
	Retention time.Duration
	// SnapshotEvery is how many events there are from one snapshot to the
	// next; 0 is 10,000.
	SnapshotEvery uint64
	// Ballast is the size of a file that is given up when the disk is full,
	// so that stops can be recorded; 0 is none. See DefaultBallast.
	Ballast int64
	// Tick is how often the file is taken care of; 0 is a second.
	Tick time.Duration

	// heal has the log put stubs in place of old records that are damaged.
	heal bool
}

func (o *Options) defaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.OnFailure == nil {
		o.OnFailure = func(error) {}
	}
	if o.OnDamage == nil {
		o.OnDamage = func(error) {}
	}
	if o.OnDropped == nil {
		o.OnDropped = func(string) {}
	}
	if o.SnapshotEvery == 0 {
		o.SnapshotEvery = 10_000
	}
	if o.Tick == 0 {
		o.Tick = time.Second
	}
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
	// Of the writer alone: the chain up to the last commit.
	chain Chain
	// failed tells that a commit after that failed and may have left records
	// behind. It changes within [file.use] only.
	failed bool
	// suspect is set when a commit failed in a way that leaves in doubt what
	// of the file is on disk.
	suspect atomic.Bool

	keeper keeper
	// What Pressure looks at: bytes in use, why the last commit failed, and
	// why the disk counts as full.
	used    atomic.Int64
	trouble atomic.Pointer[error]
	diskLow atomic.Pointer[error]

	mu       sync.RWMutex
	state    *State
	head     [sha256.Size]byte        // of the chain up to state
	watchers map[uint64]chan struct{} // by the sequence number to be passed
	closed   bool
}

// Open opens the log at path for appending and folds it; where there is none
// it makes an empty one, with its directory. It checks the structure of the
// file, the newest snapshot, and every record after that; those before are
// checked afterwards, beside the work (OnDamage).
//
// Errors: *LockedError where another process has the file (told within a
// second), ErrDamaged and ErrNewer with the record concerned, or the error of
// the system. A file that is gone, or is another than the one that was here,
// is ErrDamaged too. [OpenOrSalvage] opens all but the locked and the newer.
func Open(path string, o Options) (*Log, error) {
	o.defaults()
	if err := missing(path, exists(path)); errors.Is(err, ErrDamaged) {
		return nil, err
	}
	if err := create(path, o.Now); err != nil {
		return nil, fmt.Errorf("create event log: %w", err)
	}
	f, err := openFile(path, false, o.NoSync)
	if err != nil {
		return nil, err
	}
	s, err := load(f)
	if err == nil {
		err = f.sweepAside()
	}
	if err == nil {
		err = f.compareMark(s.chain)
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	l := &Log{
		file:     f,
		opts:     o,
		done:     make(chan struct{}),
		update:   f.update,
		chain:    s.chain,
		head:     s.chain.Head(),
		state:    s.state,
		watchers: map[uint64]chan struct{}{},
	}
	if err := l.keeper.init(l, s.snapped); err != nil {
		return nil, errors.Join(err, f.close())
	}
	l.queue.init()
	go l.write()
	go l.keep()
	return l, nil
}

// exists returns the error of looking for a file.
func exists(path string) error {
	_, err := os.Lstat(path)
	return err
}

// Close commits what was queued, writes a snapshot, so that the next start is a
// short one, and lets go of the file. It returns when nothing of the log runs
// any more. A second Close gives ErrClosed.
func (l *Log) Close() error {
	if !l.queue.close() {
		return ErrClosed
	}
	<-l.done
	l.keeper.end()
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
// last at the time of the call, in order; where that one is taken out meanwhile,
// to the stub that stands for it. It ends with the first error of fn or of
// reading; ErrClosed where the log is closed meanwhile. The record is fn's to
// keep. fn may take its time and may call the log.
func (l *Log) Records(from uint64, fn func(Record) error) error {
	return l.file.records(from, l.Last(), fn)
}
