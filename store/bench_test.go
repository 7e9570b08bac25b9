package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/crimux/crimux/store/eventpb"
)

// fsyncTime is what a write of one page with its fdatasync takes on the disk
// under dir, the mean of some: the floor of everything durable.
func fsyncTime(b *testing.B, dir string) time.Duration {
	b.Helper()
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const n = 200
	page := make([]byte, os.Getpagesize())
	var start time.Time
	for i := range n + 20 {
		if i == 20 {
			start = time.Now() // the first ones allocate
		}
		if _, err := f.WriteAt(page, int64(i%10)*int64(len(page))); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / n
}

// benchAppend appends b.N operations of two events from that many goroutines,
// each of which waits for each event.
func benchAppend(b *testing.B, workers int) {
	dir := b.TempDir()
	l, err := Open(filepath.Join(dir, FileName), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	fsync := fsyncTime(b, dir)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < b.N; i += workers {
				e := run(fmt.Sprint("o", i/2/workers*workers+w), "docker", "u")
				if i/workers%2 == 1 {
					e = done(e.GetOp(), "")
				}
				if _, err := l.Append(e).Wait(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(fsync.Microseconds()), "µs/fdatasync")
}

// BenchmarkAppendOne is the latency of one durable event.
func BenchmarkAppendOne(b *testing.B) { benchAppend(b, 1) }

// BenchmarkAppend64 is the throughput of the group commit.
func BenchmarkAppend64(b *testing.B) { benchAppend(b, 64) }

// benchEvents is how many events are folded; a node has seen a million.
const benchEvents = 100_000

// history is what a node with that many pods at a time goes through.
func history(i int) *eventpb.Event {
	pod, step := i/8, i%8
	uid := fmt.Sprint(pod)
	op, sb, c := fmt.Sprint("o", pod, "-", step/2), "sb"+uid, "c"+uid
	if step%2 == 1 {
		return done(op, map[int]string{1: sb, 3: c}[step])
	}
	switch step {
	case 0:
		return run(op, "docker", uid)
	case 2:
		return createContainer(op, sb, "web")
	case 4:
		return on(op, methodStartContainer, sb, c)
	}
	// Of the pods, the last 200 live.
	old := max(0, pod-200)
	return on(op, methodRemovePodSandbox, fmt.Sprint("sb", old), "")
}

// longEvents is how many a node has seen in its life.
const longEvents = 1_000_000

// longLog writes a log of that many events and returns its path.
func longLog(b *testing.B, n int) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), FileName)
	l, err := Open(path, Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		l.Append(history(i))
	}
	if last, err := l.Append().Wait(b.Context()); err != nil || last != uint64(n) {
		b.Fatalf("%d events: %v", last, err)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	return path
}

// benchOpen opens and closes a log, and reports what an event costs.
func benchOpen(b *testing.B, path string, n int) {
	b.Helper()
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		l, err := Open(path, Options{NoSync: true})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		l.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(info.Size())/float64(n), "B/event")
}

// BenchmarkOpen is the start of the daemon with a million events and a
// snapshot: the structure of the file, the snapshot, and what is after it.
func BenchmarkOpen(b *testing.B) { benchOpen(b, longLog(b, longEvents), longEvents) }

// BenchmarkOpenWithout is the same without a snapshot: all is verified and
// folded.
func BenchmarkOpenWithout(b *testing.B) {
	path := longLog(b, longEvents)
	for b.Loop() {
		b.StopTimer()
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
		if err != nil {
			b.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketSnapshots) })
		if err := errors.Join(err, db.Close()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		l, err := Open(path, Options{NoSync: true})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "MiB-live")
		l.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(longEvents)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkVerify is 'crimux verify' of a million events.
func BenchmarkVerify(b *testing.B) {
	path := longLog(b, longEvents)
	for b.Loop() {
		r, err := OpenReadOnly(path)
		if err != nil {
			b.Fatal(err)
		}
		rep, err := Verify(r)
		if err := errors.Join(err, rep.Damage, r.Close()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(longEvents)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkFold is the fold alone.
func BenchmarkFold(b *testing.B) {
	events := make([]*eventpb.Event, benchEvents)
	for i := range events {
		events[i] = history(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Fold(numbered(events)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(benchEvents)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
