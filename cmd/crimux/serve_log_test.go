package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crimux/crimux/policy"
)

// A daemon comes up with a log that is damaged or gone, says so, and the
// commands call it neither sound nor unreadable.
func TestServeWithDamagedLog(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"cut short": func(path string) error { return os.Truncate(path, 8192) },
		"empty":     func(path string) error { return os.Truncate(path, 0) },
		"gone":      os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			if err := spoil(n.events); err != nil {
				t.Fatal(err)
			}
			r := n.crimux("verify")
			if r.code != exitDamaged || !strings.Contains(r.errOut, "damaged") {
				t.Errorf("verify before: %+v", r)
			}
			var said bytes.Buffer
			cfg := &policy.Config{StateDir: filepath.Dir(n.events), Log: policy.EventLog{MaxSize: "16m", Retention: time.Hour}}
			l, err := openEvents(cfg, slog.New(slog.NewTextHandler(&said, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			contains(t, said.String(), "the event log was damaged", "cause=")
			if kept, _ := filepath.Glob(n.events + ".damaged-*"); len(kept) != 1 && name != "gone" {
				t.Errorf("the damaged file: %v", kept)
			}
			r = n.crimux("verify")
			if r.code != exitDamaged {
				t.Errorf("verify after: %+v", r)
			}
			contains(t, r.out, "damaged: 1 events", "events were lost")
		})
	}
}
