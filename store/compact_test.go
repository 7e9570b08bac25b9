package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

// quiet are options with which the log is only taken care of when told to.
func quiet() Options { return Options{NoSync: true, Tick: time.Hour} }

// compactNow does what the keeper would do.
func compactNow(t testing.TB, l *Log) {
	t.Helper()
	l.keeper.upkeep.Lock()
	defer l.keeper.upkeep.Unlock()
	if err := l.compact(); err != nil {
		t.Fatal(err)
	}
}

// aDay is a log of pods that come and go, one an hour, and one that stays and
// whose container fails all the time. The events have the times of a clock.
func aDay(hours int) []*eventpb.Event {
	at := func(h int, events ...*eventpb.Event) []*eventpb.Event {
		for i, e := range events {
			e.Time = int64(h)*int64(time.Hour) + int64(i) + 1
		}
		return events
	}
	all := at(0, run("stay", "docker", "stay"), done("stay", "sb-stay"),
		createContainer("stay-c", "sb-stay", "web"), done("stay-c", "c-stay"))
	for h := range hours {
		uid := fmt.Sprint("u", h)
		op, sb, c := "op-"+uid, "sb-"+uid, "c-"+uid
		all = append(all, at(h,
			run(op, "docker", uid), done(op, sb), createContainer(op+"c", sb, "web"), done(op+"c", c),
			on(op+"s", methodStartContainer, sb, c), done(op+"s", ""),
			on("fail"+uid, methodStartContainer, "sb-stay", "c-stay"), failed("fail"+uid, 13),
			ev("pull"+uid, "docker", &eventpb.Intent{Method: "PullImage", Image: "x"}), done("pull"+uid, "x"),
			on(op+"r", methodRemovePodSandbox, sb, ""), done(op+"r", ""),
		)...)
	}
	return all
}

// told is what a reader of the log sees.
type told struct {
	ops       map[string]int // events of each
	compacted uint64
	repeats   map[string]uint64
	state     *State
	full      []string // states that can be told, by sequence number
}

func read(t testing.TB, src Source) told {
	t.Helper()
	r := told{ops: map[string]int{}, repeats: map[string]uint64{}, state: NewState(), full: make([]string, 100_000)}
	var chain Chain
	err := src.Records(0, func(rec Record) error {
		e, err := chain.Next(rec)
		if err != nil {
			return err
		}
		if err := r.state.Apply(e); err != nil {
			return err
		}
		if e.GetSnapshot() == nil {
			r.ops[e.GetOp()]++
		}
		r.compacted += e.GetCompacted().GetCount()
		for _, rep := range e.GetCompacted().GetRepeated() {
			r.repeats[rep.GetOp()] += rep.GetCount()
		}
		if !r.state.Partial() {
			r.full[e.GetSeq()] = string(stateBytes(t, r.state))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What is older than the retention goes, but for the story of the pod that
// lives; the states since are what they were.
func TestCompactByAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	clock := clockAt(time.Unix(0, 0).Add(24 * time.Hour))
	o := quiet()
	o.Retention, o.Now = 6*time.Hour, clock.now
	l := open(t, path, o)
	for _, e := range aDay(24) {
		l.Append(e)
	}
	mustAppend(t, l)
	before := read(t, l)
	compactNow(t, l)
	after := read(t, l)
	sameState(t, "compacted", before.state, after.state)
	for h := range 24 {
		op := fmt.Sprint("op-u", h)
		want := 0
		if h >= 18 {
			want = 2
		}
		if got := after.ops[op]; got != want {
			t.Errorf("hour %d: %d events of its pod are left, want %d", h, got, want)
		}
	}
	if after.ops["stay"] != 2 || after.ops["stay-c"] != 2 || after.ops["failu0"] != 2 || after.ops["failu1"] != 0 || after.ops["failu20"] != 2 {
		t.Errorf("the story of the pod that lives: %v", after.ops)
	}
	if after.repeats["failu0"] != 17 {
		t.Errorf("repeated failures: %v", after.repeats)
	}
	states := 0
	for seq, s := range after.full {
		if s != "" && s != before.full[seq] {
			t.Errorf("the state at %d is not what it was", seq)
		}
		if s != "" {
			states++
		}
	}
	if states < 6*12 {
		t.Errorf("%d states are left", states)
	}
	rep, err := Verify(l)
	if err != nil || !rep.Sound() || rep.Compacted != after.compacted || rep.Compacted+rep.Count != l.Last() || rep.Base == 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	// A day later the pods of that day are gone, too, and their stubs with
	// those before are one.
	e := started("b")
	e.Time = clock.add(24 * time.Hour).UnixNano()
	mustAppend(t, l, e)
	compactNow(t, l)
	again := read(t, l)
	if again.ops["op-u20"] != 0 || again.ops["stay"] != 2 || again.repeats["failu0"] != 23 {
		t.Errorf("a day later: %v, %v", again.ops, again.repeats)
	}
	if again.ops[""] > 6 {
		t.Errorf("%d stubs and events of no operation: stubs did not grow together", again.ops[""])
	}
	mustClose(t, l)
	reopened := open(t, path, quiet())
	reopened.View(func(s *State) { sameState(t, "reopened", again.state, s) })
}

// The size is bounded whatever the retention, in the file, too.
func TestCompactBySize(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	const limit = 1 << 20
	l := open(t, path, Options{NoSync: true, MaxSize: limit, Tick: 5 * time.Millisecond, SnapshotEvery: 500, OnFailure: func(err error) { t.Error(err) }})
	most := int64(0)
	for i, e := range aDay(3000) {
		e.Time = 0
		l.Append(e)
		if i%100 == 0 {
			mustAppend(t, l)
			most = max(most, l.used.Load())
			for l.Pressure() != nil {
				time.Sleep(time.Millisecond)
			}
		}
	}
	mustAppend(t, l)
	if most > limit {
		t.Errorf("%d bytes were in use, the most is %d", most, limit)
	}
	until(t, "a log that is not too large", func() bool { return !l.tooLarge() })
	after := read(t, l)
	if after.ops["stay"] != 2 && after.ops["op-u2999"] != 2 {
		t.Errorf("what is left: %d operations", len(after.ops))
	}
	rep, err := Verify(l)
	if err != nil || !rep.Sound() || rep.Compacted+rep.Count != l.Last() {
		t.Errorf("%v, %v, %d + %d of %d", err, rep.Damage, rep.Compacted, rep.Count, l.Last())
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 2*limit {
		t.Errorf("the file has %d bytes, the log may have %d", info.Size(), limit)
	}
}

// limit changes what a log may have, between two looks of its own at that.
func limit(l *Log, size int64) {
	l.keeper.upkeep.Lock()
	defer l.keeper.upkeep.Unlock()
	l.opts.MaxSize = size
}

// A file most of which is free becomes a small one, while it is in use.
func TestShrink(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	o := quiet()
	o.MaxSize = 64 << 10
	l := open(t, path, o)
	limit(l, 0)
	for _, e := range aDay(2000) {
		l.Append(e)
	}
	mustAppend(t, l)
	big, _ := os.Stat(path)
	want := read(t, l).state
	limit(l, 64<<10)
	compactNow(t, l)
	stop := make(chan struct{})
	ended := make(chan int)
	limit(l, 0)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				ended <- n
				return
			default:
			}
			if _, err := l.Append(started("b")).Wait(background); err != nil {
				t.Error(err)
			}
			// However long it takes, they stay few beside what was taken out.
			time.Sleep(time.Duration(100+n) * time.Microsecond)
		}
	}()
	for range 3 {
		l.keeper.upkeep.Lock()
		l.keeper.shrinkAt = time.Time{}
		err := l.rewriteLocked()
		l.keeper.upkeep.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	n := <-ended
	if last := mustAppend(t, l); last != want.Seq()+uint64(n) {
		t.Errorf("the log is at %d, want %d", last, want.Seq()+uint64(n))
	}
	small, _ := os.Stat(path)
	if small.Size() >= big.Size() {
		t.Errorf("%d bytes became %d", big.Size(), small.Size())
	}
	if left, _ := filepath.Glob(path + rewriteSuffix); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := Open(path, quiet()); err == nil {
		t.Error("the new file is not locked")
	}
}

// compactForever appends, compacts and writes the file anew until it is killed.
func compactForever(args []string) error {
	o := Options{NoSync: true, MaxSize: 256 << 10, Tick: time.Millisecond, SnapshotEvery: 200}
	l, err := Open(args[0], o)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if i%50 == 0 {
			l.keeper.upkeep.Lock()
			err := l.rewriteLocked()
			l.keeper.upkeep.Unlock()
			if err != nil {
				return err
			}
		}
		op := fmt.Sprint(args[1], "-", i)
		seq, err := l.Append(run(op, "docker", op), done(op, "sb"+op), on(op+"r", methodRemovePodSandbox, "sb"+op, ""), done(op+"r", "")).Wait(context.Background())
		if err != nil {
			continue // it is full for a moment
		}
		fmt.Println(seq, "acknowledged")
	}
}

// Killed in the middle of it all, nothing is lost, and it goes on.
func TestKillCompaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	acked := uint64(0)
	for round := range 6 {
		cmd, out := child(t, "compact", path, strconv.Itoa(round))
		delay := time.Duration(50+rand.IntN(250)) * time.Millisecond
		var kill *time.Timer
		for out.Scan() {
			if kill == nil {
				kill = time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
			}
			if f := strings.Fields(out.Text()); len(f) == 2 && f[1] == "acknowledged" {
				acked, _ = strconv.ParseUint(f[0], 10, 64)
			}
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		r, err := OpenReadOnly(path)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := Verify(r)
		if err != nil || !rep.Sound() || rep.Last < acked || rep.Count+rep.Compacted != rep.Last {
			t.Errorf("round %d: acknowledged %d; %d + %d of %d; %v, %v, %v", round, acked, rep.Count, rep.Compacted, rep.Last, rep.Damage, rep.Broken, err)
		}
		t.Logf("round %d: killed after %v at %d, of which %d are compacted", round, delay, rep.Last, rep.Compacted)
		mustCloseReader(t, r)
	}
}

func mustCloseReader(t *testing.T, r *Reader) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRandomLog does anything that is done to a log, in any order, and holds
// it to a model: the events that were appended.
func TestRandomLog(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (run again with -seed)", seed)
	for round := range 8 {
		r := &randomEvents{Rand: rand.New(rand.NewPCG(seed, uint64(round))), clock: clockAt(time.Unix(0, 1000))}
		randomLog(t, r)
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
}

func randomLog(t *testing.T, r *randomEvents) {
	path := filepath.Join(t.TempDir(), FileName)
	o := quiet()
	o.Now = r.clock.now
	l, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	model := NewState()
	states := []string{string(stateBytes(t, model))}
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	locked := func(fn func() error) {
		t.Helper()
		l.keeper.upkeep.Lock()
		defer l.keeper.upkeep.Unlock()
		step(fn())
	}
	reopen := func() {
		t.Helper()
		l, err = Open(path, o)
		step(err)
		l.View(func(s *State) { sameState(t, "reopened", model, s) })
	}
	for range 300 {
		switch r.IntN(40) {
		case 0:
			locked(l.takeSnapshot)
		case 1:
			locked(func() error { l.opts.Retention = time.Duration(1 + r.IntN(500)); return l.compact() })
		case 2:
			locked(func() error {
				l.opts.MaxSize = int64(1+r.IntN(64)) << 10
				defer func() { l.opts.MaxSize = 0 }()
				return l.compact()
			})
		case 3:
			locked(l.rewriteLocked)
		case 4:
			mustClose(t, l)
			reopen()
		case 5: // a kill: the file as it is, whoever held it
			data, err := os.ReadFile(path)
			step(err)
			mustClose(t, l)
			step(os.WriteFile(path, data, 0o600))
			step(os.Remove(path + markSuffix))
			reopen()
		default:
			e := r.event()
			c := proto.CloneOf(e)
			if _, err := l.Append(e).Wait(t.Context()); err != nil {
				continue
			}
			c.Seq = e.GetSeq()
			step(model.Apply(c))
			states = append(states, string(stateBytes(t, model)))
		}
	}
	after := read(t, l)
	sameState(t, "read", model, after.state)
	for seq, s := range after.full {
		if s != "" && s != states[seq] {
			t.Fatalf("the state at %d is not what it was", seq)
		}
	}
	rep, err := Verify(l)
	if err != nil || rep.Damage != nil || rep.Lost > 0 || rep.Compacted+rep.Count != l.Last() {
		t.Errorf("%+v, %v", rep, err)
	}
	mustClose(t, l)
}
