package docker

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/backends/docker/crilog"
)

// TestGapsAreCounted: the first is told of at once, and a flood of them every
// now and then, with their number.
func TestGapsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogGaps(slog.New(slog.DiscardHandler))
		var all []backends.Notice
		l.tell = func(n backends.Notice) { all = append(all, n) } // under the lock
		so := func() []backends.Notice {
			l.mu.Lock()
			defer l.mu.Unlock()
			return slices.Clone(all)
		}
		at := time.Unix(1_700_000_000, 0)
		for i := range 5 {
			l.note("c1", crilog.Gap{After: at.Add(time.Duration(i) * time.Second), Before: at.Add(time.Duration(i)*time.Second + 1)})
		}
		told := so()
		if len(told) != 1 || told[0].Count != 1 || told[0].Name != backends.NoticeLogGap || told[0].ContainerID != "c1" {
			t.Errorf("at first %+v", told)
		}
		time.Sleep(gapEvery + time.Second)
		told = so()
		if len(told) != 2 || told[1].Count != 4 || !strings.Contains(told[1].Message, "22:13:21Z and 2023-11-14T22:13:24.000000001Z") {
			t.Errorf("then %+v", told)
		}
		time.Sleep(gapEvery + time.Second)
		if told = so(); len(told) != 2 {
			t.Errorf("of nothing %+v", told)
		}
		l.note("c1", crilog.Gap{})
		told = so()
		if len(told) != 3 || !strings.Contains(told[2].Message, "between the start and") {
			t.Errorf("again %+v", told)
		}
		time.Sleep(2 * gapEvery)
	})
}
