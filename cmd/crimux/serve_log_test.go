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
	"github.com/crimux/crimux/store"
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

// A disk that spoils the log time and again is not filled with what it spoiled,
// and what is removed is said.
func TestServeWithDamageAgainAndAgain(t *testing.T) {
	n := newNode(t)
	var said bytes.Buffer
	cfg := &policy.Config{StateDir: filepath.Dir(n.events), Log: policy.EventLog{MaxSize: "16m", Retention: time.Hour}}
	for range store.DamagedKept + 2 {
		if err := os.Truncate(n.events, 8192); err != nil {
			t.Fatal(err)
		}
		l, err := openEvents(cfg, slog.New(slog.NewTextHandler(&said, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if kept, _ := filepath.Glob(n.events + ".damaged-*"); len(kept) != store.DamagedKept {
		t.Errorf("kept are %v", kept)
	}
	if n := strings.Count(said.String(), `msg="an old damaged event log was removed`); n != 2 {
		t.Errorf("%d removals are told:\n%s", n, said.String())
	}
}
