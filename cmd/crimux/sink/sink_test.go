package sink

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	collogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// upTo are the numbers from 1 to n.
func upTo(n int64) []int64 {
	var all []int64
	for i := int64(1); i <= n; i++ {
		all = append(all, i)
	}
	return all
}

func (c *collector) has(want []int64) func() bool {
	return func() bool { return slices.Equal(c.seqs(), want) }
}

// TestShips sends over both protocols what is in the log and what comes later,
// and goes on after a restart where it had stopped.
func TestShips(t *testing.T) {
	for _, protocol := range []string{policy.ProtocolGRPC, policy.ProtocolHTTP} {
		t.Run(protocol, func(t *testing.T) {
			c, b := newCollector(t), newBench(t)
			cfg := policy.Sink{Endpoint: c.grpc, Protocol: protocol, Headers: []policy.Header{{Key: "Authorization", Value: "Bearer CANARY"}}}
			if protocol == policy.ProtocolHTTP {
				cfg.Endpoint = c.http
			}
			b.add(1)
			stop := b.run(cfg)
			eventually(t, "what was there does not arrive", c.has(upTo(2)))
			b.add(1)
			eventually(t, "what came later does not arrive", c.has(upTo(4)))
			b.noted()
			stop()
			b.add(1)
			b.run(cfg)
			eventually(t, "it does not go on after a restart", c.has(upTo(6)))
			c.inspect(t)
			if strings.Contains(b.out.String(), "CANARY") {
				t.Error("the header is logged")
			}
			b.noted()
			info, err := os.Stat(filepath.Join(b.dir, "sink-otlp.cursor"))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the position's file: %v, %v", info, err)
			}
		})
	}
}

// inspect looks at what the second event, an outcome, has become.
func (c *collector) inspect(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.got[1]
	got := text(r.GetAttributes())
	for key, want := range map[string]string{
		attrKind: "outcome", attrBackend: "docker", attrMethod: "PullImage", attrCode: "NotFound", attrMessage: "not found",
		attrPod: "web", attrNamespace: "default", attrUID: "u", attrDetail: `{"code":5,"message":"not found","duration":"2000000"}`,
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if len(got[attrHash]) != 64 || r.GetEventName() != "crimux.outcome" || r.GetSeverityText() != "WARN" || r.GetTimeUnixNano() == 0 {
		t.Errorf("got %v", r)
	}
	if body := r.GetBody().GetStringValue(); body != "PullImage NotFound in 2ms: image app:1: not found" {
		t.Errorf("the body is %q", body)
	}
	if c.resource["service.name"] != "crimux" || c.resource["service.version"] != "1" || c.resource["host.name"] == "" {
		t.Errorf("the resource is %v", c.resource)
	}
	for _, h := range c.headers {
		if h != "Bearer CANARY" {
			t.Errorf("a request has the header %q", h)
		}
	}
}

// TestOutage has a collector that refuses, and quotes the secret; then none
// at all; then one again: nothing is lost, nothing comes twice, and the log is
// written to all the while.
func TestOutage(t *testing.T) {
	c, b := newCollector(t), newBench(t)
	refused := 0
	c.answers(func(*collogspb.ExportLogsServiceRequest) (*collogspb.ExportLogsServiceResponse, error) {
		refused++
		return nil, status.Error(codes.Unauthenticated, "who is Bearer CANARY?")
	})
	// From this address nobody connects, so that its port stays free meanwhile.
	l := listen(t, "127.5.4.3:0")
	addr := l.Addr().String()
	stop := c.serveGRPC(t, l)
	b.run(policy.Sink{Endpoint: "http://" + addr, Headers: []policy.Header{{Key: "authorization", Value: "Bearer CANARY"}}})
	b.add(3)
	eventually(t, "it gives up", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return refused >= 3 })
	stop()
	b.add(3)
	c.answers(nil)
	c.serveGRPC(t, listen(t, addr))
	eventually(t, "it does not recover", c.has(upTo(12)))
	eventually(t, "that it recovered is not told", func() bool { return strings.Contains(b.out.String(), "events are shipped again") })
	if out := b.out.String(); strings.Contains(out, "CANARY") || !strings.Contains(out, "who is [hidden]?") || strings.Count(out, "cannot be shipped") != 1 {
		t.Errorf("it logs\n%s", out)
	}
}

// TestHangingCollector keeps a request for ever: the log takes events, and no
// second request is made.
func TestHangingCollector(t *testing.T) {
	c, b := newCollector(t), newBench(t)
	release := make(chan struct{})
	c.answers(func(*collogspb.ExportLogsServiceRequest) (*collogspb.ExportLogsServiceResponse, error) {
		<-release
		return &collogspb.ExportLogsServiceResponse{}, nil
	})
	b.run(policy.Sink{Endpoint: c.grpc})
	b.add(2 * batchRecords)
	close(release)
	eventually(t, "not all events arrive", c.has(upTo(4*batchRecords)))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests > 4*batchRecords/2 {
		t.Errorf("%d requests for %d events: they are not sent in batches", c.requests, 4*batchRecords)
	}
}

// TestTakesBatchesApart has a collector that takes three records at once.
func TestTakesBatchesApart(t *testing.T) {
	c, b := newCollector(t), newBench(t)
	c.answers(func(r *collogspb.ExportLogsServiceRequest) (*collogspb.ExportLogsServiceResponse, error) {
		if records(r) > 3 {
			return nil, status.Error(codes.ResourceExhausted, "too large")
		}
		return &collogspb.ExportLogsServiceResponse{}, nil
	})
	b.add(8)
	b.run(policy.Sink{Endpoint: c.grpc})
	eventually(t, "not all events arrive", c.has(upTo(16)))
}

// TestRejected has a collector that takes a request and drops some of it: it
// is told so in the log, and does not get it again.
func TestRejected(t *testing.T) {
	for _, protocol := range []string{policy.ProtocolGRPC, policy.ProtocolHTTP} {
		c, b := newCollector(t), newBench(t)
		c.answers(func(r *collogspb.ExportLogsServiceRequest) (*collogspb.ExportLogsServiceResponse, error) {
			return &collogspb.ExportLogsServiceResponse{PartialSuccess: &collogspb.ExportLogsPartialSuccess{
				RejectedLogRecords: 1, ErrorMessage: "too old",
			}}, nil
		})
		cfg := policy.Sink{Endpoint: c.grpc, Protocol: protocol}
		if protocol == policy.ProtocolHTTP {
			cfg.Endpoint = c.http
		}
		b.add(1)
		b.run(cfg)
		eventually(t, "it is not told", func() bool { return strings.Contains(b.out.String(), "too old") })
		b.add(1)
		eventually(t, "it does not go on", c.has(upTo(4)))
	}
}

// TestPosition goes on from positions that are lost, damaged, of another log,
// or could not be written: nothing is left out, though it may come again.
func TestPosition(t *testing.T) {
	c, b := newCollector(t), newBench(t)
	b.add(2)
	cursor := filepath.Join(b.dir, "sink-otlp.cursor")
	ship := func(want []int64) {
		t.Helper()
		c.mu.Lock()
		c.got = nil
		c.mu.Unlock()
		stop := b.run(policy.Sink{Endpoint: c.grpc})
		eventually(t, fmt.Sprintf("%v do not arrive", want), c.has(want))
		b.noted()
		stop()
	}
	ship(upTo(4))
	if err := os.WriteFile(cursor, []byte(`{"seq":4,"sha256":"00"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ship(upTo(4))
	if err := os.Remove(cursor); err != nil {
		t.Fatal(err)
	}
	ship(upTo(4))
	// Another log, of more events and of fewer.
	b.open("longer.db")
	b.add(3)
	ship(upTo(6))
	b.open("shorter.db")
	b.add(1)
	ship(upTo(2))
	if n := strings.Count(b.out.String(), "the position is of another log"); n != 2 {
		t.Errorf("another log is told %d times", n)
	}
}

// TestPositionCannotBeWritten ships all the same, and again after a restart.
func TestPositionCannotBeWritten(t *testing.T) {
	c, b := newCollector(t), newBench(t)
	b.add(1)
	if err := os.Mkdir(filepath.Join(b.dir, "sink-otlp.cursor.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	stop := b.run(policy.Sink{Endpoint: c.grpc})
	eventually(t, "they do not arrive", c.has(upTo(2)))
	eventually(t, "it is not told", func() bool { return strings.Contains(b.out.String(), "the position cannot be written") })
	stop()
	b.run(policy.Sink{Endpoint: c.grpc})
	eventually(t, "they do not arrive again", c.has(append(upTo(2), upTo(2)...)))
}

// TestNamesOfWhatWasThere: an event that names only a container is told with
// the pod, though the pod was made before the position.
func TestNamesOfWhatWasThere(t *testing.T) {
	c, b := newCollector(t), newBench(t)
	append1 := func(e *eventpb.Event) {
		t.Helper()
		if _, err := b.log.Append(e).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	append1(&eventpb.Event{Backend: "docker", Kind: &eventpb.Event_Observed{Observed: &eventpb.Observed{
		Sandboxes:  []*eventpb.Sandbox{{Id: "s", Backend: "docker", Pod: &eventpb.PodKey{Namespace: "default", Name: "web", Uid: "u"}}},
		Containers: []*eventpb.Container{{Id: "c", SandboxId: "s", Name: "app"}},
	}}})
	stop := b.run(policy.Sink{Endpoint: c.grpc})
	eventually(t, "it does not arrive", c.has(upTo(1)))
	b.noted()
	stop()
	append1(&eventpb.Event{Backend: "docker", Kind: &eventpb.Event_Probed{Probed: &eventpb.Probed{ContainerId: "c", Count: 1, ExitCode: 1}}})
	b.run(policy.Sink{Endpoint: c.grpc})
	eventually(t, "it does not arrive", c.has(upTo(2)))
	c.mu.Lock()
	defer c.mu.Unlock()
	if got := text(c.got[1].GetAttributes()); got[attrPod] != "web" || got[attrName] != "app" {
		t.Errorf("got %v", got)
	}
}

// TestLongDetail leaves out what no collector would take.
func TestLongDetail(t *testing.T) {
	c, b := newCollector(t), newBench(t)
	_, err := b.log.Append(&eventpb.Event{Kind: &eventpb.Event_Stopped{Stopped: &eventpb.Stopped{Reason: strings.Repeat("x", maxDetail)}}}).Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.run(policy.Sink{Endpoint: c.grpc})
	eventually(t, "it does not arrive", c.has(upTo(1)))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.got[0].GetAttributes() {
		if a.GetKey() == attrDetail {
			t.Error("the detail is there")
		}
	}
}

// TestDocumentedAttributes: docs/events.md names them all.
func TestDocumentedAttributes(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, attr := range []string{
		attrSeq, attrHash, attrKind, attrOp, attrBackend, attrMethod, attrCode, attrMessage, attrDuration, attrSandbox, attrDetail, attrTruncated,
		attrContainer, attrName, attrPod, attrUID, attrNamespace,
	} {
		if !strings.Contains(string(doc), "`"+attr+"`") {
			t.Errorf("%s is not in docs/events.md", attr)
		}
	}
}

// TestClosedLog ends the sink.
func TestClosedLog(t *testing.T) {
	c, b := newCollector(t), newBench(t)
	s, err := New(t.Context(), policy.Sink{Name: "x", Endpoint: c.grpc, Protocol: policy.ProtocolGRPC},
		Options{Log: b.log, Dir: b.dir, Version: "1", Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil && !errors.Is(err, store.ErrClosed) {
		t.Error(err)
	}
}

// FuzzCursor reads anything as a position.
func FuzzCursor(f *testing.F) {
	f.Add([]byte(`{"seq":4,"sha256":"` + strings.Repeat("0a", 32) + `"}`))
	f.Add([]byte(`{"seq":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := cursorFile{filepath.Join(t.TempDir(), "c")}
		if err := os.WriteFile(c.path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := c.load()
		if err != nil {
			if p != (position{}) {
				t.Error("a position besides the error")
			}
			return
		}
		if err := c.save(p); err != nil {
			t.Fatal(err)
		}
		if again, err := c.load(); err != nil || again != p {
			t.Errorf("%+v becomes %+v, %v", p, again, err)
		}
	})
}
