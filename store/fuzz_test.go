package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store/eventpb"
)

// FuzzRecord decodes anything as a record: an error with a name, or an event
// whose record is the same again.
func FuzzRecord(f *testing.F) {
	var chain Chain
	for e := range numbered(aPod(started("b"))) {
		p, err := encode(e)
		if err != nil {
			f.Fatal(err)
		}
		seq := chain.Last() + 1
		r := newRecord(seq, chain.Head(), seal(e, p, seq, 0))
		chain.push(r)
		f.Add(r.Seq, r.Value)
	}
	f.Fuzz(func(t *testing.T, seq uint64, value []byte) {
		r := Record{Seq: seq, Value: value}
		if len(value) >= atPayload && seq%2 == 0 {
			// Else nothing that was changed would get past the checksum.
			binary.BigEndian.PutUint32(value[atCRC:], r.crc())
		}
		e, err := r.Event()
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
				t.Errorf("an error without a name: %v", err)
			}
			return
		}
		if e.GetSeq() != seq {
			t.Errorf("record %d holds event %d", seq, e.GetSeq())
		}
		again := newRecord(seq, [32]byte(value[atPrev:atPayload]), value[atPayload:])
		if !bytes.Equal(again.Value, value) {
			t.Error("the record is not the same again")
		}
	})
}

// FuzzFold folds anything that decodes: an error with a name, or a state that
// is the same after a round trip.
func FuzzFold(f *testing.F) {
	var seed []byte
	for e := range numbered(twoBackends()) {
		b, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		seed = append(binary.AppendUvarint(seed, uint64(len(b))), b...)
		f.Add(bytes.Clone(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewState()
		for len(data) > 0 {
			n, w := binary.Uvarint(data)
			if w <= 0 || n > uint64(len(data)-w) {
				break
			}
			e := &eventpb.Event{}
			if proto.Unmarshal(data[w:w+int(n)], e) == nil {
				if err := s.Apply(e); err != nil && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrNewer) {
					t.Errorf("an error without a name: %v", err)
				}
			}
			data = data[w+int(n):]
		}
		checkIndexes(t, s)
		sameState(t, "round trip", s, rebuildState(t, stateBytes(t, s)))
	})
}

// FuzzFile puts anything anywhere into a log: it is refused by name, or can be
// used. That it lost nothing is for TestFlipped: several changes at once may
// well amount to another log.
func FuzzFile(f *testing.F) {
	sample := filepath.Join(f.TempDir(), FileName)
	writeBare(f, sample, 120)
	data, err := os.ReadFile(sample)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{0})
	f.Add(uint32(2*os.Getpagesize()+8), []byte{2, 0, 1, 0})
	f.Add(uint32(3*os.Getpagesize()+16), []byte{1, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		path := filepath.Join(t.TempDir(), FileName)
		changed := bytes.Clone(data)
		copy(changed[int(at)%len(changed):], patch)
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := tryDamaged(path, 120); got != "sound" && !strings.HasPrefix(got, "refused") && !strings.HasPrefix(got, "opened with") {
			t.Error(got)
		}
	})
}
