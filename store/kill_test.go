package store

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crimux/crimux/store/eventpb"
)

// appendForever appends from several goroutines and prints each sequence
// number when it is acknowledged, until it is killed.
func appendForever(args []string) error {
	l, err := Open(args[0], Options{})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; err == nil; i++ {
				op := fmt.Sprintf("%s-%d-%d", args[1], w, i)
				p := l.Append(run(op, "docker", op))
				q := l.Append(ev(op, "docker", &eventpb.Step{Name: "made"}), done(op, "sb-"+op))
				for _, p := range []*Pending{p, q} {
					seq, failed := p.Wait(context.Background())
					mu.Lock()
					if failed != nil {
						err = failed
					} else {
						fmt.Println(seq, op, "acknowledged")
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return err
}

// What was acknowledged before a kill -9 is there after it, and the log goes
// on from there, several times over.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	acked := map[uint64]string{}
	for round := range 5 {
		cmd, out := child(t, "append", path, strconv.Itoa(round))
		delay := time.Duration(30+rand.IntN(120)) * time.Millisecond
		lines := 0
		for out.Scan() {
			if lines++; lines == 20 { // or a busy machine would have it killed at the first
				time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
			}
			// The last line may be cut short by the kill.
			if f := strings.Fields(out.Text()); len(f) == 3 && f[2] == "acknowledged" {
				seq, err := strconv.ParseUint(f[0], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				acked[seq] = f[1]
			}
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		found := checkAcked(t, path, acked)
		t.Logf("round %d: killed after %v; %d acknowledged so far, %d found", round, delay, len(acked), found)
	}
	if len(acked) < 50 {
		t.Errorf("only %d events were acknowledged: this shows nothing", len(acked))
	}
}

func checkAcked(t *testing.T, path string, acked map[uint64]string) uint64 {
	t.Helper()
	l := open(t, path, Options{})
	defer l.Close()
	left := maps.Clone(acked)
	err := l.Records(1, func(r Record) error {
		e, err := r.Event()
		if err != nil {
			return err
		}
		if left[r.Seq] == e.GetOp() {
			delete(left, r.Seq)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for seq, op := range left {
		t.Errorf("event %d of %s was acknowledged and is lost", seq, op)
	}
	return l.Last()
}
