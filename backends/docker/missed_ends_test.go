package docker

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

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
	blind, w := &endWatch{server: b.server}, &endWatch{server: b.server}
	if got := w.missed(now); len(got) != 0 {
		t.Errorf("at once: %q", got)
	}
	if err := b.engine.end("end", told); err != nil {
		t.Fatal(err)
	}
	b.resync(t)
	got := w.missed(now.Add(endsGrace))
	slices.Sort(got)
	if want := []string{reused, gone}; !slices.Equal(got, want) {
		t.Errorf("after the grace: %q, want %q", got, want)
	}
	if got := w.missed(now.Add(endsGrace + endsEvery)); len(got) != 0 {
		t.Errorf("while the engine looks: %q", got)
	}
	if got := w.missed(now.Add(endsGrace + endsAgain)); len(got) != 2 {
		t.Errorf("as it has found nothing: %q", got)
	}
	if err := os.RemoveAll(n.proc().file("40", "")); err != nil {
		t.Fatal(err)
	}
	later := now.Add(endsGrace + endsAgain + endsEvery)
	w.missed(later)
	if got := w.missed(later.Add(endsGrace)); !slices.Equal(got, []string{alive}) {
		t.Errorf("after the end of one: %q", got)
	}
	n.write("proc/40/cgroup", "0::/docker/"+alive+"\n")

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

	// Where no process can be seen, none is known to have ended.
	b.node.proc = procFS(t.TempDir())
	blind.missed(now)
	if got := blind.missed(now.Add(endsGrace)); len(got) != 0 {
		t.Errorf("from another pid namespace: %q", got)
	}
}

// TestMadeUpSuccess: an end that the Engine was pointed at and that seems to
// have come after that is one that it knows nothing of.
func TestMadeUpSuccess(t *testing.T) {
	p := newPointedAt()
	at := time.Now()
	p.note("pointed", at)
	p.note("pointed", at.Add(time.Hour))
	for _, c := range []struct {
		id                string
		started, finished time.Duration
		code, want        int
	}{
		{"pointed", -time.Hour, time.Second, 0, exitUnknown},
		{"pointed", -time.Hour, time.Second, 137, 137},
		{"pointed", -time.Hour, -time.Second, 0, 0}, // its containerd did know
		{"pointed", time.Second, time.Minute, 0, 0}, // somebody has started it again
		{"other", -time.Hour, time.Second, 0, 0},
	} {
		st := &container.State{ExitCode: c.code}
		st.StartedAt, st.FinishedAt = at.Add(c.started).Format(time.RFC3339Nano), at.Add(c.finished).Format(time.RFC3339Nano)
		if p.correct(c.id, st); st.ExitCode != c.want || (st.Error != "") != (c.want != c.code) {
			t.Errorf("%+v: became %d, %q", c, st.ExitCode, st.Error)
		}
	}
	p.forget("pointed")
	st := &container.State{FinishedAt: at.Add(time.Second).Format(time.RFC3339Nano)}
	if p.correct("pointed", st); st.ExitCode != 0 {
		t.Error("it is not forgotten")
	}
}
