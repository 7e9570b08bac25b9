package store

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crimux/crimux/store/eventpb"
)

// recordsOf builds the records of events without the checks of Append.
func recordsOf(t testing.TB, events ...*eventpb.Event) memory {
	t.Helper()
	var chain Chain
	var m memory
	for e := range numbered(events) {
		p, err := encode(e)
		if err != nil {
			t.Fatal(err)
		}
		seq := chain.Last() + 1
		r := newRecord(seq, chain.Head(), seal(e, p, seq, 0))
		chain.push(r)
		m = append(m, r)
	}
	return m
}

// memory is a Source.
type memory []Record

func (m memory) Records(from uint64, fn func(Record) error) error {
	for _, r := range m {
		if r.Seq < from {
			continue
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func TestVerify(t *testing.T) {
	whole := recordsOf(t, aPod(run("o9", "docker", "v"))...)
	rep, err := Verify(whole)
	if err != nil || !rep.Sound() || rep.Count != 7 || rep.First != 1 || rep.Last != 7 || rep.Head != whole[6].hash() {
		t.Errorf("%+v, %v", rep, err)
	}
	if len(rep.Open) != 1 || rep.Open[0].GetOp() != "o9" {
		t.Errorf("open operations: %v", rep.Open)
	}
	if rep, err := Verify(memory(nil)); err != nil || !rep.Sound() || rep.Count != 0 || rep.First != 0 {
		t.Errorf("an empty log: %+v, %v", rep, err)
	}
	gap := append(append(memory(nil), whole[:3]...), whole[4:]...)
	rep, err = Verify(gap)
	if err != nil || rep.Sound() || rep.Bad != 5 || rep.Last != 3 || rep.Count != 3 || !strings.Contains(rep.Damage.Error(), "follows record 3") {
		t.Errorf("a gap: %+v, %v", rep, err)
	}
}

// Records may each be sound and still break what is promised of operations.
func TestVerifyPromises(t *testing.T) {
	rep, err := Verify(recordsOf(t, run("o1", "docker", "u"), done("o1", "sb"), done("o1", "sb"), done("o2", "x")))
	if err != nil || rep.Sound() || rep.Damage != nil || rep.Count != 4 || len(rep.Broken) != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if got := rep.Broken[0].Error(); !strings.Contains(got, "record 3") || !strings.Contains(got, "o1") {
		t.Errorf("it says %q", got)
	}
	var many []*eventpb.Event
	for range 3 * maxBroken {
		many = append(many, done("o1", ""))
	}
	if rep, _ := Verify(recordsOf(t, many...)); len(rep.Broken) != maxBroken {
		t.Errorf("%d findings are kept", len(rep.Broken))
	}
	twice := recordsOf(t, run("o1", "docker", "u"), run("o1", "docker", "u"))
	if rep, err := Verify(twice); err != nil || rep.Bad != 2 || !errors.Is(rep.Damage, ErrDamaged) {
		t.Errorf("two intents: %+v, %v", rep, err)
	}
}

type unreadable struct{ memory }

var errUnreadable = errors.New("connection refused")

func (u unreadable) Records(from uint64, fn func(Record) error) error {
	return errors.Join(u.memory.Records(from, fn), errUnreadable)
}

func TestVerifyUnreadable(t *testing.T) {
	rep, err := Verify(unreadable{recordsOf(t, aPod()...)})
	if !errors.Is(err, errUnreadable) || rep.Damage != nil || rep.Last != 6 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// A log verifies while it is written to.
func TestVerifyOnline(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), FileName), Options{NoSync: true})
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				l.Append(started("b"))
			}
		}
	}()
	for range 5 {
		rep, err := Verify(l)
		if err != nil || !rep.Sound() {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	close(stop)
	<-ended
}

// After an error the chain is where it was, and can go on.
func TestChainAfterError(t *testing.T) {
	m := recordsOf(t, aPod()...)
	var c Chain
	for i, r := range m {
		bad := Record{Seq: r.Seq, Value: append([]byte(nil), r.Value...)}
		bad.Value[len(bad.Value)/2] ^= 4
		if _, err := c.Next(bad); !errors.Is(err, ErrDamaged) {
			t.Errorf("record %d: %v", i, err)
		}
		if _, err := c.Next(Record{Seq: r.Seq + 1, Value: r.Value}); !errors.Is(err, ErrDamaged) {
			t.Errorf("record %d: %v", i, err)
		}
		if _, err := c.Next(r); err != nil {
			t.Error(err)
		}
	}
	if c.Last() != uint64(len(m)) || c.Head() != m[len(m)-1].hash() {
		t.Errorf("the chain is at %d", c.Last())
	}
}
