package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/crimux/crimux/store/eventpb"
)

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "var", "lib", "crimux")
	path := filepath.Join(dir, FileName)
	clock := clockAt(time.Unix(1, 0))
	l := open(t, path, Options{Now: func() time.Time { return clock.add(time.Second) }})
	if got := l.Last(); got != 0 {
		t.Errorf("an empty log is at %d", got)
	}
	events := aPod(started("b1"))
	timed := ev("", "", &eventpb.Stopped{})
	timed.Time = 42
	for _, e := range append(events, timed) {
		mustAppend(t, l, e)
	}
	l.View(func(s *State) {
		if c := s.Container("c"); c.GetCreatedAt() <= time.Unix(1, 0).UnixNano() {
			t.Errorf("the log gave no time: %v", c)
		}
	})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, path, Options{})
	l.View(func(before *State) { again.View(func(after *State) { sameState(t, "reopened", before, after) }) })
	if got := mustAppend(t, again, started("b1")); got != 9 {
		t.Errorf("the next event is %d, want 9", got)
	}
	var last *eventpb.Event
	err := again.Records(8, func(r Record) (err error) {
		if r.Seq == 8 && last == nil {
			last, err = r.Event()
		}
		return err
	})
	if err != nil || last.GetTime() != 42 {
		t.Errorf("the time of an event is not kept: %v, %v", last, err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600, dir: 0o700, filepath.Dir(dir): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s is %v, want %v: %v", p, info.Mode(), want, err)
		}
	}
}

// A crash while the file is born leaves no log, and something to sweep.
func TestBirthAfterCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(path+birthSuffix, []byte("half a log"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReadOnly(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a log was opened: %v", err)
	}
	mustAppend(t, open(t, path, Options{}), started("b"))
	if _, err := os.Stat(path + birthSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was not swept up: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	if err := os.Symlink("elsewhere", path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil {
		t.Error("a symlink was followed")
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("what a symlink names was made")
	}
	if _, err := Open(filepath.Join(path, FileName), Options{}); err == nil {
		t.Error("opened below something that is no directory")
	}
	if _, err := Open("/proc/crimux/"+FileName, Options{}); err == nil {
		t.Error("opened where nothing can be made")
	}
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("a directory was opened")
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	cmd, out := child(t, "hold", path)
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if !out.Scan() || out.Text() != "open" {
		t.Fatalf("the child says %q", out.Text())
	}
	for name, try := range map[string]func() error{
		"Open":         func() error { _, err := Open(path, Options{}); return err },
		"OpenReadOnly": func() error { _, err := OpenReadOnly(path); return err },
	} {
		start := time.Now()
		err := try()
		if took := time.Since(start); took > time.Minute { // a tenth of what the child holds it
			t.Errorf("%s took %v to give up", name, took)
		}
		var locked *LockedError
		if !errors.As(err, &locked) || !errors.Is(err, ErrLocked) {
			t.Fatalf("%s: %v", name, err)
		}
		if locked.Path != path || locked.PID != cmd.Process.Pid || locked.Command == "" {
			t.Errorf("%s: %+v, want process %d", name, locked, cmd.Process.Pid)
		}
	}
}

func TestLockedErrorText(t *testing.T) {
	for want, e := range map[string]*LockedError{
		"f is in use by another process":    {Path: "f"},
		"f is in use by process 7":          {Path: "f", PID: 7},
		"f is in use by crimux (process 7)": {Path: "f", PID: 7, Command: "crimux"},
	} {
		if e.Error() != want {
			t.Errorf("got %q, want %q", e, want)
		}
	}
	locks := "1: POSIX  ADVISORY  WRITE 5 fe:00:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 6 fe:00:777 0 EOF\nrubbish\n" +
		"3: -> FLOCK  ADVISORY  WRITE 8 fe:00:77 0 EOF\n4: FLOCK  ADVISORY  WRITE 7 fe:00:77 0 EOF\n"
	if got := holder([]byte(locks), 77); got != 7 {
		t.Errorf("the holder is %d", got)
	}
	if got := holder([]byte(locks), 5); got != 0 {
		t.Errorf("the holder of nothing is %d", got)
	}
}

// Two processes that both find no log must not both make one.
func TestBirthRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	var wg sync.WaitGroup
	logs := make([]*Log, 8)
	for i := range logs {
		wg.Go(func() {
			l, err := Open(path, Options{NoSync: true})
			if err != nil && !errors.Is(err, ErrLocked) {
				t.Error(err)
			}
			logs[i] = l
		})
	}
	wg.Wait()
	logs = slices.DeleteFunc(logs, func(l *Log) bool { return l == nil })
	if len(logs) != 1 {
		t.Errorf("%d logs are open at once", len(logs))
	}
	for _, l := range logs {
		mustAppend(t, l, started("b"))
		_ = l.Close()
	}
}

func TestAppendRefuses(t *testing.T) {
	l := newLog(t)
	newer := started("b")
	newer.MinReader = Schema + 1
	huge := started(strings.Repeat("x", maxEvent))
	tests := []struct {
		name   string
		events []*eventpb.Event
	}{
		{"an outcome of nothing", []*eventpb.Event{done("o9", "")}},
		{"an intent without an operation", []*eventpb.Event{run("", "docker", "u")}},
		{"two intents in one", []*eventpb.Event{run("o8", "docker", "u"), run("o8", "docker", "u")}},
		{"two outcomes in one", []*eventpb.Event{run("o8", "docker", "u"), done("o8", "x"), done("o8", "x")}},
		{"an event for a newer reader", []*eventpb.Event{newer}},
		{"no kind", []*eventpb.Event{{}}},
		{"no event", []*eventpb.Event{started("b"), nil}},
		{"no UTF-8", []*eventpb.Event{started("\xff")}},
		{"too large", []*eventpb.Event{huge}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := l.Append(tt.events...).Wait(t.Context()); !errors.Is(err, ErrRefused) {
				t.Errorf("got %v", err)
			}
		})
	}
	if got := l.Last(); got != 0 {
		t.Fatalf("%d events of those refused were written", got)
	}
	// Refusals leave alone what is queued with them, and look beyond it.
	first := l.Append(run("o1", "docker", "u"))
	twice := l.Append(started("b"), run("o1", "docker", "u"))
	out := l.Append(done("o1", "sb"))
	second := l.Append(done("o1", "sb"))
	again := l.Append(run("o1", "docker", "u"))
	for i, want := range []struct {
		p   *Pending
		seq uint64
		err error
	}{{first, 1, nil}, {twice, 0, ErrRefused}, {out, 2, nil}, {second, 0, ErrRefused}, {again, 3, nil}} {
		if seq, err := want.p.Wait(t.Context()); seq != want.seq || !errors.Is(err, want.err) {
			t.Errorf("append %d: %d, %v; want %d, %v", i, seq, err, want.seq, want.err)
		}
	}
}

func TestWait(t *testing.T) {
	l := newLog(t)
	release := stall(l)
	p := l.Append(started("b"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if l.Last() != 0 {
		t.Error("the state is ahead of the disk")
	}
	behind, barrier := l.Append(started("c")), l.Append()
	close(release)
	if seq, err := barrier.Wait(t.Context()); seq != 2 || err != nil {
		t.Errorf("barrier: %d, %v", seq, err)
	}
	if seq, err := p.Wait(ctx); seq != 1 || err != nil {
		t.Errorf("a wait for what is done: %d, %v", seq, err)
	}
	if seq, err := behind.Wait(t.Context()); seq != 2 || err != nil {
		t.Errorf("behind: %d, %v", seq, err)
	}
}

// stall holds up the log's next commits until the channel is closed.
func stall(l *Log) chan struct{} {
	release, next := make(chan struct{}), l.update
	l.update = func(fn func(*bbolt.Tx) error) error {
		<-release
		return next(fn)
	}
	return release
}

func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	l := open(t, path, Options{NoSync: true})
	release := stall(l)
	var pending []*Pending
	for range 10 {
		pending = append(pending, l.Append(started("b")))
	}
	follower := l.Changed(1 << 40)
	time.AfterFunc(20*time.Millisecond, func() { close(release) })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for i, p := range pending {
		if seq, err := p.Wait(t.Context()); seq != uint64(i+1) || err != nil {
			t.Errorf("append %d: %d, %v", i+1, seq, err)
		}
	}
	<-follower
	<-l.Changed(1 << 40)
	if _, err := l.Append(started("b")).Wait(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Append: %v", err)
	}
	if err := l.Records(1, func(Record) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Records: %v", err)
	}
	if err := l.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
	r, err := OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.State(); !errors.Is(err, ErrClosed) {
		t.Errorf("State: %v", err)
	}
	if err := r.Records(1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Records: %v", err)
	}
	if err := r.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
}

// A queue that is full makes Append wait, and closing it lets it go.
func TestQueueIsBounded(t *testing.T) {
	l := newLog(t)
	release := stall(l)
	var queued, refused int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range queueEvents {
				p := l.Append(started("b"))
				mu.Lock()
				select {
				case <-p.done:
					refused++
				default:
					queued++
				}
				mu.Unlock()
			}
		})
	}
	settled := func() int { mu.Lock(); defer mu.Unlock(); return queued }
	until(t, "a full queue", func() bool { return settled() >= queueEvents })
	for n := -1; n != settled(); time.Sleep(50 * time.Millisecond) {
		n = settled()
	}
	if n := settled(); n < queueEvents || n > 2*queueEvents {
		t.Errorf("%d events are queued, the bound is %d", n, queueEvents)
	}
	l.queue.close()
	wg.Wait()
	close(release)
	<-l.done
	if queued+refused != 4*queueEvents || l.Last() != uint64(queued) {
		t.Errorf("%d queued, %d refused, %d written", queued, refused, l.Last())
	}
	if err := l.file.close(); err != nil {
		t.Error(err)
	}
}

// 64 goroutines append at once: the calls of each keep their order, the events
// of a call their neighbourhood, and the commits are shared.
func TestGroupCommit(t *testing.T) {
	const workers, calls, group = 64, 40, 3
	l := newLog(t)
	commits, next := 0, l.update
	l.update = func(fn func(*bbolt.Tx) error) error {
		commits++
		time.Sleep(time.Millisecond) // as a disk takes
		return next(fn)
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var last *Pending
			for c := range calls {
				var events []*eventpb.Event
				for g := range group {
					events = append(events, ev("", fmt.Sprint(w), &eventpb.Called{Method: fmt.Sprint(c), Code: uint32(g)}))
				}
				last = l.Append(events...)
				if c%10 == 0 {
					if _, err := last.Wait(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
			if _, err := last.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if l.Last() != workers*calls*group {
		t.Fatalf("%d events are there", l.Last())
	}
	if commits > workers*calls/4 {
		t.Errorf("%d commits for %d calls: they are not shared", commits, workers*calls)
	}
	calledBy := map[string]int{}
	var inCall int
	var chain Chain
	err := l.Records(1, func(r Record) error {
		e, err := chain.Next(r)
		if err != nil {
			return err
		}
		c := e.GetCalled()
		if c.GetMethod() != fmt.Sprint(calledBy[e.GetBackend()]) || int(c.GetCode()) != inCall {
			return fmt.Errorf("event %d is %v, of which %d calls came before", r.Seq, e, calledBy[e.GetBackend()])
		}
		if inCall = (inCall + 1) % group; inCall == 0 {
			calledBy[e.GetBackend()]++
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestChanged(t *testing.T) {
	l := newLog(t)
	at0, at1, same := l.Changed(0), l.Changed(1), l.Changed(0)
	if at0 != same {
		t.Error("two followers at one place do not share")
	}
	mustAppend(t, l, started("b"))
	<-at0
	<-l.Changed(0)
	select {
	case <-at1:
		t.Error("told of event 2, which is not there")
	default:
	}
	mustAppend(t, l, started("b"))
	<-at1
	if n := len(l.watchers); n != 0 {
		t.Errorf("%d watchers are left", n)
	}
}

// A consumer may take its time, stop, and write to the log while it reads.
func TestRecords(t *testing.T) {
	l := newLog(t)
	const n = 3*pageRecords + 7
	for range n {
		l.Append(started("b"))
	}
	l.Append(ev("", "", &eventpb.Stopped{Reason: strings.Repeat("x", 2*pageBytes)}))
	last := mustAppend(t, l)
	var seen uint64
	err := l.Records(1, func(r Record) error {
		if seen++; r.Seq != seen {
			return fmt.Errorf("record %d is %d", seen, r.Seq)
		}
		if seen%pageRecords == 0 {
			mustAppend(t, l, started("b"))
		}
		return nil
	})
	if err != nil || seen != last {
		t.Errorf("%d records of %d: %v", seen, last, err)
	}
	stop := errors.New("stop")
	seen = 0
	err = l.Records(5, func(r Record) error { seen = r.Seq; return stop })
	if !errors.Is(err, stop) || seen != 5 {
		t.Errorf("stopped at %d: %v", seen, err)
	}
	if err := l.Records(last+100, func(Record) error { return stop }); err != nil {
		t.Errorf("past the end: %v", err)
	}
}

func TestNewOp(t *testing.T) {
	var ops []string
	for i := range 1000 {
		ops = append(ops, newOp(time.UnixMilli(1_700_000_000_000+int64(i))))
	}
	if !slices.IsSorted(ops) || len(slices.Compact(slices.Clone(ops))) != len(ops) {
		t.Error("ids do not sort by time")
	}
	op := NewOp()
	if len(op) != 26 || strings.ToLower(op) != op || op[:10] == NewOp()[10:20] {
		t.Errorf("an id is %q", op)
	}
	id, err := BootID()
	if err != nil || len(id) != 36 {
		t.Errorf("boot id %q: %v", id, err)
	}
}
