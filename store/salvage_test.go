package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// salvageAll opens each log named as the daemon does, says in a line what came
// of it, and goes on with it. It is a child of its own since a fault that
// nothing catches ends a Go process.
func salvageAll(args []string) error {
	names, err := filepath.Glob(args[0])
	if err != nil {
		return err
	}
	for _, name := range names {
		fmt.Printf("%s: %s\n", filepath.Base(filepath.Dir(name)), trySalvage(name))
	}
	return nil
}

// trySalvage returns "kept N of M", and what else there is to say.
func trySalvage(path string) string {
	l, told, err := OpenOrSalvage(path, Options{NoSync: true})
	if err != nil {
		return "error: " + err.Error()
	}
	<-l.keeper.check
	if _, err := l.Append().Wait(background); err != nil {
		return err.Error()
	}
	last := l.Last()
	if _, err := l.Append(started("b")).Wait(background); err != nil {
		return "cannot be written: " + err.Error()
	}
	if err := l.Close(); err != nil {
		return "close: " + err.Error()
	}
	r, err := OpenReadOnly(path)
	if err != nil {
		return "afterwards: " + err.Error()
	}
	defer func() { _ = r.Close() }()
	rep, err := Verify(r)
	if err != nil || rep.Damage != nil || len(rep.Broken) > 0 || rep.Last != last+1 {
		return fmt.Sprintf("afterwards: %v, %v, %v, last %d", err, rep.Damage, rep.Broken, rep.Last)
	}
	if s, err := r.State(); err != nil || s.Seq() != last+1 || s.Partial() {
		return fmt.Sprintf("afterwards: the state cannot be told: %v", err)
	}
	if err := r.Close(); err != nil {
		return err.Error()
	}
	if told == nil && rep.Lost > 0 {
		return fmt.Sprintf("as it was, but for %d", rep.Lost)
	}
	if told == nil {
		return fmt.Sprintf("as it was: %d", last)
	}
	if told.GetFile() != "" && exists(told.GetFile()) != nil {
		return "the damaged file is gone"
	}
	if again, told, err := OpenOrSalvage(path, Options{NoSync: true}); err != nil || told != nil {
		return fmt.Sprintf("salvaged again: %v, %v", told, err)
	} else if err := again.Close(); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("salvaged: kept %d, lost to %d, %d events of %d, lost %d: %s",
		told.GetKept(), told.GetLost(), rep.Count-2, last, rep.Lost, told.GetCause())
}

// salvageDamage has a child salvage all logs under dir and returns what was
// said of each.
func salvageDamage(t *testing.T, dir string) map[string]string {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(dir, "*"))
	cmd, out := child(t, "salvage", filepath.Join(dir, "*", FileName))
	said, last := map[string]string{}, ""
	for out.Scan() {
		name, what, _ := strings.Cut(out.Text(), ": ")
		said[name], last = what, name
		if !strings.HasPrefix(what, "as it was") && !strings.HasPrefix(what, "salvaged: ") {
			t.Errorf("%s: %s", name, what)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the child died after %q: %v", last, err)
	}
	if len(said) != len(logs) {
		t.Fatalf("%d logs, %d answers", len(logs), len(said))
	}
	return said
}

func writeLog(t *testing.T, dir, name string, data, mark []byte) string {
	t.Helper()
	d := filepath.Join(dir, name)
	if err := os.Mkdir(d, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d, FileName)
	if data != nil {
		writeCase(t, d, FileName, data)
	}
	if mark != nil {
		writeCase(t, d, FileName+markSuffix, mark)
	}
	return path
}

// sampleLog is a log of that many events, with its mark.
func sampleLog(t *testing.T, write func(testing.TB, string, int), n int) (data, mark []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	write(t, path, n)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mark, _ = os.ReadFile(path + markSuffix)
	return data, mark
}

func numberAfter(t *testing.T, text, word string) int {
	t.Helper()
	_, rest, ok := strings.Cut(text, word+" ")
	n, err := strconv.Atoi(strings.FieldsFunc(rest, func(r rune) bool { return r < '0' || r > '9' })[0])
	if !ok || err != nil {
		t.Fatalf("%q has no number after %q", text, word)
	}
	return n
}

// Cut anywhere, the log comes up with its beginning, and knows what it lost.
func TestSalvageTruncated(t *testing.T) {
	data, mark := sampleLog(t, writeSample, damageEvents)
	dir, page := t.TempDir(), os.Getpagesize()
	for size := 0; size <= len(data); size += page {
		writeLog(t, dir, fmt.Sprintf("%08d", size), append([]byte{}, data[:size]...), mark)
	}
	var names []string
	said := salvageDamage(t, dir)
	for name := range said {
		names = append(names, name)
	}
	slices.Sort(names)
	most := 0
	for _, name := range names {
		what := said[name]
		if strings.HasPrefix(what, "as it was") {
			continue
		}
		kept := numberAfter(t, what, "kept")
		if lost := numberAfter(t, what, "lost to"); lost != damageEvents && kept != damageEvents {
			t.Errorf("%s: %s", name, what)
		}
		most = max(most, kept)
	}
	if most < damageEvents/2 {
		t.Errorf("no more than %d events were ever kept", most)
	}
}

// TestSalvageFlipped is a thousand logs, each with a bit that is not as it was.
func TestSalvageFlipped(t *testing.T) {
	flips := 1000
	if testing.Short() {
		flips = 20 // with the race detector it takes too long
	}
	data, mark := sampleLog(t, writeSample, 120)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir, page := t.TempDir(), os.Getpagesize()
	pages := int(newestMeta(t, data).pages)
	for i := range flips {
		at := rnd.IntN(pages * page)
		if i%2 == 0 {
			at = at/page*page + rnd.IntN(96)
		}
		flipped, bit := slices.Clone(data[:pages*page]), rnd.IntN(8)
		flipped[at] ^= 1 << bit
		writeLog(t, dir, fmt.Sprintf("page-%d-byte-%d-bit-%d", at/page, at%page, bit)+"-"+strconv.Itoa(i), flipped, mark)
	}
	salvaged := 0
	for name, what := range salvageDamage(t, dir) {
		if strings.HasPrefix(what, "salvaged") {
			salvaged++
			if kept, lost := numberAfter(t, what, "kept"), numberAfter(t, what, "lost to"); kept < 120 && lost == 0 {
				t.Errorf("%s lost events in silence: %s", name, what)
			}
		}
	}
	if salvaged == 0 {
		t.Error("no flip had to be salvaged")
	}
	t.Logf("%d of %d were salvaged", salvaged, flips)
}

func TestSalvage(t *testing.T) {
	const n = 60
	page := os.Getpagesize()
	data, mark := sampleLog(t, writeSample, n)
	other, _ := sampleLog(t, writeSample, 2*n)
	bare, _ := sampleLog(t, writeBare, n)
	cases := []struct {
		name       string
		data, mark []byte
		says       []string
	}{
		{"sound", data, mark, []string{"as it was: 60"}},
		{"the file gone", nil, mark, []string{"kept 0, lost to 60, ", "it is gone; it had 60 records"}},
		{"empty", []byte{}, mark, []string{"kept 0, lost to 60", "it is empty"}},
		{"empty, and no mark", []byte{}, nil, []string{"kept 0, lost to 0", "it is empty"}},
		{"a text", []byte("hello"), mark, []string{"kept 0, lost to 60", "meta pages"}},
		{"no meta page", append(make([]byte, 2*page), data[2*page:]...), mark, []string{"kept 60, lost to 0", "meta pages"}},
		{"another log", other, mark, []string{"kept 120, lost to 0", "not the log that was here"}},
		{"no mark", data, nil, []string{"as it was: 60"}},
		{"a damaged mark", data, mark[:20], []string{"as it was: 60"}},
		{"nothing but events", bare, nil, []string{"as it was: 60"}},
	}
	dir := t.TempDir()
	for _, c := range cases {
		path := writeLog(t, dir, c.name, c.data, c.mark)
		if c.data == nil { // so that the child finds it by its name
			said := trySalvage(path)
			for _, s := range c.says {
				if !strings.Contains(said, s) {
					t.Errorf("%s: %s; want %q", c.name, said, s)
				}
			}
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	said := salvageDamage(t, dir)
	for _, c := range cases {
		for _, s := range c.says {
			if c.data != nil && !strings.Contains(said[c.name], s) {
				t.Errorf("%s: %s; want %q", c.name, said[c.name], s)
			}
		}
	}
}

// An older copy of a log that was put back is not silently gone on with.
func TestRestoredBackup(t *testing.T) {
	for name, grown := range map[string]int{"shorter": 0, "longer, but another history": 80} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), FileName)
			writeSample(t, path, 30)
			backup, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			l, err := Open(path, Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				mustAppend(t, l, started("b"))
			}
			mustClose(t, l)
			mark, _ := os.ReadFile(path + markSuffix)
			inFile(func([]byte) []byte { return backup })(t, path)
			if grown > 0 {
				if err := os.Remove(path + markSuffix); err != nil {
					t.Fatal(err)
				}
				l, err := Open(path, Options{NoSync: true})
				if err != nil {
					t.Fatal(err)
				}
				for range grown {
					mustAppend(t, l, started("c"))
				}
				mustClose(t, l)
				writeCase(t, filepath.Dir(path), FileName+markSuffix, mark)
			}
			if _, err := Open(path, Options{NoSync: true}); !errors.Is(err, ErrDamaged) {
				t.Errorf("Open: %v", err)
			}
			r, err := OpenReadOnly(path)
			if err != nil {
				t.Fatal(err)
			}
			rep, err := Verify(r)
			if err != nil || rep.Sound() || rep.Last != uint64(30+grown) {
				t.Errorf("Verify: %+v, %v", rep, err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			said := trySalvage(path)
			want := "kept 30, lost to 50"
			if grown > 0 {
				want = "kept 110, lost to 0"
			}
			if !strings.Contains(said, want) {
				t.Errorf("%s; want %q", said, want)
			}
		})
	}
}

// What is after the damage is kept where a snapshot leads on from it.
func TestSalvageBridge(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	writeSample(t, path, 200)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var before *State
	if before, err = openState(path); err != nil {
		t.Fatal(err)
	}
	// The page that holds record 60 says that it is another.
	page := os.Getpagesize()
	hit := false
	for id := range len(data) / page {
		pg := data[id*page : (id+1)*page]
		if native.Uint64(pg) == uint64(id) && native.Uint16(pg[8:]) == flagLeaf && strings.Contains(string(pg), "o59") && strings.Contains(string(pg), "o61") {
			native.PutUint64(pg, 9999)
			hit = true
		}
	}
	if !hit {
		t.Fatal("the page was not found")
	}
	writeCase(t, filepath.Dir(path), FileName, data)
	said := trySalvage(path)
	kept, lost := numberAfter(t, said, "kept"), numberAfter(t, said, "lost to")
	if kept >= 60 || kept == 0 || lost < 60 || lost > 120 {
		t.Error(said)
	}
	after, err := openState(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(after.operations) != len(before.operations) {
		t.Errorf("%d operations are open, want %d", len(after.operations), len(before.operations))
	}
}

// A newer log and a locked one are not touched.
func TestSalvageRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	writeBare(t, path, 5)
	putFormat(format{schema: Schema + 1}.encode())(t, path)
	for name, spoil := range map[string]func(){
		"newer":             func() {},
		"newer and damaged": func() { flipMeta(0)(t, path); flipMeta(1)(t, path) },
	} {
		spoil()
		if _, _, err := OpenOrSalvage(path, Options{NoSync: true}); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
			t.Errorf("%s: %v", name, left)
		}
	}
	l := newLog(t)
	if _, _, err := OpenOrSalvage(l.file.path, Options{NoSync: true}); !errors.Is(err, ErrLocked) {
		t.Errorf("locked: %v", err)
	}
}

// FuzzSnapshot decodes anything as a snapshot: an error with a name, or a state
// that is the same after a round trip.
func FuzzSnapshot(f *testing.F) {
	s, err := Fold(numbered(twoBackends()))
	if err != nil {
		f.Fatal(err)
	}
	r, err := newSnapshot(s.Proto(), [32]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Seq, r.Value[atPayload:])
	f.Fuzz(func(t *testing.T, seq uint64, payload []byte) {
		r := recordOf(snapshotVersion, seq, [32]byte{1}, payload)
		snap, err := r.snapshot()
		if err == nil {
			var s *State
			if s, err = FromProto(snap.GetState()); err == nil {
				sameState(t, "round trip", s, rebuildState(t, stateBytes(t, s)))
			}
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			t.Errorf("an error without a name: %v", err)
		}
	})
}

// A snapshot is never trusted over the events.
func TestWrongSnapshot(t *testing.T) {
	change := func(fn func(b *bbolt.Bucket, r Record) error) func(*testing.T, string) {
		return inBolt(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketSnapshots)
			k, v := b.Cursor().Last()
			seq, err := keySeq(k)
			if err != nil {
				return err
			}
			return fn(b, Record{Seq: seq, Value: slices.Clone(v)})
		})
	}
	tests := []struct {
		name    string
		corrupt func(t *testing.T, path string)
		verify  string // what Verify says of it, "" where it is passed over
	}{
		{"a flipped bit", change(func(b *bbolt.Bucket, r Record) error {
			r.Value[len(r.Value)-3] ^= 4
			return b.Put(seqKey(r.Seq), r.Value)
		}), ""},
		{"cut short", change(func(b *bbolt.Bucket, r Record) error { return b.Put(seqKey(r.Seq), r.Value[:10]) }), ""},
		{"another chain's", change(func(b *bbolt.Bucket, r Record) error {
			snap, err := r.snapshot()
			if err == nil {
				r, err = newSnapshot(snap.GetState(), [32]byte{7})
			}
			return errors.Join(err, b.Put(seqKey(r.Seq), r.Value))
		}), "does not carry the hash"},
		{"of an event that is not there", change(func(b *bbolt.Bucket, r Record) error {
			snap, err := r.snapshot()
			if err == nil {
				snap.State.Seq += 5
				r, err = newSnapshot(snap.GetState(), [32]byte{7})
			}
			return errors.Join(err, b.Put(seqKey(r.Seq), r.Value))
		}), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), FileName)
			writeSample(t, path, 40)
			want, err := openState(path)
			if err != nil {
				t.Fatal(err)
			}
			tt.corrupt(t, path)
			r, err := OpenReadOnly(path)
			if err != nil {
				t.Fatal(err)
			}
			rep, err := Verify(r)
			if err != nil || (rep.Damage != nil) != (tt.verify != "") || tt.verify != "" && !strings.Contains(rep.Damage.Error(), tt.verify) {
				t.Errorf("Verify: %v, %v", rep.Damage, err)
			}
			got, err := r.State()
			if cerr := r.Close(); cerr != nil {
				t.Fatal(cerr)
			}
			if tt.name == "of an event that is not there" {
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "record 45 is missing") {
					t.Errorf("State: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			sameState(t, "without the snapshot", want, got)
		})
	}
	t.Run("a wrong state", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), FileName)
		writeSample(t, path, 40)
		change(func(b *bbolt.Bucket, r Record) error {
			snap, err := r.snapshot()
			if err == nil {
				snap.State.BootId = "forged"
				r, err = newSnapshot(snap.GetState(), r.prev())
			}
			return errors.Join(err, b.Put(seqKey(r.Seq), r.Value))
		})(t, path)
		told := make(chan error, 1)
		l, err := Open(path, Options{NoSync: true, OnDamage: func(err error) { told <- err }})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-told; !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "not what the events") {
			t.Errorf("OnDamage: %v", err)
		}
		mustClose(t, l)
	})
}
