package proxy

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var (
	diffSeed  = flag.Uint64("diff.seed", 0, "seed of the cases of TestAsIfDirect; 0 takes one from the clock")
	diffCases = flag.Int("diff.cases", 20, "cases of each method and number of backends in TestAsIfDirect")
)

// ownAnswers are the methods whose answers crimux words itself. What must hold
// of them for any answer of the backends is in diff_own_test.go, the rest is
// tested where they are made.
var ownAnswers = map[string]string{
	runtimeapi.RuntimeService_Version_FullMethodName:             "the configured name",
	runtimeapi.RuntimeService_Status_FullMethodName:              "merged, with a condition per backend",
	runtimeapi.RuntimeService_UpdateRuntimeConfig_FullMethodName: "told to all; the answer has no fields",
	runtimeapi.RuntimeService_GetContainerEvents_FullMethodName:  "one stream for all: feed_test.go",
}

// mergedBySense are those whose merging looks into the answers:
// diff_sense_test.go. With one backend they pass like any other.
var mergedBySense = map[string]bool{
	runtimeapi.ImageService_ImageFsInfo_FullMethodName:               true,
	runtimeapi.RuntimeService_ListMetricDescriptors_FullMethodName:   true,
	runtimeapi.RuntimeService_ListPodSandboxMetrics_FullMethodName:   true,
	runtimeapi.RuntimeService_StreamPodSandboxMetrics_FullMethodName: true,
	runtimeapi.ImageService_RemoveImage_FullMethodName:               true,
}

// TestAsIfDirect makes random calls of every method directly and through the
// front, and holds what both sides see against each other, to the byte.
func TestAsIfDirect(t *testing.T) {
	seed := *diffSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to see the same cases again: -diff.seed=%d", seed)
	for _, count := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d backends", count), func(t *testing.T) {
			d := newDiffer(t, count)
			g := &gen{rand.New(rand.NewPCG(seed, uint64(count))), slices.Sorted(maps.Keys(d.sandboxes))}
			every(func(full string, m protoreflect.MethodDescriptor) {
				for range *diffCases {
					if !t.Failed() {
						d.check(t, g.exchange(d, full, m))
					}
				}
			})
		})
	}
}

// FuzzAsIfDirect is the same for bytes of any kind.
func FuzzAsIfDirect(f *testing.F) {
	both := []*differ{newDiffer(f, 1), newDiffer(f, 2)}
	g := &gen{rand.New(rand.NewPCG(1, 2)), slices.Sorted(maps.Keys(both[1].sandboxes))}
	var names []string
	every(func(full string, m protoreflect.MethodDescriptor) {
		x := g.exchange(both[1], full, m)
		var a, b []byte
		if s := x.answers[0]; len(s.frames) > 0 {
			a = s.frames[0]
		}
		if s := x.answers[1]; len(s.frames) > 0 {
			b = s.frames[0]
		}
		f.Add(uint8(len(names)), x.request, a, b, uint8(g.IntN(4)*g.IntN(8)), "an error", "a-trailer")
		names = append(names, full)
	})
	f.Fuzz(func(t *testing.T, method uint8, request, a, b []byte, code uint8, message, trailer string) {
		x := exchange{method: names[int(method)%len(names)], request: request}
		for i, body := range [][]byte{a, b} {
			s := scripted{trailer: metadata.Pairs("x-bin", trailer), frames: [][]byte{body}}
			// Either backend fails, or neither.
			if code > 0 && int(code)%2 == i {
				s.st = someStatus(int(code)/2%17+1, message, body, len(trailer)%2 == 0)
				s.frames = nil
			}
			x.answers[i] = s
			x.images[i] = scripted{frames: [][]byte{tagged(1, tagged(1, []byte("an-image")))}}
		}
		both[int(method)/len(names)%2].check(t, x)
	})
}

// check makes the calls of a case and compares.
func (d *differ) check(t *testing.T, x exchange) {
	t.Helper()
	m := methods[x.method]
	if m.name == "GetContainerEvents" || d.changesWhatIsKnown(x) {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), eventTimeout)
	defer cancel()
	through, asked := d.through(ctx, x)
	if d.refused(t, x) {
		if through.st.Code() != codes.InvalidArgument || len(slices.Concat(asked...)) > 0 {
			t.Errorf("%s is not refused: %v\n%x", m.name, through.st, x.request)
		}
		return
	}
	direct := make([]reply, len(d.raw))
	for i := range d.raw {
		direct[i] = d.direct(ctx, i, x)
	}
	d.checkAsked(t, x, asked)
	switch {
	case ownAnswers[x.method] != "":
		d.checkOwn(t, m, asked, direct, through)
	case len(d.raw) > 1 && m.name == "RemoveImage":
		d.checkRemoval(t, x, asked, direct, through)
	case m.class == fanOut:
		d.checkMerged(t, x, asked, direct, through)
	case m.class == byImage || m.class == nodeWide:
		d.checkEither(t, x, asked, direct, through)
	default:
		d.checkOne(t, x, direct[d.target(x)], through, d.answerRewrite(x, d.target(x)))
	}
	if t.Failed() {
		t.Logf("%s with %x", m.name, x.request)
		for i, s := range x.answers {
			t.Logf("backend %d answers %x, %v, header %v, trailer %v", i, s.frames, s.st, s.header, s.trailer)
		}
	}
}

// through makes the call through the front; asked is what each backend heard.
func (d *differ) through(ctx context.Context, x exchange) (r reply, asked [][]heard) {
	id := d.newCase()
	for i, raw := range d.raw {
		raw.play(id, x.method, x.answers[i])
		if methods[x.method].name == "RemoveImage" && len(d.raw) > 1 {
			raw.play(id, runtimeapi.ImageService_ImageStatus_FullMethodName, x.images[i])
		}
	}
	ctx = metadata.AppendToOutgoingContext(ctx, caseKey, id, "tracestate", "t=1", "authorization", "not for backends")
	r = rawCall(ctx, d.front, x.method, methods[x.method].streams, x.request)
	for _, raw := range d.raw {
		asked = append(asked, slices.DeleteFunc(raw.done(id), func(h heard) bool { return h.method != x.method }))
	}
	return r, asked
}

// newCase returns an id for one more case.
func (d *differ) newCase() string { return fmt.Sprint("case-", d.cases.Add(1)) }

// direct makes the call to one backend.
func (d *differ) direct(ctx context.Context, i int, x exchange) reply {
	id := d.newCase()
	d.raw[i].play(id, x.method, x.answers[i])
	defer d.raw[i].done(id)
	return rawCall(metadata.AppendToOutgoingContext(ctx, caseKey, id), d.raw[i].conn, x.method, methods[x.method].streams, x.request)
}

// changesWhatIsKnown tells whether a case would change what the next ones are
// held against, or speaks of what crimux answers without asking.
func (d *differ) changesWhatIsKnown(x exchange) bool {
	id := at(x.request, idField)
	switch methods[x.method].name {
	case "RemovePodSandbox":
		return d.sandboxes[id].placed
	case "RemoveContainer":
		return d.containers[id].placed
	case "StopPodSandbox", "StopContainer":
		// What its backend says is not there is not known any more.
		return slices.ContainsFunc(x.answers[:], func(s scripted) bool { return s.st.Code() == codes.NotFound })
	case "RunPodSandbox", "RestorePod", "CreateContainer":
		for _, s := range x.answers {
			for _, b := range s.frames {
				if id := at(b, idField); id == "" || d.sandboxes[id] != (known{}) || d.containers[id] != (known{}) {
					return true
				}
			}
		}
		return at(x.request, 2, 1, 1) == "known-container" || strings.HasPrefix(at(x.request, 1, 1, 2), "uid-")
	}
	return false
}

// refused tells whether a request must be answered with an InvalidArgument of
// crimux's own: what is no message, names nothing, or cannot be placed.
func (d *differ) refused(t *testing.T, x exchange) bool {
	if _, ok := fieldsOf(x.request); !ok {
		return true
	}
	m := methods[x.method]
	switch m.class {
	case byHandler:
		config, handler := placement{1, 2}, ""
		if m.name == "RestorePod" {
			config = placement{2, 3}
		}
		handler = at(x.request, config.handler)
		for _, num := range []protowire.Number{1, 2, 3} {
			if v := at(x.request, config.config, 1, num); v == "" || !utf8.ValidString(v) {
				return true
			}
		}
		_, ok := d.handler(handler)
		return !ok
	case bySandbox, byContainer:
		if at(x.request, idField) == "" {
			return m.name != "PodSandboxStats"
		}
		return m.name == "CreateContainer" && at(x.request, 2, 1, 1) == ""
	case byImage:
		_, ok := d.handler(at(x.request, 1, 19))
		return at(x.request, 1, 1) == "" || !ok
	}
	return false
}

// handler is where a handler of the routes leads; ok is false for others.
func (d *differ) handler(front string) (k known, ok bool) {
	switch {
	case front == "":
		return known{}, true
	case front == "front-a":
		return known{own: "own-a"}, true
	case front == "front-b" && len(d.raw) > 1:
		return known{backend: 1}, true
	}
	return known{}, false
}

// object is what a request with an id is about, its zero value what is not
// known and so the default's.
func (d *differ) object(x exchange) known {
	id := at(x.request, idField)
	if methods[x.method].class == bySandbox {
		return d.sandboxes[id]
	}
	return d.containers[id]
}

// target is the backend of a call that has one.
func (d *differ) target(x exchange) int {
	switch methods[x.method].name {
	case "RunPodSandbox":
		k, _ := d.handler(at(x.request, 2))
		return k.backend
	case "RestorePod":
		k, _ := d.handler(at(x.request, 3))
		return k.backend
	}
	return d.object(x).backend
}

// requestRewrite is what may change in a request.
func (d *differ) requestRewrite(x exchange) *rewrite {
	switch m := methods[x.method]; {
	case m.name == "RunPodSandbox" || m.name == "RestorePod":
		path := []protowire.Number{2}
		if m.name == "RestorePod" {
			path = []protowire.Number{3}
		}
		k, _ := d.handler(at(x.request, path...))
		return &rewrite{path, always(k.own)}
	case m.name == "CreateContainer":
		return &rewrite{[]protowire.Number{2, 2, 19}, onlyIfSet(d.object(x).own)}
	case m.class == byImage:
		k, _ := d.handler(at(x.request, 1, 19))
		return &rewrite{[]protowire.Number{1, 19}, onlyIfSet(k.own)}
	}
	return nil
}

// answerRewrite is what may change in the answer of a backend.
func (d *differ) answerRewrite(x exchange, backend int) *rewrite {
	switch k := d.object(x); methods[x.method].name {
	case "PodSandboxStatus":
		if k.placed {
			return &rewrite{[]protowire.Number{1, 9}, always(k.front)}
		}
	case "ContainerStatus":
		if k.placed {
			return &rewrite{[]protowire.Number{1, 8, 19}, onlyIfSet(k.front)}
		}
	case "ImageStatus":
		if front := at(x.request, 1, 19); front != "" {
			return &rewrite{[]protowire.Number{1, 7, 19}, onlyIfSet(front)}
		}
		return &rewrite{[]protowire.Number{1, 7, 19}, func(own string) string { return frontOf(backend, own) }}
	}
	return nil
}

// frontOf is the handler of the routes that leads to a backend's own one.
func frontOf(backend int, own string) string {
	switch {
	case own == "":
		return ""
	case backend == 0 && own == "own-a":
		return "front-a"
	}
	return ""
}

// checkAsked compares what backends were asked with what the client sent.
func (d *differ) checkAsked(t *testing.T, x exchange, asked [][]heard) {
	t.Helper()
	r := d.requestRewrite(x)
	for i, calls := range asked {
		if len(calls) > 1 {
			t.Errorf("backend %d was asked %d times", i, len(calls))
		}
		for _, h := range calls {
			if len(h.frames) != 1 || !r.allows(x.request, h.frames[0]) {
				t.Errorf("backend %d got %x", i, h.frames)
			}
			if v := h.meta.Get("tracestate"); !slices.Equal(v, []string{"t=1"}) || len(h.meta.Get("authorization")) > 0 {
				t.Errorf("backend %d got the metadata %v", i, h.meta)
			}
		}
	}
	if c := methods[x.method].class; c == byHandler || c == bySandbox || c == byContainer {
		for i := range asked {
			if want := map[bool]int{true: 1}[i == d.target(x)]; len(asked[i]) != want {
				t.Errorf("backend %d was asked %d times, want %d", i, len(asked[i]), want)
			}
		}
	}
}

// checkOne compares the answer of the one backend that has it.
func (d *differ) checkOne(t *testing.T, x exchange, direct, through reply, r *rewrite) {
	t.Helper()
	if len(through.frames) != len(direct.frames) {
		t.Errorf("%s: %d messages through crimux, %d without; %v, %v", methods[x.method].name, len(through.frames), len(direct.frames), through.st, direct.st)
		return
	}
	for i := range direct.frames {
		if !r.allows(direct.frames[i], through.frames[i]) {
			t.Errorf("%s: crimux answers\n%x\nthe backend\n%x", methods[x.method].name, through.frames[i], direct.frames[i])
		}
	}
	d.checkBeside(t, direct, through)
}

// checkBeside compares all but the messages.
func (d *differ) checkBeside(t *testing.T, direct, through reply) {
	t.Helper()
	if !proto.Equal(direct.st.Proto(), through.st.Proto()) {
		t.Errorf("crimux ends with %v, the backend with %v", through.st.Proto(), direct.st.Proto())
	}
	if !sameMD(direct.header, through.header) {
		t.Errorf("crimux has the header %v, the backend %v", through.header, direct.header)
	}
	if !sameMD(direct.trailer, through.trailer) {
		t.Errorf("crimux has the trailer %v, the backend %v", through.trailer, direct.trailer)
	}
}

func sameMD(a, b metadata.MD) bool { return maps.EqualFunc(a, b, slices.Equal[[]string]) }

// gives tells whether an answer is one, where another backend may have one.
func gives(method string, r reply) bool {
	switch method {
	case "RuntimeConfig":
		switch r.st.Code() {
		case codes.OK, codes.InvalidArgument, codes.ResourceExhausted, codes.Unimplemented:
			return true
		}
		return false
	case "ImageStatus":
		return r.st.Code() == codes.OK && has(r.frames[0], 1)
	}
	return true
}

// checkEither compares with the backend whose answer it is to be, where several
// may be asked: the first that has one, and else the default.
func (d *differ) checkEither(t *testing.T, x exchange, asked [][]heard, direct []reply, through reply) {
	t.Helper()
	from := 0
	if k, _ := d.handler(at(x.request, 1, 19)); methods[x.method].class == byImage {
		from = k.backend
	}
	var may []int
	for i := range direct {
		if len(asked[i]) > 0 && gives(methods[x.method].name, direct[i]) {
			may = append(may, i)
		}
	}
	switch {
	case len(may) == 1:
		from = may[0]
	case len(may) == 2 && methods[x.method].name == "ImageStatus":
		// Which one gave an image of that name last says which is first.
		if len(through.frames) != 1 || !sameMD(through.trailer, direct[0].trailer) || !d.answerRewrite(x, 0).allows(direct[0].frames[0], through.frames[0]) {
			from = 1
		}
	}
	if methods[x.method].name == "PullImage" {
		uid := at(x.request, 3, 1, 2)
		if b, known := d.uids[uid]; known && at(x.request, 1, 19) == "" {
			from = b
		}
		if len(asked[from]) != 1 {
			t.Errorf("backend %d was not asked to pull", from)
		}
	}
	d.checkOne(t, x, direct[from], through, d.answerRewrite(x, from))
}
