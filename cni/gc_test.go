package cni

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// valid returns the attachments that a GC call names, in both spellings that
// the specification has had.
func valid(t *testing.T, c call) []string {
	t.Helper()
	var out []string
	for _, a := range c.Stdin["cni.dev/valid-attachments"].([]any) {
		one := a.(map[string]any)
		out = append(out, one["containerID"].(string)+" "+one["ifname"].(string))
	}
	if !reflect.DeepEqual(c.Stdin["cni.dev/attachments"], c.Stdin["cni.dev/valid-attachments"]) {
		t.Errorf("%v", c.Stdin)
	}
	slices.Sort(out)
	return out
}

// TestGC: what is nobody's gets the DEL of its ADD, and the plugins are told
// what stays.
func TestGC(t *testing.T) {
	before := asked(t)
	netns := newNetns(t)
	kept, lost, owed, second := id(), id(), id(), id()
	before.attach(t, Attachment{ID: kept, Netns: netns})
	before.attach(t, Attachment{ID: second, Netns: netns, IfName: "net1"})
	before.write(t, "10.conflist", strings.Replace(newList, `"main"`, `"main","of":"lost"`, 1))
	before.attach(t, Attachment{ID: lost, Netns: netns, PodName: "lost"})
	before.write(t, "10.conflist", newList)
	before.write(t, "10.conflist", strings.Replace(newList, `"main"`, `"other"`, 1))
	before.logger(t, "other")
	before.attach(t, Attachment{ID: owed, Netns: netns})
	before.write(t, "10.conflist", newList)

	n := before.again(t) // nothing is live in a new process
	n.says(t, "other", "DEL", script{Exit: 1})
	young := id()
	n.attach(t, Attachment{ID: young, Netns: netns})
	must(t, os.Remove(filepath.Join(n.bin, "calls")))
	removed, err := n.GC(t.Context(), []string{kept, second, "elsewhere"})
	if err == nil || !strings.Contains(err.Error(), owed) {
		t.Errorf("the DEL that failed: %v", err)
	}
	if !reflect.DeepEqual(removed, []string{lost}) {
		t.Errorf("removed %v, want %s", removed, lost)
	}
	calls := n.calls(t)
	var dels, gcs []call
	for _, c := range calls {
		switch {
		case c.Command == "DEL" && c.ID == lost:
			dels = append(dels, c)
		case c.Command == "GC":
			gcs = append(gcs, c)
		case c.ID != owed:
			t.Errorf("call %+v", c)
		}
	}
	if got := order(dels); !reflect.DeepEqual(got, []string{"chained DEL", "main DEL"}) || dels[1].Stdin["of"] != "lost" || !strings.Contains(dels[1].Args, "K8S_POD_NAME=lost") {
		t.Errorf("DEL of what was lost: %+v", dels)
	}
	if got := order(gcs); !reflect.DeepEqual(got, []string{"main GC", "chained GC"}) {
		t.Fatalf("GC: %v", got)
	}
	want := []string{kept + " eth0", second + " eth0", second + " net1", owed + " eth0", young + " eth0", "elsewhere eth0"}
	slices.Sort(want)
	for _, c := range gcs {
		if got := valid(t, c); !reflect.DeepEqual(got, want) {
			t.Errorf("%s was told that %v stay, want %v", c.Plugin, got, want)
		}
	}
}

// TestGCIsNotFor lists that are older, say no, or have no plugin that knows it.
func TestGCIsNotFor(t *testing.T) {
	for name, list := range map[string]string{
		"older":     strings.Replace(newList, "1.1.0", "1.0.0", 1),
		"disableGC": strings.Replace(newList, `"name"`, `"disableGC":true,"name"`, 1),
	} {
		n := asked(t)
		n.write(t, "10.conflist", list)
		n.attach(t, Attachment{ID: id(), Netns: newNetns(t)})
		must(t, os.Remove(filepath.Join(n.bin, "calls")))
		if removed, err := n.again(t).GC(t.Context(), nil); err != nil || len(removed) != 0 || len(n.calls(t)) != 0 || len(n.cached(t)) != 1 {
			t.Errorf("%s: removed %v, %v; calls %v", name, removed, err, order(n.calls(t)))
		}
	}
}

// TestGCAndAdd: an ADD that began before is among those that stay, one that
// comes meanwhile waits.
func TestGCAndAdd(t *testing.T) {
	n := asked(t)
	netns := newNetns(t)
	gate := filepath.Join(n.bin, "gate")
	n.says(t, "main", "GC", script{Until: gate})
	p, err := n.Plan(Attachment{ID: id(), Netns: netns})
	must(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := n.GC(context.Background(), nil)
		ended <- err
	}()
	eventually(t, "the gate to be shut", func() bool {
		n.attached.mu.Lock()
		defer n.attached.mu.Unlock()
		return n.attached.shut != nil
	})
	if removed, err := n.GC(t.Context(), nil); err != nil || removed != nil {
		t.Errorf("a second one: %v, %v", removed, err)
	}
	added := make(chan error, 1)
	go func() {
		_, err := n.Add(context.Background(), p)
		added <- err
	}()
	time.Sleep(100 * time.Millisecond) // the ADD comes, and waits
	must(t, os.WriteFile(gate, nil, 0o600))
	must(t, <-ended)
	must(t, <-added)
	if got, want := order(n.calls(t)), []string{"main GC", "chained GC", "main ADD", "chained ADD"}; !reflect.DeepEqual(got, want) {
		t.Errorf("calls %v, want %v", got, want)
	}
	must(t, os.Remove(filepath.Join(n.bin, "calls")))
	removed, err := n.GC(t.Context(), nil)
	if err != nil || len(removed) != 0 {
		t.Errorf("removed %v, %v", removed, err)
	}
	for _, c := range n.calls(t) {
		if got := valid(t, c); !reflect.DeepEqual(got, []string{p.ID() + " eth0"}) {
			t.Errorf("told that %v stay", got)
		}
	}
	must(t, n.Del(t.Context(), p, netns))
	if len(n.attached.live) != 0 {
		t.Errorf("still live: %v", n.attached.live)
	}
}

// TestAddGivesUpAtTheGate with its context, and owes nothing.
func TestAddGivesUpAtTheGate(t *testing.T) {
	n := asked(t)
	open := n.attached.close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	p, err := n.Plan(Attachment{ID: id(), Netns: newNetns(t)})
	must(t, err)
	if _, err := n.Add(ctx, p); err == nil || len(n.calls(t)) != 0 {
		t.Errorf("ADD: %v, calls %v", err, n.calls(t))
	}
	open()
	must(t, n.attached.enter(t.Context(), types.GCAttachment{ContainerID: "x"}))
}
