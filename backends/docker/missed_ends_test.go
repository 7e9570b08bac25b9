package docker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/crimux/crimux/backends"
)

// TestMissedEnds: a container that the Engine shows as running without a
// process of it is pointed at, once it is clear that no event comes; one that
// has its process never.
func TestMissedEnds(t *testing.T) {
	b := newBench(t)
	n := fakeNode{t: t, dir: t.TempDir()}
	b.node.proc = n.proc()
	var ids []string
	for i := range 4 {
		p := podConfig()
		p.Metadata.Uid = fmt.Sprint("u-", i)
		id, err := b.runPod(backends.NoJournal, p)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		b.engine.containers[id].State.Pid = 40 + i
	}
	alive, reused, gone, told := ids[0], ids[1], ids[2], ids[3]
	n.write("proc/40/cgroup", "0::/docker/"+alive+"\n")
	n.write("proc/41/cgroup", "0::/docker/"+gone+"\n")
	b.resync(t)

	now := time.Now()
	due, missed := b.missedEnds(nil, now)
	if len(missed) != 0 {
		t.Errorf("at once: %q", missed)
	}
	if err := b.engine.end("end", told); err != nil {
		t.Fatal(err)
	}
	b.resync(t)
	due, missed = b.missedEnds(due, now.Add(endsGrace))
	slices.Sort(missed)
	if want := []string{reused, gone}; !slices.Equal(missed, want) {
		t.Errorf("after the grace: %q, want %q", missed, want)
	}
	if _, missed = b.missedEnds(due, now.Add(endsGrace+endsEvery)); len(missed) != 0 {
		t.Errorf("while the engine looks: %q", missed)
	}
	if _, missed = b.missedEnds(due, now.Add(endsGrace+endsAgain)); len(missed) != 2 {
		t.Errorf("as it has found nothing: %q", missed)
	}

	b.trace.effects()
	for _, id := range ids {
		if err := b.pointAtEnd(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if got, want := b.trace.effects(), []string{"point at " + reused, "point at " + gone}; !slices.Equal(got, want) {
		t.Errorf("did %q, want %q", got, want)
	}
	b.fail("point at "+gone, errInjected)
	if err := b.pointAtEnd(t.Context(), gone); err == nil {
		t.Error("that the engine refuses to look must be told")
	}
}
