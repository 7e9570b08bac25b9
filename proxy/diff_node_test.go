package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/proxy/wire"
	"github.com/crimux/crimux/store"
)

// caseKey is the metadata that a call carries from the client to the backend,
// by which the backend knows what it is to answer.
const caseKey = "traceparent"

// scripted is what a backend answers to a call, in bytes.
type scripted struct {
	header, trailer metadata.MD
	frames          [][]byte
	// st is nil for OK.
	st *status.Status
	// early has the header sent before all else, and not with the first
	// message; where hold is not nil, what is sent after the frames, and the
	// end, come when it is closed.
	early bool
	hold  <-chan struct{}
	after [][]byte
}

// heard is what a backend was asked, in bytes.
type heard struct {
	method string
	frames [][]byte
	meta   metadata.MD
}

// rawRuntime is a backend that answers what a case says with the bytes of the
// case, and all else as the fake behind it.
type rawRuntime struct {
	fake   *fakeRuntime
	socket string
	server *grpc.Server
	// conn leads to it directly, behind to the fake.
	conn, behind *grpc.ClientConn
	events       hub

	mu      sync.Mutex
	scripts map[callOf]scripted
	heard   map[string][]heard
	// ended counts the calls of a case that the backend is done with.
	ended map[string]int
}

// callOf is a method in a case.
type callOf struct{ id, method string }

func newRaw(t testing.TB, name string) *rawRuntime {
	r := &rawRuntime{
		fake: newFake(t, name), socket: filepath.Join(t.TempDir(), "raw.sock"),
		scripts: map[callOf]scripted{}, heard: map[string][]heard{}, ended: map[string]int{},
	}
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	// It may send more than fits, and be sent no more than a runtime is.
	r.server = grpc.NewServer(grpc.ForceServerCodecV2(backends.NewCodec()), grpc.UnknownServiceHandler(r.handle),
		grpc.MaxRecvMsgSize(2*backends.MaxMessage), grpc.MaxSendMsgSize(2*backends.MaxMessage))
	go r.server.Serve(l)
	t.Cleanup(r.server.Stop)
	r.conn, r.behind = dialRaw(t, r.socket), dialRaw(t, r.fake.socket)
	return r
}

// dialRaw connects as a kubelet does, but sends and receives bytes.
func dialRaw(t testing.TB, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(backends.NewCodec()),
			grpc.MaxCallRecvMsgSize(backends.MaxMessage), grpc.MaxCallSendMsgSize(2*backends.MaxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// play has the calls of one case answered as scripted.
func (r *rawRuntime) play(id, method string, s scripted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.scripts[callOf{id, method}] = s
}

// done ends a case and returns what was asked in it.
func (r *rawRuntime) done(id string) []heard {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.heard[id]
	delete(r.heard, id)
	delete(r.ended, id)
	maps.DeleteFunc(r.scripts, func(c callOf, _ scripted) bool { return c.id == id })
	return h
}

func (r *rawRuntime) handle(_ any, ss grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(ss)
	md, _ := metadata.FromIncomingContext(ss.Context())
	id := strings.Join(md.Get(caseKey), "")
	r.mu.Lock()
	s, ok := r.scripts[callOf{id, full}]
	r.mu.Unlock()
	if ok {
		return r.answer(ss, callOf{id, full}, md, s)
	}
	req := new(backends.Frame)
	if err := ss.RecvMsg(req); err != nil {
		return err
	}
	if full == runtimeapi.RuntimeService_GetContainerEvents_FullMethodName {
		return r.sendEvents(ss)
	}
	return r.forward(ss, full, req)
}

// answer plays a script.
func (r *rawRuntime) answer(ss grpc.ServerStream, c callOf, md metadata.MD, s scripted) error {
	h := heard{method: c.method, meta: md}
	for {
		f := new(backends.Frame)
		if err := ss.RecvMsg(f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		h.frames = append(h.frames, append([]byte(nil), f.Bytes()...))
	}
	r.mu.Lock()
	r.heard[c.id] = append(r.heard[c.id], h)
	r.mu.Unlock()
	setHeader := ss.SetHeader
	if s.early {
		setHeader = ss.SendHeader
	}
	if err := setHeader(s.header); err != nil {
		return err
	}
	ss.SetTrailer(s.trailer)
	for _, b := range s.frames {
		if err := ss.SendMsg(backends.NewFrame(b)); err != nil {
			return err
		}
	}
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ss.Context().Done():
		}
	}
	for _, b := range s.after {
		if err := ss.SendMsg(backends.NewFrame(b)); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.ended[c.id]++
	r.mu.Unlock()
	return s.st.Err()
}

// through tells how many calls of a case the backend is done with.
func (r *rawRuntime) through(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended[id]
}

// forward answers as the fake does, and for what bytes alone can ask by itself:
// no object has an id that is no text, and every image is there.
func (r *rawRuntime) forward(ss grpc.ServerStream, full string, req *backends.Frame) error {
	if full == runtimeapi.ImageService_ImageStatus_FullMethodName {
		return ss.SendMsg(backends.NewFrame(byID(string(byID("some-image")))))
	}
	if strings.HasPrefix(full, "/runtime.v1.RuntimeService/List") && !utf8.ValidString(wire.Message(req.Bytes()).At(1, 1)) {
		return ss.SendMsg(backends.NewFrame(nil))
	}
	if m := methods[full]; m == nil || m.streams {
		return status.Errorf(codes.Unimplemented, "unknown method %s", full)
	}
	out := new(backends.Frame)
	if err := r.behind.Invoke(ss.Context(), full, req, out); err != nil {
		return err
	}
	return ss.SendMsg(out)
}

// sendEvents sends what emit is given.
func (r *rawRuntime) sendEvents(ss grpc.ServerStream) error {
	in := r.events.join()
	defer r.events.leave(in)
	if err := ss.SendHeader(nil); err != nil {
		return err
	}
	return in.send(ss.Context(), ss)
}

// known is an object that the front knows, and where it is.
type known struct {
	backend int
	// front and own are the handlers by which the kubelet and the backend know
	// its pod; placed is set where crimux has decided on it.
	front, own string
	placed     bool
	sandbox    string
}

// differ is a node over raw backends, and what is known to be on it.
type differ struct {
	*node
	raw   []*rawRuntime
	front *grpc.ClientConn
	// sandboxes and containers by their ids, pods' backends by their uids.
	sandboxes, containers map[string]known
	uids                  map[string]int
	cases                 atomic.Int64
	// descriptors are what each backend has said of its metrics, announced the
	// labels as the client was told of them.
	descriptors [2][][]byte
	announced   map[string][]string
}

const diffConfig = `apiVersion: crimux.dev/v1
kind: Config
listen: unix:///run/unused.sock
stateDir: %s
backends:
  a: {type: cri, endpoint: "unix://%s"}
%sroutes:
  - {handler: front-a, backend: a, backendHandler: own-a}
%sdefault: a
health: {probeInterval: 100ms, downAfter: 10s}
`

// newDiffer returns a node over one or two backends with pods of each kind:
// older than crimux, placed by a handler with another name on its backend, by
// one without, and by no handler.
func newDiffer(t testing.TB, count int) *differ { return newDifferWith(t, count, 0) }

// newDifferWith is newDiffer with another time after which a backend counts as
// away; 0 is that of diffConfig.
func newDifferWith(t testing.TB, count int, downAfter time.Duration) *differ {
	t.Helper()
	d := &differ{node: &node{dir: t.TempDir(), downAfter: downAfter}, sandboxes: map[string]known{}, containers: map[string]known{}, uids: map[string]int{}}
	for i := range count {
		r := newRaw(t, string(rune('a'+i)))
		d.raw = append(d.raw, r)
		d.addOld(t, i)
	}
	d.begin(t)
	handlers := []struct {
		front, own string
		backend    int
	}{{"front-a", "own-a", 0}, {"", "", 0}, {"front-b", "", 1}}[:count+1]
	for _, h := range handlers {
		id := d.run(t, "placed-"+h.front, h.front)
		k := known{backend: h.backend, front: h.front, own: h.own, placed: true, sandbox: id}
		d.sandboxes[id], d.containers[d.create(t, id, "known-container")] = k, k
		d.uids["uid-placed-"+h.front] = h.backend
	}
	return d
}

// addOld gives a fake a pod that is there before crimux is.
func (d *differ) addOld(t testing.TB, i int) {
	t.Helper()
	f := d.raw[i].fake
	sb, err := f.RunPodSandbox(t.Context(), runRequest("old-"+f.name, "old-handler"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.CreateContainer(t.Context(), createRequest(sb.PodSandboxId, "old-container"))
	if err != nil {
		t.Fatal(err)
	}
	k := known{backend: i, front: "old-handler", own: "old-handler", sandbox: sb.PodSandboxId}
	d.sandboxes[sb.PodSandboxId], d.containers[c.ContainerId] = k, k
}

// begin starts the front.
func (d *differ) begin(t testing.TB) {
	t.Helper()
	second, route := "", ""
	if len(d.raw) > 1 {
		second = fmt.Sprintf("  b: {type: cri, endpoint: \"unix://%s\"}\n", d.raw[1].socket)
		route = "  - {handler: front-b, backend: b}\n"
	}
	cfg, err := policy.Parse("config.yaml", fmt.Appendf(nil, diffConfig, d.dir, d.raw[0].socket, second, route))
	if err != nil {
		t.Fatal(err)
	}
	d.start(t, cfg)
	d.front = dialRaw(t, strings.TrimPrefix(d.conn.Target(), "unix://"))
	for _, m := range d.server.set.All() {
		eventually(t, "the backend's pods are known", func() bool {
			n := 0
			d.log.View(func(st *store.State) { n, _ = stillThere(st, m.Name()) })
			return n > 0 && d.server.lanes[m.Name()].isClear()
		})
	}
}

// reply is what a client sees of an answer.
type reply struct {
	header, trailer metadata.MD
	frames          [][]byte
	st              *status.Status
	// began is set where a stream had a header before its end, even an empty
	// one.
	began bool
}

// rawCall makes a call as a client does that has no opinion about messages.
func rawCall(ctx context.Context, conn *grpc.ClientConn, full string, streams bool, requests ...[]byte) reply {
	var r reply
	if !streams {
		out := new(backends.Frame)
		err := conn.Invoke(ctx, full, backends.NewFrame(requests[0]), out, grpc.Header(&r.header), grpc.Trailer(&r.trailer))
		if err == nil {
			r.frames = [][]byte{append([]byte(nil), out.Bytes()...)}
		}
		return r.with(err)
	}
	st, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, full)
	if err != nil {
		return r.with(err)
	}
	for _, b := range requests {
		if err := st.SendMsg(backends.NewFrame(b)); err != nil && !errors.Is(err, io.EOF) {
			return r.with(err)
		}
	}
	if err := st.CloseSend(); err != nil {
		return r.with(err)
	}
	for {
		f := new(backends.Frame)
		if err = st.RecvMsg(f); err != nil {
			break
		}
		r.frames = append(r.frames, append([]byte(nil), f.Bytes()...))
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	r.header, _ = st.Header()
	r.began = r.header != nil
	r.trailer = st.Trailer()
	return r.with(err)
}

// with completes a reply by how it ended.
func (r reply) with(err error) reply {
	r.st = status.Convert(err)
	r.header, r.trailer = r.header.Copy(), r.trailer.Copy()
	// Written by gRPC itself, at each end.
	r.header.Delete("content-type")
	r.trailer.Delete("content-type")
	return r
}
