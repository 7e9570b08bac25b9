package main

import (
	"testing"
	"time"

	"github.com/crimux/crimux/store/eventpb"
)

func TestParsePoint(t *testing.T) {
	now := time.Date(2026, 5, 2, 10, 30, 0, 0, time.FixedZone("somewhere", 2*60*60)) // 08:30 UTC
	for text, want := range map[string]string{
		"2026-05-01T12:00:00Z":      "2026-05-01T12:00:00Z",
		"2026-05-01T12:00:00.5Z":    "2026-05-01T12:00:00.5Z",
		"2026-05-01T12:00:00+02:00": "2026-05-01T10:00:00Z",
		"2026-05-01":                "2026-05-01T00:00:00Z",
		"2026-05-01 14:30":          "2026-05-01T14:30:00Z",
		"2026-05-01T14:30":          "2026-05-01T14:30:00Z",
		"2026-05-01 14:30:05":       "2026-05-01T14:30:05Z",
		"today":                     "2026-05-02T00:00:00Z",
		"yesterday":                 "2026-05-01T00:00:00Z",
		"yesterday 14:00":           "2026-05-01T14:00:00Z",
		"07:15":                     "2026-05-02T07:15:00Z",
		"07:15:01":                  "2026-05-02T07:15:01Z",
		"90s":                       "2026-05-02T08:28:30Z",
		"2h":                        "2026-05-02T06:30:00Z",
		"3d":                        "2026-04-29T08:30:00Z",
		"0s":                        "2026-05-02T08:30:00Z",
	} {
		p, err := parsePoint(text, now)
		if got := p.time.UTC().Format(time.RFC3339Nano); err != nil || p.seq != 0 || got != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	if p, err := parsePoint("17", now); err != nil || p != (point{seq: 17}) {
		t.Errorf("17 is %+v, %v", p, err)
	}
	if p, err := parsePoint("", now); err != nil || p != (point{}) {
		t.Errorf("nothing is %+v, %v", p, err)
	}
	for _, text := range []string{"0", "-1", "tomorrow", "2026-13-01", "2026-05-01 25:00", "yesterday 14", "14:30 today", "-5m", "5", "x 14:00", "99999999999d", "1.5d"} {
		if p, err := parsePoint(text, now); err == nil && p.seq != 5 {
			t.Errorf("%q is taken for %+v", text, p)
		}
	}
}

// TestClockSetBack checks that what was passed stays passed: until ends at the
// first moment, and since goes on from it.
func TestClockSetBack(t *testing.T) {
	at := func(seconds int64) *eventpb.Event {
		return &eventpb.Event{Time: seconds * 1e9, Kind: &eventpb.Event_Stopped{Stopped: &eventpb.Stopped{}}}
	}
	since := eventFilter{since: point{time: time.Unix(10, 0)}}
	for i, want := range []bool{false, true, true} {
		got, err := since.wants(nil, []*eventpb.Event{at(10), at(11), at(5)}[i])
		if err != nil || got != want {
			t.Errorf("event %d: %t, %v", i, got, err)
		}
	}
	until := eventFilter{until: point{time: time.Unix(10, 0)}, begun: true}
	if got, err := until.wants(nil, at(10)); err != nil || !got {
		t.Errorf("the last one: %t, %v", got, err)
	}
	if _, err := until.wants(nil, at(11)); err != errPassed || !until.over {
		t.Errorf("the one after: %v", err)
	}
}
