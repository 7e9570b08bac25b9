package sink

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	collogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store/eventpb"
)

// protocols calls fn for each protocol, with a sink's configuration for it.
func protocols(t *testing.T, limit int, fn func(t *testing.T, c *collector, b *bench, cfg policy.Sink)) {
	for _, protocol := range []string{policy.ProtocolGRPC, policy.ProtocolHTTP} {
		t.Run(protocol, func(t *testing.T) {
			c := newLimitedCollector(t, limit)
			cfg := policy.Sink{Endpoint: c.grpc, Protocol: protocol}
			if protocol == policy.ProtocolHTTP {
				cfg.Endpoint = c.http
			}
			fn(t, c, newBench(t), cfg)
		})
	}
}

// long appends an event with a text of that many bytes.
func (b *bench) long(size int) {
	b.t.Helper()
	e := &eventpb.Event{Kind: &eventpb.Event_Stopped{Stopped: &eventpb.Stopped{Reason: strings.Repeat("é", size/2)}}}
	if _, err := b.log.Append(e).Wait(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// record returns what arrived of an event.
func (c *collector) record(t *testing.T, seq int64) *logspb.LogRecord {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.got, func(r *logspb.LogRecord) bool { return seqOf(r) == seq })
	if i < 0 {
		t.Fatalf("event %d did not arrive", seq)
	}
	return c.got[i]
}

// leftOut tells whether a record has no detail, and says so.
func leftOut(r *logspb.LogRecord) bool {
	_, has := text(r.GetAttributes())[attrDetail]
	for _, a := range r.GetAttributes() {
		if a.GetKey() == attrTruncated && a.GetValue().GetBoolValue() {
			return !has
		}
	}
	return false
}

// TestLargerThanABatch ships events that are larger than a batch, and a message
// that is: in what a collector takes, and with those around them.
func TestLargerThanABatch(t *testing.T) {
	protocols(t, 4<<20, func(t *testing.T, c *collector, b *bench, cfg policy.Sink) {
		b.add(1)
		for range 5 {
			b.long(2 * batchBytes)
		}
		_, err := b.log.Append(
			&eventpb.Event{Op: "o", Kind: &eventpb.Event_Intent{Intent: &eventpb.Intent{Method: "PullImage"}}},
			&eventpb.Event{Op: "o", Kind: &eventpb.Event_Outcome{Outcome: &eventpb.Outcome{Code: 13, Message: strings.Repeat("é", batchBytes)}}},
		).Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.add(1)
		b.run(cfg)
		eventually(t, "not all events arrive", c.has(upTo(11)))
		for _, seq := range []int64{3, 7, 9} {
			r := c.record(t, seq)
			if !leftOut(r) || proto.Size(r) > maxDetail {
				t.Errorf("event %d arrives with %d bytes", seq, proto.Size(r))
			}
		}
		message := text(c.record(t, 9).GetAttributes())[attrMessage]
		if len(message) < maxText || !strings.HasSuffix(message, "é…") || !utf8.ValidString(message) {
			t.Errorf("a message of %d bytes, which ends in %q", len(message), message[max(0, len(message)-10):])
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.requests != 1 {
			t.Errorf("%d requests: what is left out counts for the size of a batch", c.requests)
		}
	})
}

// TestBatchesAreBounded: details below the bound are many bytes together.
func TestBatchesAreBounded(t *testing.T) {
	c, b := newLimitedCollector(t, batchBytes+4*maxDetail), newBench(t)
	for range 60 {
		b.long(maxDetail - 1000)
	}
	b.run(policy.Sink{Endpoint: c.grpc})
	eventually(t, "not all events arrive", c.has(upTo(60)))
	if out := b.out.String(); out != "" {
		t.Errorf("a batch is too large:\n%s", out)
	}
}

// TestLargerThanTheCollectorTakes has a collector that takes less than one
// event: it gets that one without its detail, and all others whole.
func TestLargerThanTheCollectorTakes(t *testing.T) {
	protocols(t, 32<<10, func(t *testing.T, c *collector, b *bench, cfg policy.Sink) {
		b.add(2)
		b.long(48 << 10)
		b.add(2)
		b.run(cfg)
		eventually(t, "not all events arrive", c.has(upTo(9)))
		for seq := int64(1); seq <= 9; seq++ {
			if leftOut(c.record(t, seq)) != (seq == 5) {
				t.Errorf("event %d: %v", seq, c.record(t, seq))
			}
		}
		eventually(t, "it is not told", func() bool {
			return strings.Contains(b.out.String(), `level=WARN msg="the collector refuses an event, and took it without its detail" sink=otlp seq=5 `)
		})
	})
}

// more waits for that many requests more.
func (c *collector) more(t *testing.T, n int) {
	t.Helper()
	requests := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.requests
	}
	now := requests()
	eventually(t, "it gives up", func() bool { return requests() >= now+n })
}

// refuses has the collector refuse every request in which there is an event of
// those.
func (c *collector) refuses(code codes.Code, bad func(seq int64) bool) {
	c.answers(func(r *collogspb.ExportLogsServiceRequest) (*collogspb.ExportLogsServiceResponse, error) {
		for _, rl := range r.GetResourceLogs() {
			for _, sl := range rl.GetScopeLogs() {
				for _, l := range sl.GetLogRecords() {
					if bad(seqOf(l)) {
						return nil, status.Errorf(code, "I do not like event %d", seqOf(l))
					}
				}
			}
		}
		return &collogspb.ExportLogsServiceResponse{}, nil
	})
}

// TestRefusedForGood has a collector that never takes certain events: they are
// given up by their number, as soon as it is seen to take others, and the rest
// arrives in order.
func TestRefusedForGood(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.Internal} {
		protocols(t, 4<<20, func(t *testing.T, c *collector, b *bench, cfg policy.Sink) {
			c.refuses(code, func(seq int64) bool { return seq == 3 || seq == 4 || seq == 8 })
			b.add(4)
			b.run(cfg)
			eventually(t, "it does not go on", func() bool { return inOrder(c.seqs(), []int64{1, 2, 5, 6, 7}) })
			// The last of all is not given up: perhaps the collector takes none now.
			c.more(t, 6)
			const given = `level=WARN msg="the collector refuses an event for good: it is not shipped" sink=otlp seq=%d `
			if out := b.out.String(); strings.Contains(out, fmt.Sprintf(given, 8)) {
				t.Errorf("given up too early:\n%s", out)
			}
			b.add(1)
			eventually(t, "it does not go on after the newest", func() bool { return inOrder(c.seqs(), []int64{1, 2, 5, 6, 7, 9, 10}) })
			b.noted()
			for _, seq := range []int{3, 4, 8} {
				if out := b.out.String(); strings.Count(out, fmt.Sprintf(given, seq)) != 1 || !strings.Contains(out, fmt.Sprintf("I do not like event %d", seq)) {
					t.Errorf("that event %d is given up is not told, or not once:\n%s", seq, out)
				}
			}
		})
	}
}

// inOrder tells whether all of want are in got in that order; what the collector
// was tried with may be there twice.
func inOrder(got, want []int64) bool {
	for _, seq := range got {
		if len(want) > 0 && seq == want[0] {
			want = want[1:]
		}
	}
	return len(want) == 0
}

// TestRefusesAll has a collector that refuses whatever comes, as one that is set
// up wrongly does: nothing is given up, and all of it arrives whole later on.
func TestRefusesAll(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.PermissionDenied} {
		c, b := newCollector(t), newBench(t)
		c.refuses(code, func(int64) bool { return true })
		b.add(4)
		b.run(policy.Sink{Endpoint: c.grpc})
		c.more(t, 6)
		c.answers(nil)
		eventually(t, "not all events arrive", func() bool { return inOrder(c.seqs(), upTo(8)) })
		if out := b.out.String(); strings.Contains(out, "seq=") {
			t.Errorf("after %s:\n%s", code, out)
		}
		for seq := int64(2); seq <= 8; seq++ {
			if r := c.record(t, seq); leftOut(r) || text(r.GetAttributes())[attrMethod] != "PullImage" {
				t.Errorf("after %s: event %d is not whole: %v", code, seq, r)
			}
		}
	}
}

// TestRefusalsAreToldApart: only answers about what was sent are refusals.
func TestRefusalsAreToldApart(t *testing.T) {
	quota, err := status.New(codes.ResourceExhausted, "too many").WithDetails(&errdetails.RetryInfo{})
	if err != nil {
		t.Fatal(err)
	}
	if refusesGRPC(quota.Err()) || !refusesGRPC(status.Error(codes.ResourceExhausted, "too large")) {
		t.Error("a quota and a size are not told apart")
	}
	for code, want := range map[codes.Code]bool{
		codes.OK: false, codes.Unavailable: false, codes.DeadlineExceeded: false, codes.Unauthenticated: false, codes.PermissionDenied: false,
		codes.Unimplemented: false, codes.InvalidArgument: true, codes.Internal: true, codes.Unknown: true,
	} {
		if got := refusesGRPC(status.Error(code, "")); got != want {
			t.Errorf("%s: %t", code, got)
		}
	}
	for code, want := range map[int]bool{200: false, 307: false, 400: true, 401: false, 403: false, 404: false, 413: true, 422: true, 429: false, 500: true, 502: false, 503: false} {
		if got := refusesHTTP(code); got != want {
			t.Errorf("%d: %t", code, got)
		}
	}
}
