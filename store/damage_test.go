package store

import (
	"encoding/binary"
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

	"github.com/crimux/crimux/store/eventpb"
)

// damageEvents is how many events the files have that are damaged: enough for
// branch pages, overflow pages and a free list.
const damageEvents = 400

func writeSample(t testing.TB, path string, n int) {
	t.Helper()
	l, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		e := run(fmt.Sprint("o", i), "docker", fmt.Sprint(i))
		if i%50 == 49 {
			e.GetIntent().Annotations = map[string]string{"a": strings.Repeat("x", 9000)}
		}
		l.Append(e)
		if i%7 == 0 || i == n-1 {
			mustAppend(t, l)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// writeBare is writeSample without what stands beside the events: a snapshot
// would spare the start from reading them all.
func writeBare(t testing.TB, path string, n int) {
	t.Helper()
	writeSample(t, path, n)
	if err := os.Remove(path + markSuffix); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketSnapshots) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// openDamaged opens each file named and says in a line what came of it. It is
// a child of its own since a fault that nothing catches ends a Go process.
func openDamaged(args []string) error {
	want, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	names, err := filepath.Glob(args[1])
	if err != nil {
		return err
	}
	for _, name := range names {
		fmt.Printf("%s: %s\n", filepath.Base(name), tryDamaged(name, want))
	}
	return nil
}

// tryDamaged returns "sound" where all is there and goes on to be there when
// more is written, and else the error.
func tryDamaged(path string, want uint64) string {
	r, err := OpenReadOnly(path)
	if err != nil {
		return refusal(err)
	}
	rep, err := Verify(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return "cannot be read: " + err.Error()
	}
	l, err := Open(path, Options{NoSync: true})
	if (err == nil) != rep.Sound() {
		return fmt.Sprintf("Open and Verify disagree: %v, %v", err, rep.Damage)
	}
	if err != nil {
		return refusal(err)
	}
	if l.Last() != want {
		return fmt.Sprintf("opened with %d records of %d", l.Last(), want)
	}
	for range 300 {
		l.Append(started("b"))
	}
	if err := l.Close(); err != nil {
		return "close: " + err.Error()
	}
	if r, err = OpenReadOnly(path); err != nil {
		return "after more was written: " + err.Error()
	}
	defer r.Close()
	if rep, err := Verify(r); err != nil || rep.Count != want+300 || !rep.Sound() {
		return fmt.Sprintf("after more was written: %d records, %v, %v, %v", rep.Count, rep.Damage, rep.Broken, err)
	}
	return "sound"
}

func refusal(err error) string {
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrNewer) {
		return "refused: " + err.Error()
	}
	return "an error without a name: " + err.Error()
}

// tryAll has a child open all files of the folder. It returns what was said
// of each, and fails the test for any that is neither sound nor refused.
func tryAll(t *testing.T, dir string, records int) map[string]string {
	t.Helper()
	cmd, out := child(t, "damage", strconv.Itoa(records), filepath.Join(dir, "*"))
	said, last := map[string]string{}, ""
	for out.Scan() {
		name, what, _ := strings.Cut(out.Text(), ": ")
		said[name], last = what, name
		if what != "sound" && !strings.HasPrefix(what, "refused: ") {
			t.Errorf("%s: %s", name, what)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the child died after %q: %v", last, err)
	}
	marks, _ := filepath.Glob(filepath.Join(dir, "*"+markSuffix))
	if files, _ := os.ReadDir(dir); len(files)-len(marks) != len(said) {
		t.Fatalf("%d files, %d answers", len(files)-len(marks), len(said))
	}
	return said
}

// TestTruncated cuts the file at every page, and a little before.
func TestTruncated(t *testing.T) {
	sample := filepath.Join(t.TempDir(), FileName)
	writeBare(t, sample, damageEvents)
	data, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	dir, page := t.TempDir(), os.Getpagesize()
	meta := newestMeta(t, data)
	for size := 0; size <= len(data); size += page {
		for _, n := range []int{size, size - 100} {
			if n >= 0 {
				writeCase(t, dir, fmt.Sprintf("%08d", n), data[:n])
			}
		}
	}
	for name, what := range tryAll(t, dir, damageEvents) {
		n, _ := strconv.Atoi(name)
		if (what == "sound") != (n/page >= int(meta.pages)) {
			t.Errorf("of %d bytes, with %d pages in use, %d are left: %s", len(data), meta.pages, n, what)
		}
	}
}

func newestMeta(t *testing.T, data []byte) boltMeta {
	t.Helper()
	m, ok := parseMeta(data)
	n, ok2 := parseMeta(data[os.Getpagesize():])
	if !ok || !ok2 {
		t.Fatal("the sample has no meta pages")
	}
	if n.txid > m.txid {
		return n
	}
	return m
}

// TestFlipped flips a bit in each of many copies: anywhere in the pages that
// are in use, and as often in the first bytes of one, where the structure is.
func TestFlipped(t *testing.T) {
	sample := filepath.Join(t.TempDir(), FileName)
	writeBare(t, sample, damageEvents)
	data, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir, page := t.TempDir(), os.Getpagesize()
	pages := int(newestMeta(t, data).pages)
	flips := 250
	if testing.Short() {
		flips = 20
	}
	for i := range flips {
		at := rnd.IntN(pages * page)
		if i%2 == 0 {
			at = at/page*page + rnd.IntN(96)
		}
		flipped, bit := slices.Clone(data), rnd.IntN(8)
		flipped[at] ^= 1 << bit
		writeCase(t, dir, fmt.Sprintf("page-%d-byte-%d-bit-%d", at/page, at%page, bit), flipped)
	}
	said := tryAll(t, dir, damageEvents)
	sound := 0
	for _, what := range said {
		if what == "sound" {
			sound++
		}
	}
	t.Logf("%d flips: %d without consequence, %d refused", len(said), sound, len(said)-sound)
	if sound == len(said) {
		t.Error("no flip was found")
	}
}

func writeCase(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// inEvents changes the events of a log behind its back.
func inEvents(fn func(*bbolt.Bucket) error) func(t *testing.T, path string) {
	return inBolt(func(tx *bbolt.Tx) error { return fn(tx.Bucket(bucketEvents)) })
}

func inBolt(fn func(*bbolt.Tx) error) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(fn), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// inFile changes the bytes of a file.
func inFile(fn func(data []byte) []byte) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, fn(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// putFormat replaces the format record.
func putFormat(b []byte) func(t *testing.T, path string) {
	return inBolt(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, b) })
}

// rebuilt replaces record seq with one that is whole, but not what it was.
func rebuilt(seq uint64, change func(r *Record, e *eventpb.Event)) func(t *testing.T, path string) {
	return inEvents(func(b *bbolt.Bucket) error {
		old := Record{Seq: seq, Value: slices.Clone(b.Get(seqKey(seq)))}
		e, err := old.Event()
		if err != nil {
			return err
		}
		change(&old, e)
		return b.Put(seqKey(seq), old.Value)
	})
}

func flipMeta(n int) func(t *testing.T, path string) {
	return inFile(func(data []byte) []byte {
		data[n*os.Getpagesize()+pageHeader+20] ^= 1
		return data
	})
}

func TestDamage(t *testing.T) {
	const n = 60
	prevOf := func(r *Record) (prev [32]byte) { copy(prev[:], r.Value[atPrev:]); return prev }
	tests := []struct {
		name    string
		corrupt func(t *testing.T, path string)
		is      error
		says    string
	}{
		{"an empty file", inFile(func([]byte) []byte { return nil }), ErrDamaged, "empty"},
		{"a file of zeros", inFile(func(b []byte) []byte { return make([]byte, len(b)) }), ErrDamaged, "meta pages"},
		{"a text", inFile(func([]byte) []byte { return []byte("hello") }), ErrDamaged, "meta pages"},
		{"both meta pages", inFile(func(b []byte) []byte { clear(b[:2*os.Getpagesize()]); return b }), ErrDamaged, "meta pages"},
		{"cut short", inFile(func(b []byte) []byte { return b[:3*os.Getpagesize()] }), ErrDamaged, "cut short"},
		{"another bbolt file", inBolt(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketMeta) }), ErrDamaged, "no event log"},
		{"no events", inBolt(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketEvents) }), ErrDamaged, "no event log"},
		{"no format", putFormat([]byte("crimux?!")), ErrDamaged, "format"},
		{"a flipped format", putFormat(append(format{schema: 1}.encode()[:20], make([]byte, 20)...)), ErrDamaged, "checksum of its format"},
		{"a newer schema", putFormat(format{schema: Schema + 1}.encode()), ErrNewer, "schema is 2"},
		{"a record that is gone", inEvents(func(b *bbolt.Bucket) error { return b.Delete(seqKey(7)) }), ErrDamaged, "record 8: "},
		{"the first record gone", inEvents(func(b *bbolt.Bucket) error { return b.Delete(seqKey(1)) }), ErrDamaged, "record 2: "},
		{"a key of another kind", inEvents(func(b *bbolt.Bucket) error { return b.Put([]byte("x"), []byte("y")) }), ErrDamaged, "key is 1 bytes"},
		{"a record cut short", inEvents(func(b *bbolt.Bucket) error { return b.Put(seqKey(7), []byte("y")) }), ErrDamaged, "record 7: "},
		{"a flipped record", inEvents(func(b *bbolt.Bucket) error {
			v := slices.Clone(b.Get(seqKey(7)))
			v[len(v)-1] ^= 1
			return b.Put(seqKey(7), v)
		}), ErrDamaged, "record 7: the log is damaged: checksum does not match"},
		{"a record in another's place", inEvents(func(b *bbolt.Bucket) error { return b.Put(seqKey(7), slices.Clone(b.Get(seqKey(8)))) }),
			ErrDamaged, "record 7: the log is damaged: checksum"},
		{"a record rewritten", rebuilt(7, func(r *Record, e *eventpb.Event) {
			e.Op = "forged"
			p, _ := encode(e)
			*r = newRecord(7, prevOf(r), seal(e, p, 7, 0))
		}), ErrDamaged, "record 8: the log is damaged: does not carry the hash"},
		{"a record with another number inside", rebuilt(n, func(r *Record, e *eventpb.Event) {
			p, _ := encode(e)
			*r = newRecord(n, prevOf(r), seal(e, p, 9, 0))
		}), ErrDamaged, "says that it is record 9"},
		{"a record that is no event", rebuilt(n, func(r *Record, _ *eventpb.Event) {
			*r = newRecord(n, prevOf(r), []byte("\xff\xff\xff"))
		}), ErrDamaged, "cannot be decoded"},
		{"a record of a newer version", rebuilt(n, func(r *Record, _ *eventpb.Event) {
			r.Value[0] = snapshotVersion + 1
			binary.BigEndian.PutUint32(r.Value[atCRC:], r.crc())
		}), ErrNewer, "version 4"},
		{"an event for a newer reader", rebuilt(n, func(r *Record, e *eventpb.Event) {
			e.MinReader = Schema + 1
			p, _ := encode(e)
			*r = newRecord(n, prevOf(r), seal(e, p, n, 0))
		}), ErrNewer, "needs schema 2"},
		{"an intent of an operation that is open", rebuilt(n, func(r *Record, e *eventpb.Event) {
			e.Op = "o1"
			p, _ := encode(e)
			*r = newRecord(n, prevOf(r), seal(e, p, n, 0))
		}), ErrDamaged, "operation o1 is open already"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), FileName)
			writeBare(t, path, n)
			tt.corrupt(t, path)
			_, err := Open(path, Options{NoSync: true})
			if !errors.Is(err, tt.is) || !strings.Contains(fmt.Sprint(err), tt.says) || !strings.Contains(fmt.Sprint(err), FileName) {
				t.Errorf("Open: %v; want %q", err, tt.says)
			}
			r, err := OpenReadOnly(path)
			if err != nil {
				if !errors.Is(err, tt.is) {
					t.Errorf("OpenReadOnly: %v", err)
				}
				return
			}
			defer r.Close()
			rep, err := Verify(r)
			if err != nil || rep.Sound() || !errors.Is(rep.Damage, tt.is) || !strings.Contains(rep.Damage.Error(), tt.says) {
				t.Errorf("Verify: %+v, %v", rep, err)
			}
			if _, err := r.State(); !errors.Is(err, tt.is) {
				t.Errorf("State: %v", err)
			}
		})
	}
}

// One good meta page is enough, unless it is the one that does not know of the
// last commit.
func TestOneMetaPage(t *testing.T) {
	for commits := range 2 { // so that either page is the newer one
		for _, n := range []int{3, 300} { // events within their parent's page, and in pages of their own
			for bad := range 2 {
				t.Run(fmt.Sprintf("%d events, %d more commits, page %d", n, commits, bad), func(t *testing.T) {
					path := filepath.Join(t.TempDir(), FileName)
					writeSample(t, path, n)
					l, err := Open(path, Options{NoSync: true})
					if err != nil {
						t.Fatal(err)
					}
					for range 1 + commits {
						mustAppend(t, l, started("b"))
					}
					// As a kill leaves it: the snapshot at the end would be
					// the newest commit.
					data, _ := os.ReadFile(path)
					mustClose(t, l)
					inFile(func([]byte) []byte { return data })(t, path)
					if err := os.Remove(path + markSuffix); err != nil {
						t.Fatal(err)
					}
					older := newestMeta(t, data).txid%2 != uint64(bad)
					flipMeta(bad)(t, path)
					got := tryDamaged(path, uint64(n+1+commits))
					if older && got != "sound" {
						t.Errorf("without the older one: %s", got)
					}
					if !older && !strings.Contains(got, fmt.Sprintf("record %d", n+1+commits)) && !strings.Contains(got, "is lost with it") {
						t.Errorf("without the newer one: %s", got)
					}
				})
			}
		}
	}
}
