package policy

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
)

// node plays the part of a kubelet and of the state for many pods.
type node struct {
	t         *testing.T
	config    *Config
	epoch     uint64
	decisions map[string]Decision
	live      map[string]string
}

func (n *node) Epoch() uint64 { return n.epoch }

func (n *node) Decision(uid string) (Decision, bool) {
	d, ok := n.decisions[uid]
	return d, ok
}

func (n *node) Live(uid string) (string, bool) {
	backend, ok := n.live[uid]
	return backend, ok
}

// set decides a migration.
func (n *node) set(m Migration) {
	n.t.Helper()
	c, err := n.config.WithMigration(m)
	if err != nil {
		n.t.Fatal(err)
	}
	n.config = c
	n.epoch++
}

// start makes a sandbox for the pod, which may still have something running.
func (n *node) start(uid string) {
	n.t.Helper()
	r, err := Decide(Pod{UID: uid}, n, n.config)
	if err != nil {
		n.t.Fatal(err)
	}
	if runs, ok := n.live[uid]; ok && runs != r.Backend {
		n.t.Fatalf("uid %s runs on %s and is started on %s (%s)", uid, runs, r.Backend, r.Rule)
	}
	n.decisions[uid], n.live[uid] = r.Decision(), r.Backend
}

// count returns how many pods run on a backend.
func (n *node) count(backend string) int {
	count := 0
	for _, b := range n.live {
		if b == backend {
			count++
		}
	}
	return count
}

// A migration goes forward step by step, back and away again, while pods are
// restarted at random: each pod follows at its next restart and never before,
// and nothing runs in two places.
func TestMigrationStory(t *testing.T) {
	const pods = 500
	n := &node{t: t, config: pinnedConfig(), decisions: map[string]Decision{}, live: map[string]string{}}
	n.set(Migration{})
	uids := make([]string, pods)
	expected := map[int]int{}
	for i := range uids {
		uids[i] = "pod-" + strconv.Itoa(i)
		n.start(uids[i])
		for percent := Bucket(uids[i]) + 1; percent <= 100; percent++ {
			expected[percent]++
		}
	}
	source := rand.New(rand.NewPCG(7, 8))
	for _, percent := range []int{0, 1, 10, 10, 50, 100, 30, 0, 100} {
		n.set(Migration{To: "containerd", Percent: percent})
		before := n.count("containerd")
		for range pods { // sandboxes of pods of which something still runs
			n.start(uids[source.IntN(pods)])
		}
		if got := n.count("containerd"); got != before {
			t.Fatalf("%d%%: %d instead of %d moved while they ran", percent, got, before)
		}
		for _, i := range source.Perm(pods) {
			delete(n.live, uids[i])
			n.start(uids[i])
		}
		if got := n.count("containerd"); got != expected[percent] {
			t.Fatalf("%d%%: %d have moved, want %d", percent, got, expected[percent])
		}
	}
	n.set(Migration{})
	for _, uid := range uids {
		delete(n.live, uid)
		n.start(uid)
	}
	if got := n.count("docker"); got != pods {
		t.Errorf("%d of %d are back after the end of the migration", got, pods)
	}
}

// One configuration serves all requests at once; the race detector watches.
func TestConcurrentUse(t *testing.T) {
	c := parse(t, shared)
	v := view{epoch: 1, live: map[string]string{"7": "docker"}}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				if _, err := Decide(Pod{UID: strconv.Itoa(i)}, v, c); err != nil {
					t.Error(err)
				}
				if _, err := c.WithMigration(Migration{To: "containerd", Percent: i % 101}); err != nil {
					t.Error(err)
				}
				c.Handlers()
				c.FrontHandlers("containerd", "runc")
				c.Record.Keeps("io.kubernetes.pod.uid")
			}
		})
	}
	wg.Wait()
}
