package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/crimux/crimux/proxy/admin"
	"github.com/crimux/crimux/store"
)

const (
	// burstPage is how many records are copied out before they are handed on.
	burstPage = 512
	// burstTime is how long the log's lock is held at a time, and burstIdle
	// how long it is while nobody takes records. A daemon that starts waits
	// for the lock three times as long as the longer one, and looks for it
	// several times in burstGap.
	burstTime = 100 * time.Millisecond
	burstIdle = 50 * time.Millisecond
	burstGap  = 50 * time.Millisecond
	// handover is how long a daemon that has taken the lock may need until it
	// answers.
	handover = 30 * time.Second
)

// bursts reads a log's file in short bursts, between which the file is not
// open: who pages through events keeps no daemon from starting. When one does,
// the rest is read from it. It implements [store.Source].
type bursts struct {
	ctx  context.Context
	path string
	// daemon is the admin socket of the daemon whose log this is, "" where
	// there is none.
	daemon string
	open   func(path string) (recordReader, error)

	mu     sync.Mutex
	reader recordReader
	until  time.Time
}

// recordReader is a store.Reader, or what stands for it.
type recordReader interface {
	store.Source
	io.Closer
}

// openBursts opens the log at path, so that errors come at once.
func openBursts(ctx context.Context, path string) (*bursts, error) {
	b := &bursts{ctx: ctx, path: path, open: func(path string) (recordReader, error) { return store.OpenReadOnly(path) }}
	return b, b.reopen()
}

func (b *bursts) reopen() error {
	began := time.Now()
	r, err := b.open(b.path)
	if err != nil {
		return err
	}
	now := time.Now()
	// What takes long to open is worth holding for as long.
	b.reader, b.until = r, now.Add(max(burstTime, now.Sub(began)))
	return nil
}

// release lets go of the file, if it is open.
func (b *bursts) release() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reader == nil {
		return nil
	}
	err := b.reader.Close()
	b.reader = nil
	return err
}

// Close ends reading.
func (b *bursts) Close() error { return b.release() }

// errBurst ends the reading of a page.
var errBurst = errors.New("enough for now")

// Records is [store.Source].
func (b *bursts) Records(from uint64, fn func(store.Record) error) error {
	for {
		page, err := b.page(from)
		if errors.Is(err, store.ErrLocked) && b.daemon != "" {
			return b.fromDaemon(err, from, fn)
		}
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		if err := b.handOn(page, fn); err != nil {
			return err
		}
		from = page[len(page)-1].Seq + 1
	}
}

// page copies out some records. An error of reading comes after the records
// that are before it.
func (b *bursts) page(from uint64) ([]store.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reader == nil {
		if err := b.reopen(); err != nil {
			return nil, err
		}
	}
	var page []store.Record
	err := b.reader.Records(from, func(r store.Record) error {
		if page = append(page, r); len(page) == burstPage {
			return errBurst
		}
		return nil
	})
	if errors.Is(err, errBurst) || len(page) > 0 {
		err = nil
	}
	return page, err
}

// handOn gives records to whoever reads. The file is closed when its time is
// up, and when the reader pauses.
func (b *bursts) handOn(page []store.Record, fn func(store.Record) error) (err error) {
	if time.Now().After(b.until) {
		if err := b.release(); err != nil {
			return err
		}
		select {
		case <-time.After(burstGap):
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
	}
	released := make(chan error, 1)
	idle := time.AfterFunc(burstIdle, func() { released <- b.release() })
	defer func() {
		if !idle.Stop() {
			err = errors.Join(err, <-released)
		}
	}()
	for _, r := range page {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// fromDaemon reads the rest from the daemon that has taken the log.
func (b *bursts) fromDaemon(locked error, from uint64, fn func(store.Record) error) error {
	ctx, cancel := context.WithTimeout(b.ctx, handover)
	defer cancel()
	for {
		client, err := admin.Dial(b.ctx, b.daemon)
		if err == nil {
			err = client.Records(from, fn)
			return errors.Join(err, client.Close())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, and does not answer on %s", locked, b.daemon)
		case <-time.After(burstGap):
		}
	}
}
