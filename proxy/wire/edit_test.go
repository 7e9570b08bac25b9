package wire

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestEdit(t *testing.T) {
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 7)
	m := Message(AppendItem(nil, 2, []byte("first")))
	m = AppendItem(m, 1, []byte("one"))
	m = append(m, unknown...)
	m = AppendItem(m, 1, nil)
	m = AppendItem(m, 1, []byte("three"))
	before := bytes.Clone(m)

	if got := m.Edit(1, func(item Message) Message { return item }); &got[0] != &m[0] || len(got) != len(m) {
		t.Error("what nothing changes is copied")
	}
	got := m.Edit(1, func(item Message) Message {
		if string(item) == "one" {
			return Message("eleven")
		}
		return item
	})
	want := Message(AppendItem(nil, 2, []byte("first")))
	want = AppendItem(want, 1, []byte("eleven"))
	want = append(want, unknown...)
	want = AppendItem(want, 1, nil)
	want = AppendItem(want, 1, []byte("three"))
	if !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !bytes.Equal(m, before) {
		t.Error("the message itself was changed")
	}
	if got := m.Edit(1, func(Message) Message { return nil }); bytes.Contains(got, []byte("three")) || !bytes.Contains(got, []byte("first")) {
		t.Errorf("emptied: %q", got)
	}
}

// FuzzEdit: whatever comes, what is not edited keeps its bytes, and an edit
// changes what it is about alone.
func FuzzEdit(f *testing.F) {
	f.Add([]byte{10, 1, 'x', 18, 1, 'y'})
	f.Add([]byte{10, 200})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := Message(b)
		if got := m.Edit(1, func(i Message) Message { return i }); !bytes.Equal(got, b) {
			t.Errorf("%q became %q", b, got)
		}
		got := m.Edit(1, func(i Message) Message { return append(i[:len(i):len(i)], '!') })
		var before, after []string
		m.Each(1, func(i Message) bool { before = append(before, string(i)+"!"); return true })
		got.Each(1, func(i Message) bool { after = append(after, string(i)); return true })
		if len(before) != len(after) {
			t.Fatalf("%d items became %d", len(before), len(after))
		}
		for i := range before {
			if before[i] != after[i] {
				t.Errorf("item %d is %q, want %q", i, after[i], before[i])
			}
		}
	})
}
