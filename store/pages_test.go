package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// anyPage returns the offset of a page with these flags that is in use.
func anyPage(t *testing.T, data []byte, flags uint16) int {
	t.Helper()
	m := newestMeta(t, data)
	if flags == flagFree {
		return int(m.freelist) * int(m.pageSize)
	}
	p := &pages{meta: m}
	for id := m.root; ; {
		at := int(id) * int(m.pageSize)
		pg := page{id: id, flags: native.Uint16(data[at+8:]), count: int(native.Uint16(data[at+10:])), data: data[at:]}
		if pg.flags == flags && id != m.root {
			return at
		}
		e, err := pg.element(0)
		if err != nil {
			t.Fatal(err)
		}
		id = e.child
		if e.bucket { // events come before meta
			if id, _, err = pg.bucket(e); err != nil || id == 0 || id >= p.meta.pages {
				t.Fatal(id, err)
			}
		}
	}
}

// TestPageDamage does to a page what would be a fault, an endless recursion or
// a silent loss in bbolt.
func TestPageDamage(t *testing.T) {
	sample := filepath.Join(t.TempDir(), FileName)
	writeSample(t, sample, damageEvents)
	data, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	self := func(pg []byte) uint64 { return native.Uint64(pg) }
	tests := []struct {
		name  string
		flags uint16
		patch func(pg []byte)
		says  string
	}{
		{"another number", flagLeaf, func(pg []byte) { native.PutUint64(pg, 1) }, "says that it is page 1"},
		{"another kind", flagLeaf, func(pg []byte) { native.PutUint16(pg[8:], flagFree) }, "neither branch nor leaf"},
		{"more entries than room", flagLeaf, func(pg []byte) { native.PutUint16(pg[10:], 60000) }, "beyond its end"},
		{"overflow beyond the end", flagLeaf, func(pg []byte) { native.PutUint32(pg[12:], 1<<30) }, "beyond the end of the file"},
		{"overflow over others", flagLeaf, func(pg []byte) { native.PutUint32(pg[12:], 5) }, "used twice"},
		{"an entry of unknown kind", flagLeaf, func(pg []byte) { pg[pageHeader] = 2 }, "unknown kind"},
		{"an entry that is a bucket", flagLeaf, func(pg []byte) { pg[pageHeader] = leafBucket }, "damaged"},
		{"an entry out of the page", flagLeaf, func(pg []byte) { native.PutUint32(pg[pageHeader+4:], 1<<31) }, "beyond its end"},
		{"a value out of the page", flagLeaf, func(pg []byte) { native.PutUint32(pg[pageHeader+12:], 1<<31) }, "beyond its end"},
		{"an empty key", flagLeaf, func(pg []byte) { native.PutUint32(pg[pageHeader+8:], 0) }, "out of order"},
		{"an entry twice", flagLeaf, func(pg []byte) {
			e := pg[pageHeader : pageHeader+elementSize]
			copy(pg[pageHeader+elementSize:], e)
			native.PutUint32(pg[pageHeader+elementSize+4:], native.Uint32(e[4:])-elementSize)
		}, "out of order"},
		{"a branch that is its own child", flagBranch, func(pg []byte) { native.PutUint64(pg[pageHeader+8:], self(pg)) }, "used twice"},
		{"a branch to a meta page", flagBranch, func(pg []byte) { native.PutUint64(pg[pageHeader+8:], 0) }, "page 0 does not exist"},
		{"a branch to nowhere", flagBranch, func(pg []byte) { native.PutUint64(pg[pageHeader+8:], 1<<40) }, "does not exist"},
		{"a branch to the same page twice", flagBranch, func(pg []byte) {
			copy(pg[pageHeader+elementSize+8:], pg[pageHeader+8:pageHeader+16])
		}, "used twice"},
		{"a branch without children", flagBranch, func(pg []byte) { native.PutUint16(pg[10:], 0) }, "without children"},
		{"a free list of another kind", flagFree, func(pg []byte) { native.PutUint16(pg[8:], flagLeaf) }, "should be the free list"},
		{"a free page that is in use", flagFree, func(pg []byte) { native.PutUint64(pg[pageHeader:], self(pg)) }, "as free, which it is not"},
		{"a free page that is not there", flagFree, func(pg []byte) { native.PutUint64(pg[pageHeader:], 1<<40) }, "as free, which it is not"},
		{"too many free pages", flagFree, func(pg []byte) { native.PutUint16(pg[10:], 5000) }, "more than it has room for"},
		{"far too many free pages", flagFree, func(pg []byte) {
			native.PutUint16(pg[10:], 0xFFFF)
			native.PutUint64(pg[pageHeader:], 1<<50)
		}, "more than it has room for"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bad := slices.Clone(data)
			tt.patch(bad[anyPage(t, data, tt.flags):])
			path := filepath.Join(t.TempDir(), FileName)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := OpenReadOnly(path)
			if err == nil {
				r.Close()
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}
