package sink

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otellog "go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// maxDetail bounds the detail of one record: collectors take requests of a few
// megabytes at most, and one that never gets through would hold up the rest.
const maxDetail = 64 << 10

// maxText bounds the other texts, of which a message may be as long as a backend
// likes.
const maxText = 8 << 10

// Attributes of a record. Docs: docs/events.md.
const (
	attrSeq       = "crimux.seq"
	attrHash      = "crimux.record.sha256"
	attrKind      = "crimux.kind"
	attrOp        = "crimux.op"
	attrBackend   = "crimux.backend"
	attrMethod    = "crimux.method"
	attrCode      = "crimux.code"
	attrMessage   = "crimux.message"
	attrDuration  = "crimux.duration_ms"
	attrSandbox   = "crimux.sandbox.id"
	attrDetail    = "crimux.detail"
	attrTruncated = "crimux.detail_left_out"
	attrContainer = "container.id"
	attrName      = "k8s.container.name"
	attrPod       = "k8s.pod.name"
	attrUID       = "k8s.pod.uid"
	attrNamespace = "k8s.namespace.name"
)

// item is an event as it is sent.
type item struct {
	pos    position
	record sdklog.Record
}

// teller makes records of events.
type teller struct {
	logger otellog.Logger
	made   *captured
	// names is a state by which methods, pods and containers are told by
	// name. It is not that before each event: see begin.
	names *store.State
	rows  view.Rows
}

// captured is the processor that keeps what the SDK makes of a record.
type captured struct{ record sdklog.Record }

func (*captured) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }

// OnEmit implements sdklog.Processor.
func (c *captured) OnEmit(_ context.Context, r *sdklog.Record) error {
	c.record = r.Clone()
	return nil
}

// Shutdown implements sdklog.Processor.
func (*captured) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdklog.Processor.
func (*captured) ForceFlush(context.Context) error { return nil }

func newTeller(version string) (teller, error) {
	host, err := os.Hostname()
	if err != nil {
		return teller{}, err
	}
	made := &captured{}
	provider := sdklog.NewLoggerProvider(
		sdklog.WithProcessor(made),
		sdklog.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "crimux"),
			attribute.String("service.version", version),
			attribute.String("host.name", host),
		)),
	)
	return teller{logger: provider.Logger("crimux"), made: made, names: store.NewState()}, nil
}

// begin takes over the present state as that after event seq. What was removed
// since is not in it, so that an event of it may lack the pod's name; folding
// the log from its begin only for that would cost a start as much as the log is
// long.
func (t *teller) begin(log Log, seq uint64) {
	var m *eventpb.State
	log.View(func(s *store.State) { m = s.Proto() })
	m.Seq = seq
	m.Operations = slices.DeleteFunc(slices.Clone(m.GetOperations()), func(op *eventpb.Operation) bool { return op.GetSeq() > seq })
	if names, err := store.FromProto(m); err == nil {
		t.names = names
	}
}

// tell makes the record of an event. ok is false for what is none.
func (t *teller) tell(r store.Record) (it item, ok bool, err error) {
	e, err := r.Event()
	if err != nil || view.KindOf(e) == view.KindSnapshot {
		return item{}, false, err
	}
	rec, err := view.NewRecord(t.names, e)
	if err != nil {
		return item{}, false, err
	}
	row := t.rows.Row(t.names, e, view.Selector{})
	// What was read before, for a batch that did not arrive, is known already,
	// and what does not fit only costs names.
	_ = t.names.Apply(e)
	var l otellog.Record
	at := time.Unix(0, e.GetTime())
	l.SetTimestamp(at)
	l.SetObservedTimestamp(at)
	l.SetEventName("crimux." + rec.Kind)
	l.SetSeverity(otellog.SeverityInfo)
	l.SetSeverityText("INFO")
	if row.Failed {
		l.SetSeverity(otellog.SeverityWarn)
		l.SetSeverityText("WARN")
	}
	l.SetBody(attribute.StringValue(bounded(row.Event + " " + row.Detail)))
	l.AddAttributes(attributes(rec, r)...)
	t.logger.Emit(context.Background(), l)
	return item{record: t.made.record}, true, nil
}

// attributes are what programs look for. Those without a value are left out.
func attributes(rec view.Record, r store.Record) []attribute.KeyValue {
	hash := hashOf(r)
	all := []attribute.KeyValue{
		attribute.Int64(attrSeq, int64(rec.Seq)),
		attribute.String(attrHash, hex.EncodeToString(hash[:])),
	}
	text := func(key, value string) {
		if value != "" {
			all = append(all, attribute.String(key, bounded(value)))
		}
	}
	text(attrKind, rec.Kind)
	text(attrOp, rec.Op)
	text(attrBackend, rec.Backend)
	text(attrMethod, rec.Method)
	text(attrCode, rec.Code)
	text(attrMessage, rec.Message)
	text(attrSandbox, rec.SandboxID)
	text(attrContainer, rec.ContainerID)
	text(attrName, rec.Container)
	if rec.Pod != nil {
		text(attrPod, rec.Pod.Name)
		text(attrUID, rec.Pod.UID)
		text(attrNamespace, rec.Pod.Namespace)
	}
	if rec.DurationMs != nil {
		all = append(all, attribute.Float64(attrDuration, *rec.DurationMs))
	}
	if len(rec.Detail) > maxDetail {
		return append(all, attribute.Bool(attrTruncated, true))
	}
	return append(all, attribute.String(attrDetail, compact(rec.Detail)))
}

// bounded cuts a text that is too long, between two characters.
func bounded(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

func hashOf(r store.Record) [sha256.Size]byte { return sha256.Sum256(r.Value) }
