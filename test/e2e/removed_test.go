package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// TestRemovedByOthers: a pod that somebody removes on the runtime itself is
// told of as deleted, is in no list any more, and its timeline says how that
// was found out, whether or not crimux was running at the time. That nothing
// else of it is left is checked at the end.
func TestRemovedByOthers(t *testing.T) {
	onLayouts(t, func(t *testing.T, l *lab.Lab, _ bool) {
		o := newOutage(t, l)
		o.removedBeforeItsEyes()
		o.d, o.c = o.pod("behind-d", "docker"), o.pod("behind-c", "containerd")
		o.removedBehindItsBack()
	})
}

func (o *outage) removedBeforeItsEyes() {
	o.t.Helper()
	for _, p := range []*node.Pod{o.d, o.c} {
		o.remove(p)
		began := time.Now()
		o.vanished(p)
		o.t.Logf("%s is gone from the lists %s after it was removed", p.Config.Metadata.Name, time.Since(began).Round(10*time.Millisecond))
		for _, id := range []string{p.Container, p.Sandbox} {
			// Of which pod containerd 1.7 does not know any more by then.
			gone := "DELETED " + id + " of "
			o.toldOf(gone, func(e string) bool { return strings.HasPrefix(e, gone) })
		}
		o.tellsOfRemoval(p, "seen on event", "seen on poll")
	}
}

func (o *outage) removedBehindItsBack() {
	o.t.Helper()
	o.must(o.n.Kill())
	o.remove(o.d)
	o.remove(o.c)
	o.must(o.n.Start(o.t.Context()))
	began := time.Now()
	for _, p := range []*node.Pod{o.d, o.c} {
		o.vanished(p)
		o.tellsOfRemoval(p, "seen on start", "seen on start")
	}
	o.t.Logf("both are gone %s after the daemon was back", time.Since(began).Round(10*time.Millisecond))
}

// remove takes a pod away as who does not know of crimux would.
func (o *outage) remove(p *node.Pod) {
	o.t.Helper()
	ctx := o.t.Context()
	if p == o.d {
		for _, id := range []string{p.Container, p.Sandbox} {
			o.must(o.l.Docker().ContainerRemove(ctx, id, container.RemoveOptions{Force: true}))
		}
		return
	}
	_, err := o.l.CRI().StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.Sandbox})
	o.must(err)
	_, err = o.l.CRI().RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.Sandbox})
	o.must(err)
}

// vanished waits until a pod is in no list any more.
func (o *outage) vanished(p *node.Pod) {
	o.t.Helper()
	eventually(o.t, p.Config.Metadata.Name+" is gone", func() error {
		got := o.lists()
		if got[p.Sandbox] != "" || got[p.Container] != "" {
			return &notYet{got}
		}
		return nil
	})
}

// tellsOfRemoval waits until a pod's timeline has its end, in one of two
// ways.
func (o *outage) tellsOfRemoval(p *node.Pod, either, or string) {
	o.t.Helper()
	eventually(o.t, p.Config.Metadata.Name+"'s timeline tells of its removal", func() error {
		out, err := o.n.Run(o.t.Context(), "timeline", p.Config.Metadata.Name)
		for _, gone := range []string{"container main is gone", "sandbox " + p.Sandbox[:12] + " is gone"} {
			if !strings.Contains(out, gone+", "+either) && !strings.Contains(out, gone+", "+or) {
				return errors.Join(err, &notYet{out})
			}
		}
		return err
	})
}
