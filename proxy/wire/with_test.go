package wire

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// TestWithLeavesWhatItCannotRead: a field of another type is not the one that
// is set, and what is malformed is neither cut short nor added to.
func TestWithLeavesWhatItCannotRead(t *testing.T) {
	number := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 7)
	m := Message(AppendItem(bytes.Clone(number), 2, []byte("old")))
	if got, want := m.With("new", 2), AppendItem(bytes.Clone(number), 2, []byte("new")); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	torn := AppendItem(nil, 2, []byte("old"))
	torn = append(torn, 0x1a, 0x7f, 'x') // field 3 is longer than what there is
	for _, row := range []struct {
		m    Message
		path []protowire.Number
	}{{torn, []protowire.Number{2}}, {AppendItem(nil, 1, torn), []protowire.Number{1, 2}}} {
		if got := row.m.With("new", row.path...); !bytes.Equal(got, row.m) {
			t.Errorf("%x became %x", row.m, got)
		}
	}
}
