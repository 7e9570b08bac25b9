package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crimux/crimux/store"
)

func TestUsage(t *testing.T) {
	n := newNode(t)
	for _, tt := range []struct{ line, want string }{
		{"events --nope", "unknown flag: --nope"},
		{"events extra", `crimux events: unknown argument or command "extra"`},
		{"events --tail -2", "--tail: -2 is below 0"},
		{"events --from x", "invalid argument"},
		{"timeline", "crimux timeline: say which POD"},
		{"timeline a b", "crimux timeline: takes one POD, not 2"},
		{"state --at tomorrow", `--at: "tomorrow" is no sequence number`},
		{"state --at 0", "--at: 0 is before the first event"},
		{"state --at -5m", `--at: "-5m" is no sequence number`},
		{"verify file", "unknown argument"},
		{"config check a b", "crimux config check: takes one FILE, not 2"},
		{"config chekc", `unknown argument or command "chekc"`},
	} {
		r := n.crimux(strings.Fields(tt.line)...)
		if r.code != exitUsage || r.out != "" {
			t.Errorf("crimux %s: exit %d, want %d; stdout %q", tt.line, r.code, exitUsage, r.out)
		}
		contains(t, r.errOut, tt.want, "Run 'crimux --help' for usage.")
	}
}

func TestFailures(t *testing.T) {
	n := newNode(t)
	for _, tt := range []struct{ line, want string }{
		{"timeline nobody", `"nobody": no such pod in the log: 'crimux state' lists`},
		{"timeline 6d2f", `"6d2f" is the beginning of ids of 2 pods`},
		{"state --at 99", "event 99 is not in the log, which ends at event 51"},
		{"state --at 2020-01-01T00:00:00Z", "the log begins after that, at 2026-05-01T12:00:00Z"},
		{"events --follow", "so that nothing is being recorded: leave out --follow"},
	} {
		r := n.crimux(strings.Fields(tt.line)...)
		if r.code != exitFailed || r.out != "" {
			t.Errorf("crimux %s: exit %d, want %d; stdout %q", tt.line, r.code, exitFailed, r.out)
		}
		contains(t, r.errOut, tt.want)
	}
}

// TestNoLog checks what is said where there is nothing to read. verify has an
// exit code of its own for that.
func TestNoLog(t *testing.T) {
	n := newBareNode(t)
	for line, code := range map[string]int{"events": 1, "state": 1, "timeline web": 1, "verify": exitUnreadable} {
		r := n.crimux(strings.Fields(line)...)
		if r.code != code || r.out != "" {
			t.Errorf("crimux %s: exit %d, want %d; stdout %q", line, r.code, code, r.out)
		}
		contains(t, r.errOut, n.events+": there is no event log", "no daemon answers on "+n.sock)
	}
	if r := crimux(t, "verify", "--config", n.config+".not"); r.code != exitUnreadable {
		t.Errorf("without a configuration: exit %d, want %d: %s", r.code, exitUnreadable, r.errOut)
	}
}

func TestEmptyLog(t *testing.T) {
	n := newBareNode(t)
	n.daemon()
	if r := n.crimux("events"); r.code != 0 || r.out != "" || r.errOut != "no events\n" {
		t.Errorf("events: %+v", r)
	}
	if r := n.crimux("events", "--json"); r.code != 0 || r.out+r.errOut != "" {
		t.Errorf("events --json: %+v", r)
	}
	if r := n.crimux("state"); r.code != 0 || r.out != "no pods\n" {
		t.Errorf("state: %+v", r)
	}
	if r := n.crimux("verify"); r.code != 0 || r.out != "sound: no events\n" {
		t.Errorf("verify: %+v", r)
	}
	if r := n.crimux("state", "--at", "5m"); r.code != exitFailed {
		t.Errorf("state --at: %+v", r)
	}
}

// TestInterrupted checks that ^C ends a command at once and without a word.
func TestInterrupted(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	src, err := openFile(ctx, filepath.Dir(n.events), "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	read := 0
	err = src.Records(0, func(store.Record) error {
		read++
		cancel()
		return nil
	})
	if read != 1 {
		t.Errorf("read %d records after ^C, want 1", read)
	}
	if err = ended(ctx, err); err != (exitError{exitInterrupted}) {
		t.Errorf("got %v, want exit %d", err, exitInterrupted)
	}
}

// TestDeadSocket checks that a socket that a killed daemon left behind is no
// daemon.
func TestDeadSocket(t *testing.T) {
	n := newNode(t)
	leaveSocket(t, n.sock)
	if r := n.crimux("verify"); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

// TestLockedWithoutAnswer checks what is said where the log is held by a
// process that cannot be asked.
func TestLockedWithoutAnswer(t *testing.T) {
	n := newNode(t)
	l, err := store.Open(n.events, store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := n.crimux("verify")
	if r.code != exitUnreadable {
		t.Errorf("exit %d, want %d", r.code, exitUnreadable)
	}
	contains(t, r.errOut, "in use", "no daemon answers on "+n.sock)
	n.configure("fd://admin")
	contains(t, n.crimux("events").errOut, "in use", "adminListen is fd://admin", "ListenStream")
}

// TestPassedOnSocket checks that the file is read where the configuration
// does not say where the daemon's socket is.
func TestPassedOnSocket(t *testing.T) {
	n := newNode(t)
	n.configure("fd://admin")
	if r := n.crimux("events", "--tail", "1", "--absolute"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	contains(t, n.crimux("events", "--follow").errOut, "adminListen is fd://admin")
}

func TestVerifyDamaged(t *testing.T) {
	n := newNode(t)
	n.flip("sandbox.created")
	r := n.crimux("verify")
	if r.code != exitDamaged || r.errOut != "" {
		t.Errorf("%+v", r)
	}
	contains(t, r.out, "damaged: ", "record 6: ", "before that: 5 events, 1 to 5, head ")
	r = n.crimux("verify", "--json")
	if r.code != exitDamaged {
		t.Errorf("%+v", r)
	}
	contains(t, r.out, `"sound":false`, `"bad":6`, `"count":5`)

	// What is sound is still shown, and the rest is no silent end.
	r = n.crimux("events")
	if r.code != exitFailed || strings.Count(r.out, "\n") != 6 {
		t.Errorf("events: %+v", r)
	}
	contains(t, r.errOut, "record 6: ", "'crimux verify' tells what of the log is sound")

	if err := os.Truncate(n.events, 8192); err != nil {
		t.Fatal(err)
	}
	r = n.crimux("verify")
	if r.code != exitDamaged || r.out != "" {
		t.Errorf("cut short: %+v", r)
	}
	contains(t, r.errOut, "crimux: "+filepath.Dir(n.events)+": events.db: ", "damaged")
}

func TestConfigCheck(t *testing.T) {
	n := newBareNode(t)
	const ok = ": ok: backends docker (docker), containerd (cri); handlers containerd, docker; default docker; migration none\n"
	if r := n.crimux("config", "check"); r.code != 0 || r.out != n.config+ok {
		t.Errorf("%+v", r)
	}
	if r := crimux(t, "config", "check", n.config); r.code != 0 || r.out != n.config+ok {
		t.Errorf("%+v", r)
	}
	n.configure("tcp://nowhere")
	r := n.crimux("config", "check")
	if r.code != exitFailed || r.out != "" || !strings.HasPrefix(r.errOut, n.config+":3: adminListen: ") {
		t.Errorf("%+v", r)
	}
	r = crimux(t, "config", "check", n.config+".not")
	if r.code != exitFailed || !strings.Contains(r.errOut, "no such file") {
		t.Errorf("%+v", r)
	}
}
