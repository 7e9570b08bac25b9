package export_test

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/cmd/crimux/export"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// node returns the events of the view's fixture.
func node(t testing.TB) []*eventpb.Event {
	t.Helper()
	f, err := os.Open("../view/testdata/node.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var events []*eventpb.Event
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		e := &eventpb.Event{}
		if err := protojson.Unmarshal(lines.Bytes(), e); err != nil {
			t.Fatal(err)
		}
		e.Seq = uint64(len(events) + 1)
		events = append(events, e)
	}
	return events
}

// exported exports those events that come after since.
func exported(t testing.TB, events []*eventpb.Event, since uint64, data bool) (string, *store.State) {
	t.Helper()
	var out bytes.Buffer
	w := export.Writer{Out: &out, Version: "1", StepData: data}
	s := store.NewState()
	for _, e := range events {
		if e.GetSeq() > since {
			if err := w.Event(s, e); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	return out.String(), s
}

func stateBytes(t testing.TB, s *store.State) string {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.Proto())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// read imports an export and returns its events, too.
func read(text string) ([]*eventpb.Event, *store.State, error) {
	var events []*eventpb.Event
	s, err := export.Read(strings.NewReader(text), func(_ *store.State, e *eventpb.Event) error {
		events = append(events, proto.CloneOf(e))
		return nil
	})
	return events, s, err
}

// TestRoundTrip exports every prefix of a log from every place in it: the fold
// of what is imported is byte for byte that of the log, and so are the events.
func TestRoundTrip(t *testing.T) {
	all := node(t)
	for n := 1; n <= len(all); n++ {
		for _, since := range []uint64{0, uint64(n / 2), uint64(n - 1)} {
			text, want := exported(t, all[:n], since, true)
			events, got, err := read(text)
			if err != nil {
				t.Fatalf("%d events after %d: %v", n, since, err)
			}
			if stateBytes(t, got) != stateBytes(t, want) {
				t.Fatalf("%d events after %d: the state differs", n, since)
			}
			if len(events) != n-int(since) {
				t.Fatalf("%d events after %d: got %d", n, since, len(events))
			}
			for i, e := range events {
				if !proto.Equal(e, all[int(since)+i]) {
					t.Errorf("event %d: got %v, want %v", e.GetSeq(), e, all[int(since)+i])
				}
			}
		}
	}
}

// TestWithoutStepData is the round trip of what is exported unless asked for
// more: of the state only the data of steps is missing, and nothing else has
// it.
func TestWithoutStepData(t *testing.T) {
	var events []*eventpb.Event
	for _, e := range node(t) {
		events = append(events, export.WithoutStepData(e))
	}
	for n := 1; n <= len(events); n++ {
		text, _ := exported(t, node(t)[:n], uint64(n/2), false)
		_, want := exported(t, events[:n], 0, true)
		_, got, err := read(text)
		if err != nil {
			t.Fatal(err)
		}
		if stateBytes(t, got) != stateBytes(t, want) {
			t.Fatalf("%d events: the state differs", n)
		}
		if strings.Contains(text, "Q0FOQVJZ") || strings.Contains(text, "CANARY") {
			t.Fatal("the data of a step is exported")
		}
	}
}

// TestResumed puts exports one behind the other, overlapping and not.
func TestResumed(t *testing.T) {
	all := node(t)
	first, _ := exported(t, all[:20], 0, true)
	overlapping, _ := exported(t, all[:30], 10, true)
	rest, want := exported(t, all, 30, true)
	_, got, err := read(first + overlapping + rest)
	if err != nil || stateBytes(t, got) != stateBytes(t, want) {
		t.Errorf("%v, or another state", err)
	}
	if _, _, err := read(first + rest); !errors.Is(err, export.ErrInvalid) || !strings.Contains(err.Error(), "event 31 follows event 20") {
		t.Errorf("a gap: %v", err)
	}
	// What events --json prints has no header.
	_, bare, _ := strings.Cut(first, "\n")
	if _, got, err := read(bare); err != nil || got.Seq() != 20 {
		t.Errorf("without a header: %v", err)
	}
}

func TestInvalid(t *testing.T) {
	whole, _ := exported(t, node(t), 10, true)
	header, lines, _ := strings.Cut(whole, "\n")
	for name, x := range map[string]struct{ text, want string }{
		"empty":             {"", "it is empty"},
		"cut short":         {whole[:len(whole)-20], "cut short"},
		"no header":         {lines, "event 11 follows event 0: lines are missing before it"},
		"other JSON":        {`{"a": 1}`, "it has neither schema nor seq"},
		"no JSON":           {"SEQ TIME BACKEND", "line 1"},
		"another state":     {strings.Replace(header, `"after":10`, `"after":9`, 1), "its state is that after event 10, not 9"},
		"a state of lines":  {`{"schema":"` + export.Schema + `","after":3,"state":[]}`, "state: "},
		"another detail":    {`{"seq":1,"time":"2026-05-01T12:00:00Z","kind":"intent","detail":[]}`, "event 1: "},
		"no detail":         {`{"seq":1,"time":"2026-05-01T12:00:00Z","kind":"intent"}`, "event 1: "},
		"no time":           {`{"seq":1,"kind":"stopped","detail":{}}`, "event 1: time"},
		"twice an op":       {opened + "\n" + strings.Replace(opened, `"seq":1`, `"seq":2`, 1), "is open already"},
		"a kind of a field": {`{"seq":1,"time":"2026-05-01T12:00:00Z","kind":"seq","detail":"7"}`, ""},
		"a newer kind":      {`{"seq":1,"time":"2026-05-01T12:00:00Z","kind":"levitated","detail":{"a":1}}`, ""},
		"a newer field":     {`{"seq":1,"time":"2026-05-01T12:00:00Z","kind":"stopped","detail":{"a":1},"b":2}`, ""},
	} {
		_, s, err := read(x.text)
		switch {
		case x.want == "" && (err != nil || s.Seq() != 1):
			t.Errorf("%s: %v", name, err)
		case x.want != "" && (!errors.Is(err, export.ErrInvalid) || !strings.Contains(err.Error(), x.want)):
			t.Errorf("%s: got %v, want %q", name, err, x.want)
		}
	}
	for _, newer := range []string{
		`{"schema":"crimux.dev/export/v2"}`,
		`{"seq":1,"time":"2026-05-01T12:00:00Z","kind":"stopped","minReader":99,"detail":{}}`,
	} {
		if _, _, err := read(newer); !errors.Is(err, export.ErrNewer) {
			t.Errorf("%s: %v", newer, err)
		}
	}
	own := errors.New("enough")
	if _, err := export.Read(strings.NewReader(lines[:0]+opened), func(*store.State, *eventpb.Event) error { return own }); err != own {
		t.Errorf("the reader's own error comes back as %v", err)
	}
}

const opened = `{"seq":1,"time":"2026-05-01T12:00:00Z","kind":"intent","op":"o","detail":{"method":"StopContainer"}}`

// FuzzRead imports anything: an error with a name, or events that are the same
// when they are exported and imported again.
func FuzzRead(f *testing.F) {
	// Short ones: long ones take the fuzzer's time.
	begin, _ := exported(f, node(f)[:2], 0, true)
	later, _ := exported(f, node(f)[:6], 4, true)
	for _, e := range node(f) {
		e.Seq = 1
		line, _ := exported(f, []*eventpb.Event{e}, 0, true)
		f.Add([]byte(line))
	}
	f.Add([]byte(begin))
	f.Add([]byte(later))
	f.Add([]byte(opened))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		w := export.Writer{Out: &out, Version: "1", StepData: true}
		state, err := export.Read(bytes.NewReader(data), w.Event)
		if err != nil {
			if !errors.Is(err, export.ErrInvalid) && !errors.Is(err, export.ErrNewer) && !errors.Is(err, bufio.ErrTooLong) {
				t.Errorf("an error without a name: %v", err)
			}
			return
		}
		if out.Len() == 0 {
			return
		}
		_, again, err := read(out.String())
		if err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		if stateBytes(t, again) != stateBytes(t, state) {
			t.Error("the state is another one")
		}
	})
}
