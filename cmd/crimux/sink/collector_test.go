package sink

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	collogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // what the sink sends
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// collector is an OTLP endpoint over gRPC and HTTP.
type collector struct {
	collogspb.UnimplementedLogsServiceServer
	grpc, http string

	mu       sync.Mutex
	got      []*logspb.LogRecord
	resource map[string]string
	headers  []string
	requests int
	// limit is the largest request that is taken.
	limit int
	// answer says what comes of a request; nil takes it.
	answer func(*collogspb.ExportLogsServiceRequest) (*collogspb.ExportLogsServiceResponse, error)
}

func newCollector(t *testing.T) *collector { return newLimitedCollector(t, 4<<20) }

// newLimitedCollector returns a collector that takes requests of that size.
func newLimitedCollector(t *testing.T, limit int) *collector {
	t.Helper()
	c := &collector{limit: limit}
	g, h := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	c.grpc, c.http = "http://"+g.Addr().String(), "http://"+h.Addr().String()
	c.serveGRPC(t, g)
	server := &http.Server{Handler: http.HandlerFunc(c.serveHTTP), ReadHeaderTimeout: time.Minute}
	go server.Serve(h)
	t.Cleanup(func() { server.Close() })
	return c
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveGRPC returns what ends it.
func (c *collector) serveGRPC(t *testing.T, l net.Listener) (stop func()) {
	// What it has begun to take when it is ended must not be taken later.
	s := grpc.NewServer(grpc.MaxRecvMsgSize(c.limit), grpc.WaitForHandlers(true))
	collogspb.RegisterLogsServiceServer(s, c)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return s.Stop
}

// Export implements the collector's service.
func (c *collector) Export(ctx context.Context, r *collogspb.ExportLogsServiceRequest) (*collogspb.ExportLogsServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	return c.take(r, strings.Join(md.Get("authorization"), " "))
}

func (c *collector) serveHTTP(w http.ResponseWriter, r *http.Request) {
	in := &collogspb.ExportLogsServiceRequest{}
	zipped, err := gzip.NewReader(r.Body)
	if err == nil {
		var b []byte
		if b, err = io.ReadAll(http.MaxBytesReader(w, zipped, int64(c.limit))); err == nil {
			err = proto.Unmarshal(b, in)
		}
	}
	if errors.As(err, new(*http.MaxBytesError)) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil || r.URL.Path != "/v1/logs" {
		http.Error(w, "no logs", http.StatusBadRequest)
		return
	}
	out, err := c.take(in, r.Header.Get("Authorization"))
	if err != nil {
		code, known := map[codes.Code]int{codes.InvalidArgument: http.StatusBadRequest, codes.Internal: http.StatusInternalServerError}[status.Code(err)]
		if !known {
			code = http.StatusServiceUnavailable
		}
		http.Error(w, err.Error(), code)
		return
	}
	b, err := proto.Marshal(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Write(b)
}

func (c *collector) take(r *collogspb.ExportLogsServiceRequest, header string) (*collogspb.ExportLogsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	c.headers = append(c.headers, header)
	answer := &collogspb.ExportLogsServiceResponse{}
	if c.answer != nil {
		var err error
		if answer, err = c.answer(r); err != nil {
			return nil, err
		}
	}
	for _, rl := range r.GetResourceLogs() {
		c.resource = text(rl.GetResource().GetAttributes())
		for _, sl := range rl.GetScopeLogs() {
			c.got = append(c.got, sl.GetLogRecords()...)
		}
	}
	return answer, nil
}

func (c *collector) answers(f func(*collogspb.ExportLogsServiceRequest) (*collogspb.ExportLogsServiceResponse, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = f
}

// records is how many records a request has.
func records(r *collogspb.ExportLogsServiceRequest) int {
	n := 0
	for _, rl := range r.GetResourceLogs() {
		for _, sl := range rl.GetScopeLogs() {
			n += len(sl.GetLogRecords())
		}
	}
	return n
}

// seqs returns the sequence numbers that arrived, in order.
func (c *collector) seqs() []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var seqs []int64
	for _, r := range c.got {
		seqs = append(seqs, seqOf(r))
	}
	return seqs
}

// seqOf is the number of a record's event.
func seqOf(r *logspb.LogRecord) int64 {
	for _, a := range r.GetAttributes() {
		if a.GetKey() == attrSeq {
			return a.GetValue().GetIntValue()
		}
	}
	return 0
}

// text returns those attributes that are texts.
func text(attrs []*commonpb.KeyValue) map[string]string {
	m := make(map[string]string)
	for _, a := range attrs {
		m[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return m
}

// eventually fails the test where something does not become so, however busy
// the machine is.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// bench is a log with a place for cursors.
type bench struct {
	t   *testing.T
	log *store.Log
	dir string
	// out is what the sinks log.
	out *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), out: &lockedBuffer{}}
	b.open("events.db")
	return b
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (b *bench) open(name string) {
	b.t.Helper()
	log, err := store.Open(filepath.Join(b.dir, name), store.Options{NoSync: true})
	if err != nil {
		b.t.Fatal(err)
	}
	b.log = log
	b.t.Cleanup(func() { log.Close() })
}

// add appends n operations of a pod, of two events each.
func (b *bench) add(n int) {
	b.t.Helper()
	for range n {
		op := store.NewOp()
		pod := &eventpb.PodKey{Namespace: "default", Name: "web", Uid: "u"}
		_, err := b.log.Append(
			&eventpb.Event{Op: op, Backend: "docker", Kind: &eventpb.Event_Intent{Intent: &eventpb.Intent{Method: "PullImage", Pod: pod, Image: "app:1"}}},
			&eventpb.Event{Op: op, Backend: "docker", Kind: &eventpb.Event_Outcome{Outcome: &eventpb.Outcome{Code: 5, Message: "not found", Duration: 2e6}}},
		).Wait(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// noted waits until the position is at the log's end: what has arrived is noted
// a moment later.
func (b *bench) noted() {
	b.t.Helper()
	eventually(b.t, "the position is not written", func() bool {
		p, err := cursorFile{filepath.Join(b.dir, "sink-otlp.cursor")}.load()
		return err == nil && p.Seq == b.log.Last()
	})
}

// run runs a sink until stop.
func (b *bench) run(cfg policy.Sink) (stop func()) {
	b.t.Helper()
	if cfg.Name == "" {
		cfg.Name = "otlp"
	}
	if cfg.Protocol == "" {
		cfg.Protocol = policy.ProtocolGRPC
	}
	s, err := New(b.t.Context(), cfg, Options{Log: b.log, Dir: b.dir, Version: "1", Logger: slog.New(slog.NewTextHandler(b.out, nil))})
	if err != nil {
		b.t.Fatal(err)
	}
	s.linger, s.pause, s.first = time.Millisecond, time.Millisecond, time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	}
	b.t.Cleanup(stop)
	return stop
}
