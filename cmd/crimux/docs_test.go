package main

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store/eventpb"
)

const eventsDoc = "../../docs/events.md"

func readDoc(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ago is what depends on the time of day.
var ago = regexp.MustCompile(`(?m)^(from \S+), .* ago$`)

// TestDocumentedExample: what docs/events.md shows of a pod is what the commands
// say of its events, which were recorded on real engines.
func TestDocumentedExample(t *testing.T) {
	doc := ago.ReplaceAllString(readDoc(t, eventsDoc), "$1")
	for _, line := range []string{"timeline interrupted", "explain interrupted --absolute"} {
		r := crimux(t, append(strings.Fields(line), "--file", "testdata/interrupted.jsonl")...)
		if r.code != 0 {
			t.Fatalf("crimux %s: %+v", line, r)
		}
		contains(t, doc, "$ crimux "+line+"\n"+ago.ReplaceAllString(r.out, "$1"))
	}
}

var quoted = regexp.MustCompile("`([^`]+)`")

// kindRows are the rows of the table of kinds: what it tells, and the fields,
// by kind.
func kindRows(t *testing.T) map[string][2]string {
	t.Helper()
	rows := make(map[string][2]string)
	_, table, _ := strings.Cut(readDoc(t, eventsDoc), "| kind |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, line := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 3 {
			t.Fatalf("not a row of three: %s", line)
		}
		rows[strings.Trim(cells[0], " `")] = [2]string{cells[1], cells[2]}
	}
	return rows
}

// TestDocumentedKinds holds the table of kinds in docs/events.md against the
// definition: every kind is there with each of its fields, and none that there
// is not.
func TestDocumentedKinds(t *testing.T) {
	rows := kindRows(t)
	oneof := (&eventpb.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range oneof.Len() {
		kind := oneof.Get(i)
		row, ok := rows[kind.JSONName()]
		delete(rows, kind.JSONName())
		if !ok || strings.TrimSpace(row[0]) == "" {
			t.Errorf("%s is not in the table, or nothing is said of it", kind.JSONName())
			continue
		}
		var named []string
		for _, m := range quoted.FindAllStringSubmatch(row[1], -1) {
			named = append(named, m[1])
		}
		known := fieldsOf(kind.Message())
		for _, f := range known {
			if !slices.Contains(named, f) {
				t.Errorf("%s: the field %s is not in the table", kind.JSONName(), f)
			}
		}
		if route := kind.Message().Fields().ByName("route"); route != nil {
			known = append(known, fieldsOf(route.Message())...)
		}
		for _, f := range named {
			if !slices.Contains(known, f) && !strings.Contains(f, ".") {
				t.Errorf("%s has no field %s", kind.JSONName(), f)
			}
		}
	}
	for kind := range rows {
		t.Errorf("there is no kind %s", kind)
	}
	for _, kind := range view.Kinds {
		if !strings.Contains(view.RecordHelp, kind) && kind != view.KindSnapshot {
			t.Errorf("the commands' help does not name the kind %s", kind)
		}
	}
}

func fieldsOf(m protoreflect.MessageDescriptor) []string {
	var names []string
	for i := range m.Fields().Len() {
		names = append(names, m.Fields().Get(i).JSONName())
	}
	return names
}

// TestDocumentedRecord: the fields of an event's line are in docs/events.md and
// in the commands' help.
func TestDocumentedRecord(t *testing.T) {
	doc := readDoc(t, eventsDoc)
	record := reflect.TypeFor[view.Record]()
	for i := range record.NumField() {
		name, _, _ := strings.Cut(record.Field(i).Tag.Get("json"), ",")
		contains(t, doc, "`"+name+"`")
		contains(t, view.RecordHelp, name)
	}
}
