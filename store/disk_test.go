package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/crimux/crimux/store/eventpb"
)

// smallDisk mounts a file system of that many bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("crimux", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("no tmpfs can be mounted here (root is needed): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func until(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !fn(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// On a full disk the stops of 110 pods are still recorded, reads go on, what
// would begin something is told not to, and when there is room all is well.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, 16<<20)
	path := filepath.Join(dir, FileName)
	o := Options{Ballast: 4 << 20, Tick: 5 * time.Millisecond}
	l, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the ballast", func() bool { return exists(path+ballastSuffix) == nil })
	for i := range 110 {
		id := fmt.Sprint(i)
		mustAppend(t, l, run("r"+id, "docker", id), done("r"+id, "sb"+id))
	}
	if err := l.Pressure(); err != nil {
		t.Errorf("there is room: %v", err)
	}
	hog := filepath.Join(dir, "hog")
	f, err := os.Create(hog)
	if err != nil {
		t.Fatal(err)
	}
	if err := fill0(f, 1<<30); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the pressure", func() bool { return errors.Is(l.Pressure(), ErrFull) })
	for i := range 110 {
		id := fmt.Sprint(i)
		mustAppend(t, l, on("s"+id, methodStopPodSandbox, "sb"+id, ""), done("s"+id, ""))
		mustAppend(t, l, on("d"+id, methodRemovePodSandbox, "sb"+id, ""), done("d"+id, ""))
	}
	// With the ballast gone and used up, an append fails by name.
	big := strings.Repeat("x", 100_000)
	until(t, "an error", func() bool {
		_, err := l.Append(ev("", "", &eventpb.Stopped{Reason: big})).Wait(background)
		if err != nil && (!errors.Is(err, ErrFull) || !errors.Is(err, ErrUnwritable) || !errors.Is(err, syscall.ENOSPC)) {
			t.Errorf("an error without a name: %v", err)
		}
		return err != nil
	})
	if rep, err := Verify(l); err != nil || !rep.Sound() {
		t.Errorf("on a full disk: %v, %v", rep.Damage, err)
	}
	l.View(func(s *State) {
		for range s.Sandboxes() {
			t.Error("a sandbox was not removed")
		}
	})
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	until(t, "the recovery", func() bool { return l.Pressure() == nil })
	mustAppend(t, l, started("b"))
	until(t, "the ballast again", func() bool { return exists(path+ballastSuffix) == nil })
	mustClose(t, l)
	r, err := OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := Verify(r); err != nil || !rep.Sound() {
		t.Errorf("afterwards: %v, %v", rep.Damage, err)
	}
	mustCloseReader(t, r)
}

// A file system that becomes read-only, and can be written to again.
func TestReadOnlyDisk(t *testing.T) {
	dir := smallDisk(t, 16<<20)
	path := filepath.Join(dir, FileName)
	l, err := Open(path, Options{Tick: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, run("o1", "docker", "u"))
	// A file that is open for writing keeps a file system from being
	// remounted: as with a failing disk, it is the transaction that fails.
	broken := true
	var mu = make(chan struct{}, 1)
	mu <- struct{}{}
	next := l.update
	l.update = func(fn func(*bbolt.Tx) error) error {
		<-mu
		defer func() { mu <- struct{}{} }()
		if broken {
			return &os.PathError{Op: "write", Path: path, Err: syscall.EROFS}
		}
		return next(fn)
	}
	_, err = l.Append(done("o1", "sb")).Wait(background)
	if !errors.Is(err, ErrUnwritable) || !errors.Is(err, syscall.EROFS) || errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
	if err := l.Pressure(); !errors.Is(err, ErrUnwritable) {
		t.Errorf("Pressure: %v", err)
	}
	l.View(func(s *State) {
		if s.Operation("o1") == nil {
			t.Error("what was refused is in the state")
		}
	})
	<-mu
	broken = false
	mu <- struct{}{}
	until(t, "the recovery", func() bool { return l.Pressure() == nil })
	mustAppend(t, l, done("o1", "sb"))
	mustClose(t, l)
}

// After an error of the disk the file is written anew before anything is
// acknowledged: what the kernel takes for written may not be.
func TestErrorOfTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	l, f := faulty(t, path)
	mustAppend(t, l, started("b"))
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f.after = 1
	if _, err := l.Append(started("lost")).Wait(background); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	if seq := mustAppend(t, l, started("b")); seq != 2 {
		t.Errorf("the next event is %d, want 2", seq)
	}
	after, err := os.Stat(path)
	if err != nil || os.SameFile(before, after) {
		t.Errorf("it is the same file: %v", err)
	}
}

// A slow disk holds up those who wait for it and nobody else.
func TestSlowDisk(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), FileName), quiet())
	mustAppend(t, l, started("b"))
	next, entered, release := l.update, make(chan struct{}, 8), make(chan struct{})
	l.update = func(fn func(*bbolt.Tx) error) error {
		entered <- struct{}{}
		<-release
		return next(fn)
	}
	p := l.Append(started("b"))
	<-entered
	q := l.Append(started("b")) // returns at once
	l.View(func(s *State) {
		if s.Seq() != 1 {
			t.Error("an event is in the state before it is on disk")
		}
	})
	if err := l.Records(0, func(Record) error { return nil }); err != nil {
		t.Error(err)
	}
	select {
	case <-p.done:
		t.Error("an event is acknowledged before it is on disk")
	default:
	}
	close(release)
	for _, p := range []*Pending{p, q} {
		if _, err := p.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// At the size that the configuration allows, and with nothing to take out,
// events are refused; before that, creates are told to stop.
func TestHardLimit(t *testing.T) {
	o := quiet()
	o.MaxSize = 1 << 20
	l := open(t, filepath.Join(t.TempDir(), FileName), o)
	soft := false
	for i := 0; ; i++ {
		_, err := l.Append(ev("", "", &eventpb.Stopped{Reason: strings.Repeat("x", 5_000)})).Wait(t.Context())
		if err != nil {
			if !errors.Is(err, ErrFull) || !soft {
				t.Errorf("after %d events: %v (soft limit seen: %v)", i, err, soft)
			}
			break
		}
		soft = soft || errors.Is(l.Pressure(), ErrFull)
		if i > 1000 {
			t.Fatal("there is no limit")
		}
	}
}
