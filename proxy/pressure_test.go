package proxy

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store"
)

// TestOnlyCreatesNeedRoom: what is to be stopped and removed later is not
// begun when the log is short of room; all else is.
func TestOnlyCreatesNeedRoom(t *testing.T) {
	want := map[string]bool{"RunPodSandbox": true, "RestorePod": true, "CreateContainer": true}
	for _, m := range methods {
		if creates(m) != want[m.name] {
			t.Errorf("%s: %v", m.name, creates(m))
		}
	}
}

// TestAFullLogRefusesCreates in words that say what to do, and without effect.
func TestAFullLogRefusesCreates(t *testing.T) {
	dir := t.TempDir()
	cfg, err := policy.Parse("config.yaml", fmt.Appendf(nil, nodeConfig, dir, dir+"/a.sock", dir+"/b.sock"))
	if err != nil {
		t.Fatal(err)
	}
	// An empty file is beyond three quarters of this already.
	log, err := store.Open(filepath.Join(dir, "events.db"), store.Options{NoSync: true, MaxSize: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if log.Pressure() == nil {
		t.Fatal("the log has room")
	}
	b := &talker{}
	set, err := backends.NewSet(backends.Probing{}, b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Config: cfg, Backends: set, Log: log, Version: "test", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.lanes["a"].clear()
	_, err = s.perform(t.Context(), &call{method: methods[runtimeapi.RuntimeService_RunPodSandbox_FullMethodName], target: set.Get("a")})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error %v", err)
	}
}
