package docker

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker/crilog"
)

// keptLogs are logs that know which containers they follow.
type keptLogs struct {
	fakeLogs
	mu       sync.Mutex
	followed map[string]bool
	// following and finishing, if set, are called in the middle of it.
	following, finishing func()
	failing              error // of Finish
}

func (l *keptLogs) Follow(f crilog.File) error {
	if l.following != nil {
		l.following()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followed[f.ContainerID] = true
	return l.fakeLogs.Follow(f)
}

func (l *keptLogs) Finish(ctx context.Context, id string) error {
	if l.finishing != nil {
		l.finishing()
	}
	l.Forget(id)
	return errors.Join(l.fakeLogs.Finish(ctx, id), l.failing)
}

func (l *keptLogs) Forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.followed, id)
}

func (l *keptLogs) follows(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.followed[id]
}

// withLog is a bench with a created container whose log is copied.
func withLog(t *testing.T) (b *bench, l *keptLogs, id string) {
	t.Helper()
	b = newBench(t)
	l = &keptLogs{fakeLogs: fakeLogs{b.trace}, followed: map[string]bool{}}
	b.logs.copies = l
	_, r := b.withContainer(t)
	b.engine.containers[r.ContainerId].LogPath = filepath.Join(b.engine.dir, "engine.log")
	b.trace.effects()
	return b, l, r.ContainerId
}

func (b *bench) start(t *testing.T, id string) {
	t.Helper()
	if _, err := b.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) removeContainer(t *testing.T, id string) {
	t.Helper()
	if _, err := b.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
		t.Error(err)
	}
}

// TestRemovedWhileFollowed: the log of a container that is removed while it is
// being taken on is not copied for ever, nor is anything else kept of it.
func TestRemovedWhileFollowed(t *testing.T) {
	b, l, id := withLog(t)
	l.following = func() {
		l.following = nil
		b.removeContainer(t, id)
	}
	b.start(t, id)
	if len(l.followed) != 0 || len(b.logs.state) != 0 {
		t.Errorf("still followed: %v, kept: %v", l.followed, b.logs.state)
	}
}

// TestLooksAtARemovedLog: whoever still has a look at a container of before its
// removal takes nothing on.
func TestLooksAtARemovedLog(t *testing.T) {
	b, l, id := withLog(t)
	b.start(t, id)
	f := b.cache.peek(id)
	b.removeContainer(t, id)
	b.trace.effects()
	if err := b.logs.follow(f); err != nil {
		t.Error(err)
	}
	if err := b.logs.ended(t.Context(), id); err != nil {
		t.Error(err)
	}
	if got := b.trace.effects(); len(got) != 0 || len(l.followed) != 0 || len(b.logs.state) != 0 {
		t.Errorf("did %q, followed: %v, kept: %v", got, l.followed, b.logs.state)
	}
}

// TestRemovedWhileFinished: its end is seen, and the last of its log copied,
// while it is removed.
func TestRemovedWhileFinished(t *testing.T) {
	b, l, id := withLog(t)
	b.start(t, id)
	l.finishing = func() { b.forget(id) }
	if err := b.logs.ended(t.Context(), id); err != nil {
		t.Error(err)
	}
	if len(b.logs.state) != 0 {
		t.Errorf("kept: %v", b.logs.state)
	}
}

// TestRemovalKeepsTheLog: what a container wrote before its removal is copied
// before the Engine's own log goes. A log that cannot be is in nobody's way.
func TestRemovalKeepsTheLog(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(b *bench, l *keptLogs, id string)
		want   []string
	}{
		{"running", func(*bench, *keptLogs, string) {}, []string{"stop", "finish", "remove"}},
		{"ended", func(b *bench, _ *keptLogs, id string) {
			if err := b.stop(t.Context(), id, 0); err != nil {
				t.Error(err)
			}
		}, []string{"finish", "remove"}},
		{"complete", func(b *bench, _ *keptLogs, id string) {
			if err := errors.Join(b.stop(t.Context(), id, 0), b.logs.ended(t.Context(), id)); err != nil {
				t.Error(err)
			}
		}, []string{"remove"}},
		{"on a full disk", func(_ *bench, l *keptLogs, _ string) { l.failing = errInjected }, []string{"stop", "finish", "remove"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, l, id := withLog(t)
			b.start(t, id)
			c.before(b, l, id)
			b.trace.effects()
			b.removeContainer(t, id)
			if got := b.trace.effects(); !slices.Equal(got, c.want) {
				t.Errorf("did %q, want %q", got, c.want)
			}
		})
	}
}
