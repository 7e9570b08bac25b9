package view_test

import (
	"bufio"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

var update = flag.Bool("update", false, "write the golden files anew")

// now is when the tests look at the log of testdata/node.jsonl.
var now = time.Date(2026, 5, 1, 12, 30, 0, 0, time.UTC)

// node returns the events of testdata/node.jsonl: a pod's way from docker to
// containerd through two crashes, a reboot and an outage.
func node(t *testing.T) []*eventpb.Event {
	t.Helper()
	f, err := os.Open("testdata/node.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var events []*eventpb.Event
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		e := &eventpb.Event{}
		if err := protojson.Unmarshal(lines.Bytes(), e); err != nil {
			t.Fatalf("event %d: %v", len(events)+1, err)
		}
		e.Seq = uint64(len(events) + 1)
		events = append(events, e)
	}
	return events
}

// each calls fn for each event with the state before it, and returns the
// state after the last.
func each(t *testing.T, events []*eventpb.Event, fn func(before *store.State, e *eventpb.Event)) *store.State {
	t.Helper()
	s := store.NewState()
	for _, e := range events {
		fn(s, e)
		if err := s.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", path, got)
	}
}
