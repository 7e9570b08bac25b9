// Package sink ships events to an OpenTelemetry collector, as logs over OTLP.
//
// Every event arrives at least once, in order, with its sequence number as the
// key: what the collector has acknowledged is noted in a file, from which
// shipping goes on after a restart; what was acknowledged just before a crash
// may come again. An event that the collector refuses for good, while it takes
// others, is given up, which is logged with its number.
//
// A sink reads what is in the log already and never stands in the way of what
// writes to it: it holds one batch in memory, and while a collector is away or
// slow it only falls behind.
package sink

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store"
)

const (
	// batchRecords and batchBytes bound what is held in memory and sent at
	// once, but for what the last record has above it: see maxDetail.
	batchRecords = 512
	batchBytes   = 1 << 20
	// linger is how long a batch waits for more events to come.
	linger = 500 * time.Millisecond
	// sendTime is how long the collector has for an answer.
	sendTime = 10 * time.Second
	// Time between attempts doubles from firstPause to lastPause.
	firstPause = time.Second
	lastPause  = time.Minute
)

// Log is the part of store.Log that is shipped.
type Log interface {
	Records(from uint64, fn func(store.Record) error) error
	Changed(after uint64) <-chan struct{}
	Last() uint64
	View(fn func(*store.State))
}

// Options are what a sink needs besides its configuration.
type Options struct {
	Log Log
	// Dir is the folder of the file that holds the position.
	Dir     string
	Version string
	Logger  *slog.Logger
}

// Sink ships the events of a log.
type Sink struct {
	o      Options
	cursor cursorFile
	sender sender
	teller teller
	logger *slog.Logger

	// chunk is how many records are sent at once: half as many after a
	// failure, so that a batch that is too much for the collector is taken
	// apart. Where not even one gets through, there is a pause.
	chunk  int
	linger time.Duration
	// pause is the next one, first that after a success.
	pause, first time.Duration
	// failing is set while nothing gets through.
	failing bool
}

// New returns a sink. Nothing is contacted.
func New(ctx context.Context, cfg policy.Sink, o Options) (*Sink, error) {
	send, err := newOTLP(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("sink %q: %w", cfg.Name, err)
	}
	t, err := newTeller(o.Version)
	if err != nil {
		return nil, fmt.Errorf("sink %q: %w", cfg.Name, err)
	}
	return &Sink{
		o:      o,
		cursor: cursorFile{filepath.Join(o.Dir, "sink-"+cfg.Name+".cursor")},
		sender: send,
		teller: t,
		logger: o.Logger.With("sink", cfg.Name),
		chunk:  batchRecords,
		linger: linger,
		pause:  firstPause,
		first:  firstPause,
	}, nil
}

// Run ships until ctx is done, or the log is closed.
func (s *Sink) Run(ctx context.Context) error {
	pos := s.begin()
	s.teller.begin(s.o.Log, pos.Seq)
	for ctx.Err() == nil {
		batch, err := s.read(pos)
		switch {
		case errors.Is(err, store.ErrClosed):
			return s.sender.close()
		case err != nil:
			s.failed("the event log cannot be read", err)
			s.sleep(ctx)
		case len(batch) == 0 && !s.wait(ctx, pos.Seq):
			return s.sender.close()
		case len(batch) == 0:
		default:
			pos = s.ship(ctx, pos, batch)
		}
	}
	return s.sender.close()
}

// begin returns the position to go on from. Where it is of another log, such
// as one that was rebuilt after damage, all of this one is shipped.
func (s *Sink) begin() position {
	pos, err := s.cursor.load()
	if err != nil {
		s.logger.Warn("the position is lost, all events are shipped again", "error", err)
		return position{}
	}
	if err := pos.check(s.o.Log); err != nil {
		s.logger.Warn("the position is of another log, all events of this one are shipped", "position", pos.Seq, "error", err)
		return position{}
	}
	return pos
}

// read returns the events after a position, as many as a batch takes.
func (s *Sink) read(pos position) ([]item, error) {
	var batch []item
	size := 0
	err := s.o.Log.Records(pos.Seq+1, func(r store.Record) error {
		it, ok, err := s.teller.tell(r)
		if err != nil || !ok {
			return err
		}
		it.pos = position{r.Seq, sha256.Sum256(r.Value)}
		batch = append(batch, it)
		if size += sizeOf(&it.record); size >= batchBytes || len(batch) == batchRecords {
			return errFull
		}
		return nil
	})
	// What was read before an error is shipped; the error comes again.
	if errors.Is(err, errFull) || len(batch) > 0 {
		err = nil
	}
	return batch, err
}

// errFull ends the reading of a batch.
var errFull = errors.New("the batch is full")

// ship sends a batch until it has arrived, and notes that. It returns the
// position after what arrived.
func (s *Sink) ship(ctx context.Context, pos position, batch []item) position {
	for len(batch) > 0 && ctx.Err() == nil {
		n := min(s.chunk, len(batch))
		rejected, err := s.send(ctx, batch[:n])
		if ctx.Err() != nil && err != nil {
			return pos
		}
		if err != nil {
			s.failed("events cannot be shipped", err)
			s.chunk = max(1, n/2)
			switch {
			case n > 1:
				continue
			case !s.settle(ctx, batch, err):
				s.sleep(ctx)
				batch = s.more(batch)
				continue
			}
		}
		if rejected != nil {
			s.logger.Warn("the collector has rejected events", "first", batch[0].pos.Seq, "last", batch[n-1].pos.Seq, "error", rejected)
		}
		pos, batch = batch[n-1].pos, batch[n:]
		if err := s.cursor.save(pos); err != nil {
			s.failed("the position cannot be written: events will be shipped again after a restart", err)
			continue
		}
		s.worked()
	}
	return pos
}

// more adds to a batch of one event those that came later, by which settle tells
// a collector that takes nothing from one that does not take this one.
func (s *Sink) more(batch []item) []item {
	if len(batch) > 1 {
		return batch
	}
	later, err := s.read(batch[0].pos)
	if err != nil {
		return batch // Run meets the error when it reads on.
	}
	return append(batch, later...)
}

func (s *Sink) send(ctx context.Context, batch []item) (rejected, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	return s.sender.send(ctx, batch)
}

// failed tells of the first of several failures.
func (s *Sink) failed(what string, err error) {
	if !s.failing {
		s.failing = true
		s.logger.Warn(what, "error", err)
	}
}

func (s *Sink) worked() {
	s.chunk, s.pause = min(2*s.chunk, batchRecords), s.first
	if s.failing {
		s.failing = false
		s.logger.Info("events are shipped again")
	}
}

// sleep is the pause after a failure.
func (s *Sink) sleep(ctx context.Context) {
	wait(ctx, s.pause)
	s.pause = min(2*s.pause, lastPause)
}

// wait returns some time after the log has grown past seq; false says that it
// never will.
func (s *Sink) wait(ctx context.Context, seq uint64) bool {
	select {
	case <-s.o.Log.Changed(seq):
		wait(ctx, s.linger)
		// A log that has changed without having grown is closed.
		return s.o.Log.Last() > seq
	case <-ctx.Done():
		return false
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
