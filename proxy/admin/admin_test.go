package admin

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// served is a log with n events behind an admin socket.
func served(t *testing.T, n int) (*store.Log, *Client) {
	t.Helper()
	log, err := store.Open(filepath.Join(t.TempDir(), "events.db"), store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		add(t, log)
	}
	path := filepath.Join(t.TempDir(), "admin.sock")
	l := listenAt(t, path)
	s := NewServer(log, forgets{log})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); err != nil {
			t.Error(err)
		}
		if err := log.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	})
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return log, c
}

func listenAt(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// forgets forgets what is not on the backend "up".
type forgets struct{ log *store.Log }

func (f forgets) Forget(ctx context.Context, backend string, what *eventpb.Forgotten, dry bool) error {
	if backend == "up" {
		return status.Error(codes.FailedPrecondition, "it is available")
	}
	if dry {
		return nil
	}
	_, err := f.log.Append(&eventpb.Event{Backend: backend, Kind: &eventpb.Event_Forgotten{Forgotten: what}}).Wait(ctx)
	return err
}

func TestForget(t *testing.T) {
	log, c := served(t, 1)
	what := &eventpb.Forgotten{Whole: true, SandboxIds: []string{"a", "b"}}
	if err := c.Forget(t.Context(), "up", what, false); err == nil || err.Error() != "it is available" {
		t.Errorf("a refusal comes as %v", err)
	}
	if err := c.Forget(t.Context(), "gone", what, true); err != nil || log.Last() != 1 {
		t.Errorf("only asking: %v, and the log ends at %d", err, log.Last())
	}
	if err := c.Forget(t.Context(), "gone", what, false); err != nil || log.Last() != 2 {
		t.Errorf("forgetting: %v, and the log ends at %d", err, log.Last())
	}
	for _, bad := range []string{"", "{", `{"backend": "x"}`, `{"forgotten": {}}`} {
		resp, err := c.http.Post("http://crimux"+forgetPath, "application/json", strings.NewReader(bad))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("%q gets %s", bad, resp.Status)
		}
	}
}

func add(t *testing.T, log *store.Log) {
	t.Helper()
	e := &eventpb.Event{Kind: &eventpb.Event_Stopped{Stopped: &eventpb.Stopped{Reason: "test"}}}
	if _, err := log.Append(e).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsVerifyAsFromTheFile(t *testing.T) {
	log, c := served(t, 2500)
	for name, src := range map[string]store.Source{"file": log, "socket": c} {
		r, err := store.Verify(src)
		if err != nil || !r.Sound() {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	var seqs []uint64
	err := c.Records(2499, func(r store.Record) error {
		seqs = append(seqs, r.Seq)
		return nil
	})
	if err != nil || len(seqs) != 2 || seqs[0] != 2499 {
		t.Errorf("from 2499: %v, %v", seqs, err)
	}
	stop := errors.New("enough")
	if err := c.Records(1, func(store.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the reader's own error comes back as %v", err)
	}
}

// TestState looks at the state of a log with an operation under way: what the
// daemon answers is what the log's fold is, less the data of steps.
func TestState(t *testing.T) {
	log, c := served(t, 3)
	open := []*eventpb.Event{
		{Op: "o", Backend: "docker", Kind: &eventpb.Event_Intent{Intent: &eventpb.Intent{Method: "RunPodSandbox"}}},
		{Op: "o", Backend: "docker", Kind: &eventpb.Event_Step{Step: &eventpb.Step{Name: "made", Id: "x", Data: []byte("CANARY")}}},
	}
	if _, err := log.Append(open...).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := c.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want *eventpb.State
	log.View(func(s *store.State) { want = proto.CloneOf(s.Proto()) })
	want.GetOperations()[0].GetSteps()[0].Data = nil
	if got.GetSeq() != 5 || !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFollow(t *testing.T) {
	log, c := served(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	var last uint64
	err := c.Follow(ctx, 2, func(r store.Record) error {
		last = r.Seq
		switch r.Seq {
		case 3, 4:
			add(t, log)
		case 5:
			cancel()
		}
		return nil
	})
	if err != nil || last != 5 {
		t.Errorf("followed to %d, %v", last, err)
	}
}

func TestFollowEndsWithTheDaemon(t *testing.T) {
	log, c := served(t, 1)
	err := c.Follow(t.Context(), 1, func(store.Record) error { return log.Close() })
	if err == nil {
		t.Error("a daemon that ended looks like the end of the log")
	}
}

func TestNobodyThere(t *testing.T) {
	if _, err := Dial(t.Context(), filepath.Join(t.TempDir(), "none.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestABadRequestIsTold(t *testing.T) {
	_, c := served(t, 1)
	resp, err := c.http.Get("http://crimux" + recordsPath + "?from=x")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("got %s", resp.Status)
	}
}
