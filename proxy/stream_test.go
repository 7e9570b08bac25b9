package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// opened is a stream of a list that the client has not read yet.
func (d *differ) opened(t *testing.T, full string, scripts ...scripted) (st grpc.ClientStream, id string) {
	t.Helper()
	id = d.newCase()
	for i, s := range scripts {
		d.raw[i].play(id, full, s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), eventTimeout)
	t.Cleanup(cancel)
	st, err := d.front.NewStream(metadata.AppendToOutgoingContext(ctx, caseKey, id), &grpc.StreamDesc{ServerStreams: true}, full)
	if err == nil {
		err = st.SendMsg(backends.NewFrame(nil))
	}
	if err == nil {
		err = st.CloseSend()
	}
	if err != nil {
		t.Fatal(err)
	}
	return st, id
}

// rest reads a stream to its end.
func rest(st grpc.ClientStream) (messages [][]byte, err error) {
	for {
		f := new(backends.Frame)
		if err := st.RecvMsg(f); errors.Is(err, io.EOF) {
			return messages, nil
		} else if err != nil {
			return messages, err
		}
		messages = append(messages, bytes.Clone(f.Bytes()))
		f.Free()
	}
}

// padded is an item of a list that is about so large.
func (s *streamed) padded(id string, size int) []byte {
	item := protowire.AppendBytes(protowire.AppendTag(s.item(id), 1000, protowire.BytesType), make([]byte, size))
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), item)
}

// TestTheHeaderDoesNotWaitForTheSlowest, and the end does: one backend's end
// is not that of the client's stream.
func TestTheHeaderDoesNotWaitForTheSlowest(t *testing.T) {
	d := newDiffer(t, 2)
	for _, l := range six {
		for fast := range 2 {
			release := make(chan struct{})
			// The slow one has not even a header.
			late := scripted{hold: release, after: [][]byte{l.message("late")}}
			scripts := []scripted{late, late}
			scripts[fast] = scripted{early: true, header: metadata.Pairs("x-of", fmt.Sprint(fast)), frames: [][]byte{l.message("soon")}}
			st, _ := d.opened(t, l.full, scripts...)
			h, err := st.Header()
			if err != nil || !slices.Equal(h.Get("x-of"), []string{fmt.Sprint(fast)}) {
				t.Fatalf("%s: the header is %v, %v", l.full, h, err)
			}
			got := make(chan [][]byte)
			go func() {
				messages, err := rest(st)
				if err != nil {
					t.Errorf("%s: %v", l.full, err)
				}
				got <- messages
			}()
			select {
			case <-got:
				t.Errorf("%s: the stream ended with the faster backend's", l.full)
			default:
			}
			close(release)
			want := []string{"soon", "late"}
			if fast == 1 {
				slices.Reverse(want)
			}
			if ids := l.ids(t, <-got); !slices.Equal(ids, want) {
				t.Errorf("%s: listed are %q", l.full, ids)
			}
		}
	}
}

// TestAStreamHasTheLimitOfItsMessages and none of its own.
func TestAStreamHasTheLimitOfItsMessages(t *testing.T) {
	for count := range 2 {
		d := newDiffer(t, count+1)
		for _, l := range []streamed{six[1], six[5]} { // one that never omits, and one that may
			var scripts []scripted
			var want [][]byte
			for i := range d.raw {
				s := scripted{frames: [][]byte{l.padded(fmt.Sprint(i, "-1"), 9<<20), l.message(fmt.Sprint(i, "-2")), l.padded(fmt.Sprint(i, "-3"), 9<<20)}}
				scripts, want = append(scripts, s), append(want, s.frames...)
			}
			st, _ := d.opened(t, l.full, scripts...)
			got, err := rest(st)
			if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("%s over %d backends: %d messages, %v, want %d", l.full, len(d.raw), len(got), err, len(want))
			}
			scripts[len(scripts)-1].frames = append(scripts[len(scripts)-1].frames, l.padded("too large", backends.MaxMessage))
			st, _ = d.opened(t, l.full, scripts...)
			got, err = rest(st)
			if alone := len(scripts) == 1; alone || l.never {
				if status.Code(err) != codes.ResourceExhausted || len(got) > 0 {
					t.Errorf("%s over %d backends, with a message that is too large: %d messages, %v", l.full, len(d.raw), len(got), err)
				}
			} else if err != nil || len(got) != 3 {
				t.Errorf("%s without what is too large: %d messages, %v", l.full, len(got), err)
			}
		}
	}
}

// TestAMessageThatGrows by a handler's name is cut between its items, and is
// an error where it is one item.
func TestAMessageThatGrows(t *testing.T) {
	d := newDiffer(t, 1)
	l := six[0]
	var placed string
	for id, k := range d.sandboxes {
		if k.front == "front-a" {
			placed = id
		}
	}
	// A message of one item, or two, that is just as large as one may be; it
	// has no handler yet.
	full := func(ids ...string) []byte {
		var b []byte
		for _, id := range ids[1:] {
			b = append(b, l.message(id)...)
		}
		const about = backends.MaxMessage - 1000
		beside := len(b) + len(l.padded(ids[0], about)) - about
		return append(b, l.padded(ids[0], backends.MaxMessage-beside)...)
	}
	st, _ := d.opened(t, l.full, scripted{frames: [][]byte{l.message("before"), full("last", placed, "between")}})
	got, err := rest(st)
	if err != nil || len(got) < 3 {
		t.Fatalf("%d messages, %v", len(got), err)
	}
	if ids := l.ids(t, got); !slices.Equal(ids, []string{"before", placed, "between", "last"}) {
		t.Errorf("listed are %q", ids)
	}
	fields, _ := fieldsOf(got[1])
	if h := at(fields[0].value, 7); h != "front-a" {
		t.Errorf("the handler is %q", h)
	}
	st, _ = d.opened(t, l.full, scripted{frames: [][]byte{full(placed)}})
	got, err = rest(st)
	if status.Code(err) != codes.ResourceExhausted || len(got) > 0 || !strings.Contains(err.Error(), "an item") {
		t.Errorf("one item that is too large: %d messages, %v", len(got), err)
	}
}

// TestWhatCrimuxMakesIsCut: a unary list, what is last known, and images that
// two runtimes have, come in messages that any client takes.
func TestWhatCrimuxMakesIsCut(t *testing.T) {
	d := newDiffer(t, 2)
	old := someStatus(int(codes.Unimplemented), "no streams", nil, false)
	for _, l := range six {
		var want []string
		var list []byte
		for i := range 18 {
			want = append(want, fmt.Sprint("item-", i))
			list = append(list, l.padded(want[i], 600<<10)...)
		}
		id := d.newCase()
		d.raw[0].play(id, l.full, scripted{st: old})
		d.raw[0].play(id, methods[l.full].unary, scripted{frames: [][]byte{list}})
		d.raw[1].play(id, l.full, scripted{})
		got := rawCall(metadata.AppendToOutgoingContext(t.Context(), caseKey, id), d.front, l.full, true, nil)
		if ids := l.ids(t, got.frames); got.st.Code() != codes.OK || !slices.Equal(ids, want) || !bytes.Equal(bytes.Join(got.frames, nil), list) {
			t.Errorf("%s over a unary list: %q, %v", l.full, ids, got.st)
		}
		checkSizes(t, l.full, got.frames)
	}
	images := six[5]
	twice := [][]byte{images.padded("x", 1<<20), images.padded("y", 1<<20), images.padded("z", 1<<20), images.message("w")}
	st, _ := d.opened(t, images.full, scripted{frames: twice}, scripted{frames: twice[:2]})
	got, err := rest(st)
	if ids := images.ids(t, got); err != nil || !slices.Equal(ids, []string{"x", "y", "z", "w"}) {
		t.Errorf("images of two runtimes: %q, %v", ids, err)
	}
	checkSizes(t, images.full, got)
}

// TestWhatIsLastKnownIsCut, also where it would not fit one message.
func TestWhatIsLastKnownIsCut(t *testing.T) {
	d := newDiffer(t, 2)
	want := of(d.sandboxes, 1)
	d.raw[1].fake.edit(func() {
		for i := range 40 {
			sb := runRequest(fmt.Sprint("large-", i), "")
			sb.Config.Labels["large"] = strings.Repeat("x", 100<<10)
			id := fmt.Sprint("large-", i)
			want = append(want, id)
			d.raw[1].fake.sandboxes[id] = &runtimeapi.PodSandbox{Id: id, Metadata: sb.Config.Metadata, Labels: sb.Config.Labels}
		}
	})
	l := six[0]
	eventually(t, "all of it is known", func() bool { return len(d.lastKnown()) > 40 })
	st, _ := d.opened(t, l.full, scripted{}, scripted{st: someStatus(int(codes.Internal), "broken", nil, false)})
	got, err := rest(st)
	ids := l.ids(t, got)
	slices.Sort(ids)
	slices.Sort(want)
	if err != nil || !slices.Equal(ids, want) {
		t.Errorf("listed are %q, %v, want %q", ids, err, want)
	}
	if len(got) < 2 {
		t.Errorf("%d messages", len(got))
	}
	checkSizes(t, l.full, got)
}

func checkSizes(t *testing.T, full string, messages [][]byte) {
	t.Helper()
	for _, m := range messages {
		if len(m) > pieceSize {
			t.Errorf("%s: a message of %d bytes", full, len(m))
		}
	}
}

// TestAClientThatDoesNotRead holds up neither the backends nor other clients,
// and gets all of it when it reads.
func TestAClientThatDoesNotRead(t *testing.T) {
	d := newDiffer(t, 2)
	l := six[1]
	var large [][]byte
	for i := range 6 {
		large = append(large, l.padded(fmt.Sprint("item-", i), 8<<20))
	}
	type slow struct {
		grpc.ClientStream
		id string
	}
	var unread []slow
	for range 3 {
		st, id := d.opened(t, l.full, scripted{frames: large}, scripted{frames: [][]byte{l.message("b")}})
		unread = append(unread, slow{st, id})
	}
	for _, st := range unread {
		eventually(t, "the backends have sent all of it", func() bool { return d.raw[0].through(st.id) > 0 && d.raw[1].through(st.id) > 0 })
	}
	// Others are served, on the same connection too.
	st, _ := d.opened(t, l.full, scripted{frames: large[:1]}, scripted{})
	if got, err := rest(st); err != nil || len(got) != 1 {
		t.Errorf("another client gets %d messages, %v", len(got), err)
	}
	if _, err := d.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{}); err != nil {
		t.Error(err)
	}
	for _, m := range d.server.set.All() {
		if err := m.Check(); err != nil {
			t.Error(err)
		}
	}
	for _, st := range unread {
		got, err := rest(st)
		if ids := l.ids(t, got); err != nil || len(ids) != 7 || len(got) != 7 {
			t.Errorf("listed are %q in %d messages, %v", ids, len(got), err)
		}
	}
}

// TestNothingIsSentForWhatIsHidden: a message has at least one item, unless its
// runtime sent it empty.
func TestNothingIsSentForWhatIsHidden(t *testing.T) {
	d := newDiffer(t, 2)
	d.server.rehearsals.note("hidden")
	for _, l := range six[:5] { // images are nobody's
		st, _ := d.opened(t, l.full, scripted{frames: [][]byte{l.message("hidden"), l.message("seen", "hidden"), nil}}, scripted{frames: [][]byte{l.message("hidden", "hidden")}})
		got, err := rest(st)
		if want := [][]byte{l.message("seen"), nil}; err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: the messages are %q, %v, want %q", l.full, got, err, want)
		}
	}
}

// stopped is a context whose time is over and whose timer is late.
type stopped struct{ context.Context }

func (stopped) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

// TestNobodyEndsAStreamForTheTime: a backend is not told how long it may take,
// as it might end its stream in good order then; and of a client's own time it
// is not believed.
func TestNobodyEndsAStreamForTheTime(t *testing.T) {
	m := mustSet(t, endless{}).Get("b")
	for _, method := range methods {
		ctx, cancel := guardList(t.Context(), m, method)
		if deadline, told := ctx.Deadline(); told {
			t.Errorf("%s: the backend is told to be done by %s", method.name, deadline)
		}
		cancel()
		if ctx.Err() == nil {
			t.Errorf("%s: the question goes on", method.name)
		}
	}
	wantCode(t, over(stopped{t.Context()}), codes.DeadlineExceeded)
	if err := over(t.Context()); err != nil {
		t.Error(err)
	}
}

// endless is a backend whose list has no end.
type endless struct{ backends.Backend }

func (endless) Name() string { return "b" }

func (endless) Stream(context.Context, string) (backends.Stream, error) {
	return endlessStream{make([]byte, 8<<20)}, nil
}

type endlessStream struct{ b []byte }

func (endlessStream) Send(*backends.Frame) error       { return nil }
func (endlessStream) CloseSend() error                 { return nil }
func (endlessStream) Header() (metadata.MD, error)     { return nil, nil }
func (endlessStream) Trailer() metadata.MD             { return nil }
func (s endlessStream) Recv() (*backends.Frame, error) { return backends.NewFrame(s.b), nil }

// TestAListWithoutEnd is no list: it must not end the daemon.
func TestAListWithoutEnd(t *testing.T) {
	m := mustSet(t, endless{}).Get("b")
	p := gather(t.Context(), m, methods[runtimeapi.RuntimeService_StreamContainers_FullMethodName], backends.NewFrame(nil), &beginning{})
	wantCode(t, p.err, codes.ResourceExhausted, `"b"`)
	if len(p.messages) > 0 {
		t.Errorf("%d messages are kept", len(p.messages))
	}
}

// FuzzPieces: cut or not, a list is the same bytes, and no message is larger
// than it may be unless it is one field.
func FuzzPieces(f *testing.F) {
	f.Add([]byte{10, 1, 'x', 10, 2, 'y', 'z', 16, 5}, 4)
	f.Add([]byte{10, 200}, 1)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		cut := pieces(backends.NewFrame(bytes.Clone(b)), size)
		var all [][]byte
		for _, p := range cut {
			all = append(all, p.Bytes())
			fields, ok := fieldsOf(p.Bytes())
			if p.Len() == 0 || ok && p.Len() > size && len(fields) != 1 {
				t.Errorf("a piece of %d bytes with %d fields", p.Len(), len(fields))
			}
		}
		if !bytes.Equal(bytes.Join(all, nil), b) {
			t.Errorf("%x became %x", b, all)
		}
		if _, ok := fieldsOf(b); ok {
			for _, p := range all {
				if _, ok := fieldsOf(p); !ok {
					t.Errorf("the piece %x is no message", p)
				}
			}
		}
	})
}
