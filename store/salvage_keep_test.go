package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// spoil makes a log one that must be salvaged, and returns what is in it.
func spoil(t *testing.T, path string, n int) []byte {
	t.Helper()
	b := bytes.Repeat([]byte{byte(n)}, 100+n)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// A log that is damaged time and again leaves the newest of its damaged files,
// whatever the clock says meanwhile, and tells of each that it removes. What
// has another name, or is a folder, is not its own.
func TestDamagedFilesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	others := []string{damagedSuffix + "keep", damagedSuffix + "20260101T000000Z-old", damagedSuffix + "20260101T000000Z-02"}
	for _, name := range others {
		if err := os.WriteFile(path+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(path+damagedSuffix+"20250101T000000Z/x", 0o700); err != nil {
		t.Fatal(err)
	}
	clock := clockAt(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	var dropped []string
	o := quiet()
	o.Now, o.OnFailure = clock.now, func(err error) { t.Error(err) }
	o.OnDropped = func(path string) { dropped = append(dropped, path) }
	var files []string
	salvage := func() {
		t.Helper()
		want := spoil(t, path, len(files))
		l, told, err := OpenOrSalvage(path, o)
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
		got, err := os.ReadFile(told.GetFile())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("the file that was put aside last: %v", err)
		}
		files = append(files, told.GetFile())
	}
	for range 12 { // within one second, so that they are numbered
		salvage()
	}
	if !slices.Equal(dropped, files[:9]) {
		t.Errorf("removed were %v", dropped)
	}
	clock.add(-time.Hour)
	salvage()
	salvage()
	left, err := filepath.Glob(path + damagedSuffix + "*")
	if err != nil || len(left) != DamagedKept+len(others)+1 {
		t.Errorf("left are %v, %v", left, err)
	}
	for _, f := range append(others, damagedSuffix+"20250101T000000Z/x") {
		if exists(path+f) != nil {
			t.Errorf("%s is gone", f)
		}
	}
}

// On a disk that old damaged files have filled the daemon comes up all the
// same: they go, and the damaged file of now stays.
func TestDamagedFilesMakeRoom(t *testing.T) {
	dir := smallDisk(t, 4<<20)
	path := filepath.Join(dir, FileName)
	writeSample(t, path, 60)
	if err := os.Truncate(path, int64(2*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	for i := range DamagedKept - 1 {
		f, err := os.Create(fmt.Sprintf("%s%s2026010%dT000000Z", path, damagedSuffix, i+1))
		if err != nil {
			t.Fatal(err)
		}
		if err := fill0(f, 4<<20/(1+int64(i))); err != nil && i == 0 {
			t.Log(err) // ENOSPC is the aim
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	dropped := 0
	o := quiet()
	o.OnDropped = func(string) { dropped++ }
	l, told, err := OpenOrSalvage(path, o)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, started("b"))
	mustClose(t, l)
	if dropped != DamagedKept-1 || exists(told.GetFile()) != nil {
		t.Errorf("%d were removed, and the file of now: %v", dropped, exists(told.GetFile()))
	}
}

func TestDamagedFileThatStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	missing := filepath.Join(t.TempDir(), "none", FileName)
	told := 0
	o := quiet()
	o.OnFailure = func(error) { told++ }
	if n := dropDamaged(missing, DamagedKept, "", o); n != 0 || told != 1 {
		t.Errorf("a folder that cannot be read: %d removed, told %d times", n, told)
	}
	if n := dropDamaged(path, DamagedKept, "", o); n != 0 || told != 1 {
		t.Errorf("nothing to remove: %d removed, told %d times", n, told)
	}
}

// FuzzDamagedName reads any name: what it takes is one that aside gives.
func FuzzDamagedName(f *testing.F) {
	f.Add("20260501T120000Z")
	f.Add("20260501T120000Z-12")
	f.Add("20260501T120000Z-02")
	f.Fuzz(func(t *testing.T, name string) {
		at, nth, err := parseDamaged(name)
		if err != nil {
			return
		}
		if again := damagedName("", at, nth); again != damagedSuffix+name {
			t.Errorf("%q is taken for %q", name, again)
		}
	})
}
