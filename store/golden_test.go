package store

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/crimux/crimux/store/eventpb"
)

var update = flag.Bool("update", false, "write the golden file of the current version; never for a version that was released")

// goldenVersions are the versions of the log that were ever written. The first
// has events only, the second stubs, a base and snapshots as well.
var goldenVersions = []string{"v1", "v2"}

func golden(version string) (log, state string) {
	return "testdata/" + version + ".db", "testdata/" + version + ".state"
}

// TestGolden folds a log of each version to the state that it was folded to
// then.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	for _, version := range goldenVersions {
		t.Run(version, func(t *testing.T) { foldGolden(t, version) })
	}
}

func foldGolden(t *testing.T, version string) {
	log, state := golden(version)
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, path, Options{NoSync: true})
	l.View(func(s *State) {
		if got := stateBytes(t, s); !bytes.Equal(got, want) {
			t.Errorf("the golden log opens with another state:\n%s\nwant\n%s", dump(s), dump(rebuildState(t, want)))
		}
	})
	if got := stateBytes(t, read(t, l).state); !bytes.Equal(got, want) {
		t.Error("the golden log folds to another state")
	}
	rep, err := Verify(l)
	if err != nil || !rep.Sound() || (rep.Compacted > 0) != (version != "v1") || (rep.Snapshots > 0) != (version != "v1") {
		t.Errorf("%+v, %v", rep, err)
	}
	// It can be gone on with.
	last := l.Last()
	if got := mustAppend(t, l, started("b3")); got != last+1 {
		t.Errorf("the next event is %d, want %d", got, last+1)
	}
}

// goldenEvents holds each kind of event and each method.
func goldenEvents() []*eventpb.Event {
	return append([]*eventpb.Event{started("b1"), ev("", "", &eventpb.Policy{DefaultBackend: "docker", Epoch: 1, Source: "config"})},
		append(twoBackends(),
			ev("", "docker", &eventpb.Health{Up: true}), ev("", "containerd", &eventpb.Health{Error: "no such socket"}),
			ev("p2", "docker", &eventpb.Step{Name: "sandbox.created", Id: "sb3", Data: []byte("undo")}),
			ev("", "docker", &eventpb.Called{Method: "Exec", ContainerId: "c"}), ev("", "docker", &eventpb.Probed{ContainerId: "c", Count: 9}),
			sees([]*eventpb.Sandbox{{Id: "old", State: ready, Pod: pod("w"), CreatedAt: 7}},
				&eventpb.Container{Id: "oldc", SandboxId: "old", State: exited, ExitCode: 137, Reason: "OOMKilled", FinishedAt: 9}),
			ev("", "", &eventpb.Stopped{Reason: "signal"}), started("b2"),
			ev("p2", "docker", &eventpb.Outcome{Code: 10, Recovered: true, Sandbox: &eventpb.Sandbox{Id: "sb3", State: notReady}}),
			createContainer("q1", "sb2", "db"), done("q1", "d"), on("q2", methodStartContainer, "sb2", "d"), done("q2", ""),
			on("q3", methodRemoveContainer, "sb", "c"), done("q3", ""), on("q4", methodRemovePodSandbox, "sb", ""), done("q4", ""),
			on("q5", methodStopPodSandbox, "sb2", ""),
		)...)
}

// writeGolden writes the log of the newest version: pods that came and went and
// are compacted, one that lives, and each kind of event.
func writeGolden(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	now := time.Unix(0, 0).Add(12 * time.Hour)
	l, err := Open(path, Options{Tick: time.Hour, Retention: 6 * time.Hour, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range aDay(12) {
		mustAppend(t, l, e)
	}
	compactNow(t, l)
	for _, e := range append(goldenEvents(),
		ev("", "docker", &eventpb.Noticed{Name: "log.gap", ContainerId: "d", Message: "lost", Count: 2}),
		ev("", "docker", &eventpb.Forgotten{SandboxIds: []string{"old"}}),
		ev("", "", &eventpb.Salvaged{Cause: "a test", Kept: 3, Lost: 5, File: "events.db.damaged"}),
	) {
		mustAppend(t, l, e)
	}
	var want []byte
	l.View(func(s *State) { want = stateBytes(t, s) })
	mustClose(t, l)
	log, state := golden(goldenVersions[len(goldenVersions)-1])
	data, err := os.ReadFile(path)
	if err = errors.Join(err, os.WriteFile(log, data, 0o644), os.WriteFile(state, want, 0o644)); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func openState(path string) (*State, error) {
	r, err := OpenReadOnly(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.State()
}

// appendUnknown writes an event of a kind that is not known here, as a newer
// release would.
func appendUnknown(t *testing.T, path string, minReader uint32) {
	t.Helper()
	inBolt(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketEvents)
		k, v := b.Cursor().Last()
		seq, err := keySeq(k)
		if err != nil {
			return err
		}
		e := &eventpb.Event{MinReader: minReader}
		payload := protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), uint64(minReader))
		payload = protowire.AppendBytes(protowire.AppendTag(payload, 99, protowire.BytesType), []byte("from the future"))
		r := newRecord(seq+1, Record{Seq: seq, Value: v}.hash(), seal(e, payload, seq+1, 5))
		return b.Put(seqKey(r.Seq), r.Value)
	})(t, path)
}

// An older release skips what it does not know, unless it is told not to.
func TestUnknownKind(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	writeSample(t, path, 3)
	before, err := openState(path)
	if err != nil {
		t.Fatal(err)
	}
	appendUnknown(t, path, Schema)
	after, err := openState(path)
	if err != nil || after.Seq() != before.Seq()+1 || len(after.operations) != len(before.operations) {
		t.Errorf("an event of an unknown kind is not skipped: %v", err)
	}
	appendUnknown(t, path, Schema+1)
	if _, err := openState(path); !errors.Is(err, ErrNewer) {
		t.Errorf("an event that must not be skipped: %v", err)
	}
}
