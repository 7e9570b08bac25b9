package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// grow appends n events to the node's log.
func (n *node) grow(count int) {
	n.t.Helper()
	l, err := store.Open(n.events, store.Options{NoSync: true})
	if err != nil {
		n.t.Fatal(err)
	}
	var events []*eventpb.Event
	for i := range count {
		events = append(events, &eventpb.Event{Kind: &eventpb.Event_Stopped{Stopped: &eventpb.Stopped{Reason: fmt.Sprint("no ", i)}}})
	}
	if _, err := l.Append(events...).Wait(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		n.t.Fatal(err)
	}
}

// TestPagerKeepsNoDaemonOut reads a log as 'crimux events | less' does, which
// stops after some lines. A daemon starts meanwhile; the rest comes from it.
func TestPagerKeepsNoDaemonOut(t *testing.T) {
	n := newBareNode(t)
	n.grow(3 * burstPage)
	lines, stop := n.following("events", "--absolute")
	lines.Scan()
	l, _ := n.daemon() // It fails the test where the log is locked.
	if _, err := l.Append(&eventpb.Event{Kind: &eventpb.Event_Stopped{Stopped: &eventpb.Stopped{Reason: "the last"}}}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	count, last := 0, ""
	for lines.Scan() {
		count, last = count+1, lines.Text()
	}
	if count != 3*burstPage+1 || !strings.Contains(last, "the last") {
		t.Errorf("%d lines, the last %q", count, last)
	}
	if code := stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// reads is a log that can be opened several times, and whose opening can fail.
type reads struct {
	opened, closed int
	open           bool
	locked         bool
	n              uint64
	err            error
}

func (r *reads) Records(from uint64, fn func(store.Record) error) error {
	if !r.open {
		return store.ErrClosed
	}
	for seq := max(from, 1); seq <= r.n; seq++ {
		if err := fn(store.Record{Seq: seq}); err != nil {
			return err
		}
	}
	return r.err
}

func (r *reads) Close() error {
	r.closed++
	r.open = false
	return nil
}

func (r *reads) bursts(t *testing.T) *bursts {
	b := &bursts{ctx: t.Context(), path: "x", open: func(string) (recordReader, error) {
		if r.locked {
			return nil, &store.LockedError{Path: "x"}
		}
		r.opened++
		r.open = true
		return r, nil
	}}
	if err := b.reopen(); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBurstsLetGo has one that takes its time over a record, and one that is
// quick but long: the file is closed meanwhile, and every record comes once.
func TestBurstsLetGo(t *testing.T) {
	r := &reads{n: 3*burstPage + 7}
	b := r.bursts(t)
	next := uint64(1)
	err := b.Records(0, func(rec store.Record) error {
		if rec.Seq != next {
			t.Fatalf("record %d comes after %d", rec.Seq, next-1)
		}
		next++
		if rec.Seq == 3 {
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
				b.mu.Lock()
				open := b.reader != nil
				b.mu.Unlock()
				if !open {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the file is held while nobody reads")
				}
			}
		}
		if rec.Seq == burstPage+1 {
			b.until = time.Now().Add(-time.Second)
		}
		return nil
	})
	if err != nil || next != r.n+1 {
		t.Errorf("got to %d, %v", next-1, err)
	}
	if r.opened < 3 || r.opened != r.closed+1 {
		t.Errorf("opened %d times, closed %d times", r.opened, r.closed)
	}
	if err := errors.Join(b.Close(), b.Close()); err != nil || r.open {
		t.Errorf("closing: %v", err)
	}
}

// TestBurstsFail checks that errors come after the records before them.
func TestBurstsFail(t *testing.T) {
	r := &reads{n: 5, err: store.ErrDamaged}
	read := 0
	count := func(store.Record) error { read++; return nil }
	if err := r.bursts(t).Records(0, count); !errors.Is(err, store.ErrDamaged) || read != 5 {
		t.Errorf("%d records, then %v", read, err)
	}
	if err := r.bursts(t).Records(0, func(store.Record) error { return io.EOF }); err != io.EOF {
		t.Errorf("the reader's own error comes back as %v", err)
	}
	// Another one took the lock for good, and is no daemon.
	r = &reads{n: 2 * burstPage}
	b := r.bursts(t)
	err := b.Records(0, func(rec store.Record) error {
		r.locked = true
		return b.release()
	})
	if !errors.Is(err, store.ErrLocked) {
		t.Errorf("locked meanwhile: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.locked = false
	b = r.bursts(t)
	b.ctx, b.until = ctx, time.Now().Add(-time.Second)
	cancel()
	if err := b.Records(0, count); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
