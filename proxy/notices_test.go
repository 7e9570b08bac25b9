package proxy

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// talker is a backend that does nothing but notice.
type talker struct {
	backends.Backend
	tell func(backends.Notice)
}

func (*talker) Name() string { return "a" }

func (b *talker) OnNotice(tell func(backends.Notice)) { b.tell = tell }

// TestNoticesAreRecorded: what a backend meets on its own is in the log.
func TestNoticesAreRecorded(t *testing.T) {
	dir := t.TempDir()
	cfg, err := policy.Parse("config.yaml", fmt.Appendf(nil, nodeConfig, dir, dir+"/a.sock", dir+"/b.sock"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := store.Open(filepath.Join(dir, "events.db"), store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	b := &talker{}
	set, err := backends.NewSet(backends.Probing{Interval: cfg.Health.ProbeInterval, DownAfter: cfg.Health.DownAfter, ListTimeout: cfg.Health.ListTimeout}, b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Config: cfg, Backends: set, Log: log, Version: "test", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}); err != nil {
		t.Fatal(err)
	}
	b.tell(backends.Notice{Name: backends.NoticeLogGap, ContainerID: "c1", Message: "lost \xff", Count: 2})
	eventually(t, "the notice is in the log", func() bool {
		var got *eventpb.Event
		if err := log.Records(0, func(r store.Record) error {
			e, err := r.Event()
			if e.GetNoticed() != nil {
				got = e
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if got == nil {
			return false
		}
		want := &eventpb.Noticed{Name: "log.gap", ContainerId: "c1", Message: valid("lost \xff"), Count: 2}
		if got.GetBackend() != "a" || !proto.Equal(got.GetNoticed(), want) {
			t.Errorf("recorded %v", got)
		}
		return true
	})
}
