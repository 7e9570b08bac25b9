package proxy

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// streamed is one of the six streaming lists.
type streamed struct {
	full string
	// id is where an item has its id.
	id []protowire.Number
	// never is set where nothing may be omitted; lastKnown are then the items
	// of a backend as the state has them.
	never     bool
	lastKnown func(d *differ, backend int) []string
}

var six = []streamed{
	{runtimeapi.RuntimeService_StreamPodSandboxes_FullMethodName, []protowire.Number{1}, true, func(d *differ, backend int) []string {
		return of(d.sandboxes, backend)
	}},
	{runtimeapi.RuntimeService_StreamContainers_FullMethodName, []protowire.Number{1}, true, func(d *differ, backend int) []string {
		return of(d.containers, backend)
	}},
	{runtimeapi.RuntimeService_StreamContainerStats_FullMethodName, []protowire.Number{1, 1}, false, nil},
	{runtimeapi.RuntimeService_StreamPodSandboxStats_FullMethodName, []protowire.Number{1, 1}, false, nil},
	{runtimeapi.RuntimeService_StreamPodSandboxMetrics_FullMethodName, []protowire.Number{1}, false, nil},
	{runtimeapi.ImageService_StreamImages_FullMethodName, []protowire.Number{1}, false, nil},
}

// of are the ids that are known to be on a backend.
func of(all map[string]known, backend int) []string {
	var ids []string
	for id, k := range all {
		if k.backend == backend {
			ids = append(ids, id)
		}
	}
	return ids
}

// item is an item of the list with an id.
func (s *streamed) item(id string) []byte {
	b := []byte(id)
	for _, num := range slices.Backward(s.id) {
		b = protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	return b
}

// message is a message of the list with items.
func (s *streamed) message(ids ...string) []byte {
	var b []byte
	for _, id := range ids {
		b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), s.item(id))
	}
	return b
}

// ids are the items of all messages, in order.
func (s *streamed) ids(t *testing.T, messages [][]byte) []string {
	t.Helper()
	var ids []string
	for _, m := range messages {
		fields, ok := fieldsOf(m)
		if !ok || len(fields) == 0 {
			t.Errorf("the message %x is none, or empty", m)
		}
		for _, f := range fields {
			ids = append(ids, at(f.value, s.id...))
		}
	}
	return ids
}

// streams asks for a streamed list as scripted on each backend, for the
// streaming form and, where there is a second, for the unary one.
func (d *differ) streams(ctx context.Context, full string, scripts ...[]scripted) (r reply, id string) {
	id = d.newCase()
	for i, list := range scripts {
		for j, s := range list {
			d.raw[i].play(id, []string{full, methods[full].unary}[j], s)
		}
	}
	defer func() {
		for _, raw := range d.raw {
			raw.done(id)
		}
	}()
	return rawCall(metadata.AppendToOutgoingContext(ctx, caseKey, id), d.front, full, true, nil), id
}

// want is what a client gets of a list while one backend is not well.
type want int

const (
	// standIn: what is known of it where nothing may be omitted, and of all
	// else the other's alone.
	standIn want = iota
	// instead: its unary list.
	instead
	// itsError: its error where nothing may be omitted, and of all else the
	// other's alone.
	itsError
)

// sickRow is a way not to have a list: what a backend answers to the stream
// and to the unary list, and what comes of it.
type sickRow struct {
	name    string
	answers func(l *streamed) []scripted
	want    want
}

// sickRows are the ways in which a backend that is there has no list.
func sickRows() []sickRow {
	never := make(chan struct{})
	details := someStatus(int(codes.ResourceExhausted), "the list is too large", []byte("detail"), true)
	return []sickRow{
		{"hung", func(*streamed) []scripted { return []scripted{{hold: never}} }, standIn},
		{"hung after its header", func(*streamed) []scripted { return []scripted{{early: true, hold: never}} }, standIn},
		{"hung after half of it", func(l *streamed) []scripted {
			return []scripted{{frames: [][]byte{l.message("half")}, hold: never}}
		}, standIn},
		{"garbage", func(*streamed) []scripted { return []scripted{{frames: [][]byte{[]byte("\xff\xff\xff")}}} }, standIn},
		{"garbage after half of it", func(l *streamed) []scripted {
			return []scripted{{frames: [][]byte{l.message("half"), []byte("\x0a\xff")}}}
		}, standIn},
		{"a message in two that are none", func(l *streamed) []scripted {
			m := l.message("one")
			return []scripted{{frames: [][]byte{m[:3], m[3:]}}}
		}, standIn},
		{"an error", func(*streamed) []scripted {
			return []scripted{{st: someStatus(int(codes.Internal), "database is locked", nil, false)}}
		}, standIn},
		{"an error after half of it", func(l *streamed) []scripted {
			return []scripted{{frames: [][]byte{l.message("half")}, st: someStatus(int(codes.Unknown), "it broke", nil, false)}}
		}, standIn},
		{"an error that is an answer, after half of it", func(l *streamed) []scripted {
			return []scripted{{frames: [][]byte{l.message("half")}, st: details}}
		}, itsError},
		{"no stream", func(l *streamed) []scripted {
			return []scripted{{st: someStatus(int(codes.Unimplemented), "no streams", nil, false)}, {frames: [][]byte{l.message("u1", "u2")}}}
		}, instead},
		{"no stream and no list", func(*streamed) []scripted {
			return []scripted{{st: someStatus(int(codes.Unimplemented), "no streams", []byte("detail"), true)},
				{st: someStatus(int(codes.Unimplemented), "no lists", nil, false)}}
		}, itsError},
		{"no stream, and garbage for a list", func(*streamed) []scripted {
			return []scripted{{st: someStatus(int(codes.Unimplemented), "no streams", nil, false)}, {frames: [][]byte{[]byte("\xff")}}}
		}, standIn},
	}
}

// TestStreamsWhileOneBackendIsNotWell: each of the six lists, each backend, and
// each way not to have a list.
func TestStreamsWhileOneBackendIsNotWell(t *testing.T) {
	for sick := range 2 {
		t.Run(string(rune('a'+sick)), func(t *testing.T) {
			t.Parallel() // it is mostly waiting
			d := newDifferWith(t, 2, 3*time.Second)
			d.checkAllSick(t, sick, sickRows())
			member := d.server.set.Get(string(rune('a' + sick)))
			if !member.Health().Up {
				t.Error("what answers probes counts as away")
			}
			down := []sickRow{{"down", func(*streamed) []scripted { return nil }, standIn}}
			d.raw[sick].server.Stop()
			d.checkAllSick(t, sick, down)
			eventually(t, "the breaker is open", func() bool { return member.Check() != nil })
			d.checkAllSick(t, sick, down)
		})
	}
}

// checkAllSick asks for every list in every row, all at once: some last until
// patience ends.
func (d *differ) checkAllSick(t *testing.T, sick int, rows []sickRow) {
	t.Helper()
	var wg sync.WaitGroup
	for _, row := range rows {
		for _, l := range six {
			wg.Go(func() { d.checkSick(t, &l, sick, row) })
		}
	}
	wg.Wait()
}

// checkSick asks for one list of which one backend's part is not well.
func (d *differ) checkSick(t *testing.T, l *streamed, sick int, row sickRow) {
	t.Helper()
	name := row.name + ": " + methods[l.full].name
	answers := row.answers(l)
	well := scripted{header: metadata.Pairs("x-of", "the other"), frames: [][]byte{l.message("w1", "w2"), l.message("w3")}}
	scripts := [][]scripted{{well}, {well}}
	scripts[sick] = answers
	ctx, cancel := context.WithTimeout(t.Context(), eventTimeout)
	defer cancel()
	got, _ := d.streams(ctx, l.full, scripts...)

	if row.want == itsError && l.never {
		first := answers[0].st
		if len(got.frames) > 0 || !proto.Equal(got.st.Proto(), first.Proto()) {
			t.Errorf("%s: %d messages, then %v; want %v", name, len(got.frames), got.st.Proto(), first.Proto())
		}
		return
	}
	if got.st.Code() != codes.OK {
		t.Errorf("%s: %v", name, got.st)
	}
	parts := [2][]string{{"w1", "w2", "w3"}, {"w1", "w2", "w3"}}
	parts[sick] = nil
	switch {
	case row.want == instead:
		parts[sick] = []string{"u1", "u2"}
	case l.never:
		parts[sick] = l.lastKnown(d, sick)
	}
	ids := l.ids(t, got.frames)
	if l.never {
		// What is last known has no order.
		slices.Sort(parts[sick])
		if n := len(parts[sick]); len(ids) >= n && sick == 0 {
			slices.Sort(ids[:n])
		} else if len(ids) >= n {
			slices.Sort(ids[len(ids)-n:])
		}
	}
	if all := slices.Concat(parts[0], parts[1]); !slices.Equal(ids, all) {
		t.Errorf("%s: listed are %q, want %q", name, ids, all)
	}
	if !slices.ContainsFunc(got.frames, func(b []byte) bool { return bytes.Equal(b, well.frames[0]) }) ||
		!slices.ContainsFunc(got.frames, func(b []byte) bool { return bytes.Equal(b, well.frames[1]) }) {
		t.Errorf("%s: the other's messages are not as it sent them: %q", name, got.frames)
	}
	if !got.began {
		t.Errorf("%s: no header", name)
	}
}

// TestStreamsWhileNoBackendIsWell: lists are whole, and of all else there is
// the first's error.
func TestStreamsWhileNoBackendIsWell(t *testing.T) {
	d := newDiffer(t, 2)
	broken := scripted{trailer: metadata.Pairs("x-of", "a"), st: someStatus(int(codes.Internal), "a is broken", []byte("detail"), true)}
	lacks := scripted{st: someStatus(int(codes.Unimplemented), "too old", nil, false)}
	lacksToo := scripted{st: someStatus(int(codes.Unimplemented), "too old as well", nil, false)}
	for _, l := range six {
		name := methods[l.full].name
		got, _ := d.streams(t.Context(), l.full, []scripted{broken}, []scripted{broken})
		if l.never {
			want := slices.Concat(l.lastKnown(d, 0), l.lastKnown(d, 1))
			ids := l.ids(t, got.frames)
			slices.Sort(want)
			slices.Sort(ids)
			if got.st.Code() != codes.OK || !slices.Equal(ids, want) {
				t.Errorf("%s: listed are %q, %v, want %q", name, ids, got.st, want)
			}
			continue
		}
		if got, _ := d.streams(t.Context(), l.full, []scripted{lacks, lacks}, []scripted{lacksToo, lacksToo}); !proto.Equal(got.st.Proto(), lacks.st.Proto()) {
			t.Errorf("%s that both lack: %v, want the first's %v", name, got.st, lacks.st)
		}
		for what, other := range map[string][]scripted{"broken": {broken}, "old": {lacks, lacks}} {
			got, _ := d.streams(t.Context(), l.full, []scripted{broken}, other)
			if len(got.frames) > 0 || !proto.Equal(got.st.Proto(), broken.st.Proto()) || !slices.Equal(got.trailer.Get("x-of"), []string{"a"}) {
				t.Errorf("%s with the other %s: %v with the trailer %v", name, what, got.st.Proto(), got.trailer)
			}
		}
	}
}
