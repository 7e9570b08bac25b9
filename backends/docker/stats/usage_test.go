package stats

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

func ptr(n uint64) *uint64 { return &n }

// TestUsage reads the same container from every kind of node.
func TestUsage(t *testing.T) {
	path := "/docker/" + mainID
	hybrid := nodeV1(t, path)
	hybrid.write(map[string]string{
		"proc/self/mountinfo": mountsV1 + mountHybrid, "proc/4242/cgroup": procV1(path) + "0::" + path + "\n",
		"sys/fs/cgroup/unified" + path + "/cpu.pressure": "some avg10=1.50 avg60=0.75 avg300=0.25 total=3000000\n",
	})
	for name, c := range map[string]struct {
		node *node
		psi  bool
	}{
		"v1":      {node: nodeV1(t, path)},
		"v2":      {node: nodeV2(t, path), psi: true},
		"systemd": {node: nodeV2(t, "/kubepods.slice/kubepods-podx.slice/docker-"+mainID+".scope"), psi: true},
		"hybrid":  {node: hybrid, psi: true},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := c.node.pass().Container(mainID, 4242)
			if err != nil {
				t.Fatal(err)
			}
			if u.CPU.Total != 12e9 || u.CPU.Cores != nil {
				t.Errorf("cpu %+v", u.CPU)
			}
			memory := *u.Memory
			memory.Pressure = nil
			if want := (Memory{Usage: 16 << 20, WorkingSet: 7 << 20, RSS: 3 << 20, Faults: 5000, MajorFaults: 7, Available: ptr(57 << 20)}); !reflect.DeepEqual(memory, want) {
				t.Errorf("memory %+v", memory)
			}
			if !reflect.DeepEqual(u.Swap, &Swap{Usage: 2 << 20, Available: ptr(62 << 20)}) {
				t.Errorf("swap %+v", u.Swap)
			}
			if *u.Processes != 5 {
				t.Errorf("processes %d", *u.Processes)
			}
			if some := (Stall{Total: 3e9, Avg10: 1.5, Avg60: 0.75, Avg300: 0.25}); c.psi && (u.CPU.Pressure == nil || *u.CPU.Pressure.Some != some) {
				t.Errorf("pressure %+v", u.CPU.Pressure)
			}
			if name == "v2" && (u.IO.Some.Total != 2e9 || u.IO.Full == nil || u.Memory.Pressure.Full.Total != 4000) {
				t.Errorf("io %+v, memory %+v", u.IO, u.Memory.Pressure)
			}
			if name == "v1" && (u.IO != nil || u.CPU.Pressure != nil) {
				t.Errorf("v1 knows no pressure: %+v", u)
			}
		})
	}
}

// TestNoLimits: what has no limit has nothing available to tell, and a kernel
// that does not count swap none of that.
func TestNoLimits(t *testing.T) {
	path := "/docker/" + mainID
	v1 := nodeV1(t, path)
	v1.write(map[string]string{
		"sys/fs/cgroup/memory" + path + "/memory.limit_in_bytes": "9223372036854771712\n",
		"sys/fs/cgroup/memory" + path + "/memory.stat":           "total_inactive_file 99999999\n",
	})
	v2 := nodeV2(t, path)
	v2.write(map[string]string{
		"sys/fs/cgroup" + path + "/memory.max":  "max\n",
		"sys/fs/cgroup" + path + "/memory.stat": "inactive_file 99999999\n",
	})
	v2.remove("sys/fs/cgroup" + path + "/memory.swap.current")
	for _, n := range []*node{v1, v2} {
		u, err := n.pass().Container(mainID, 4242)
		if err != nil {
			t.Fatal(err)
		}
		if u.Memory.Available != nil || u.Swap != nil || u.Memory.WorkingSet != 0 {
			t.Errorf("memory %+v, swap %+v", u.Memory, u.Swap)
		}
	}
}

// TestNoMemoryController: some nodes do not count memory.
func TestNoMemoryController(t *testing.T) {
	path := "/docker/" + mainID
	n := nodeV2(t, path)
	n.remove("sys/fs/cgroup" + path + "/memory.current")
	u, err := n.pass().Container(mainID, 4242)
	if err != nil || u.Memory != nil || u.CPU == nil {
		t.Errorf("usage %+v, %v", u, err)
	}
}

// TestMovedBelow: a container may move its processes to cgroups of its own.
func TestMovedBelow(t *testing.T) {
	for _, n := range []*node{nodeV1(t, "/docker/"+mainID), nodeV2(t, "/docker/"+mainID)} {
		n.write(map[string]string{"proc/4242/cgroup": procV1("/docker/"+mainID+"/init.scope/x") + "0::/docker/" + mainID + "/init.scope/x\n"})
		u, err := n.pass().Container(mainID, 4242)
		if err != nil || u.CPU.Total != 12e9 {
			t.Errorf("usage %+v, %v", u, err)
		}
	}
}

// TestPartOfTheTree: a daemon in a container may see only a part mounted.
func TestPartOfTheTree(t *testing.T) {
	n := nodeV2(t, "/"+mainID)
	n.write(map[string]string{
		"proc/self/mountinfo": "30 25 0:26 /docker /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"proc/4242/cgroup":    "0::/docker/" + mainID + "\n",
	})
	if u, err := n.pass().Container(mainID, 4242); err != nil || u.CPU.Total != 12e9 {
		t.Errorf("usage %+v, %v", u, err)
	}
	n.write(map[string]string{"proc/4343/cgroup": "0::/other/" + infraID + "\n"})
	if _, err := n.pass().Container(infraID, 4343); !errors.Is(err, ErrGone) {
		t.Errorf("outside of what is mounted: %v", err)
	}
}

func TestGone(t *testing.T) {
	path := "/docker/" + mainID
	for _, n := range []*node{nodeV1(t, path), nodeV2(t, path)} {
		for name, call := range map[string]func() error{
			"no process":    func() error { _, err := n.pass().Container(mainID, 0); return err },
			"ended":         func() error { _, err := n.pass().Container(mainID, 1); return err },
			"somebody else": func() error { _, err := n.pass().Container(infraID, 4242); return err },
			"no id":         func() error { _, err := n.pass().Container("", 4242); return err },
		} {
			if err := call(); !errors.Is(err, ErrGone) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := n.pass().Container(mainID, 4242); err != nil {
			t.Fatal(err)
		}
		// Known, and then removed.
		n.remove("sys")
		if _, err := n.pass().Container(mainID, 4242); !errors.Is(err, ErrGone) {
			t.Errorf("removed: %v", err)
		}
		if _, err := n.pass().Detail(mainID, 4242); !errors.Is(err, ErrGone) {
			t.Errorf("details of what is removed: %v", err)
		}
		if len(n.homes) != 0 {
			t.Errorf("its place is still known: %v", n.homes)
		}
	}
}

func TestNoHierarchy(t *testing.T) {
	n := nodeV2(t, "/docker/"+mainID)
	n.write(map[string]string{"proc/self/mountinfo": "25 1 0:21 / /proc rw - proc proc rw\n"})
	if _, err := n.pass().Container(mainID, 4242); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("error %v", err)
	}
	// And it is looked for again.
	n.write(map[string]string{"proc/self/mountinfo": mountsV2})
	if _, err := n.pass().Container(mainID, 4242); err != nil {
		t.Error(err)
	}
}

// TestCores is about rates: they are those of the time since the sample
// before, whoever asks how often.
func TestCores(t *testing.T) {
	path := "/docker/" + mainID
	n := nodeV1(t, path)
	at := func(d time.Duration, usage string, want *uint64) {
		t.Helper()
		n.clock = time.Unix(1_700_000_000, 0).Add(d)
		n.write(map[string]string{"sys/fs/cgroup/cpu,cpuacct" + path + "/cpuacct.usage": usage})
		u, err := n.pass().Container(mainID, 4242)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(u.CPU.Cores, want) {
			t.Errorf("after %v: %v", d, u.CPU.Cores)
			if u.CPU.Cores != nil {
				t.Error(*u.CPU.Cores)
			}
		}
	}
	at(0, "1000000000", nil)
	at(10*time.Millisecond, "1010000000", nil) // too soon to tell
	at(2*time.Second, "2000000000", ptr(5e8))
	at(2100*time.Millisecond, "2050000000", ptr(5e8)) // since the first, not the last
	at(4*time.Second, "1900000000", nil)              // went back: another cgroup
	at(5*time.Second, "1900000000", ptr(0))
	at(time.Hour, "9000000000", nil) // too long ago
	n.Keep(func(string) bool { return false })
	at(time.Hour+time.Second, "9900000000", nil)
}

func TestPod(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		own  bool
	}{
		"cgroupfs":       {"/kubepods/burstable/pod" + podUID + "/" + infraID, true},
		"systemd":        {"/kubepods.slice/kubepods-pod0f7f_4d1e.slice/docker-" + infraID + ".scope", true},
		"shared":         {"/docker/" + infraID, false},
		"another's":      {"/kubepods/pod" + podUID + "x/" + infraID, false},
		"at the root":    {"/" + infraID, false},
		"systemd, other": {"/kubepods.slice/kubepods-podx0f7f_4d1e.slice/docker-" + infraID + ".scope", false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []*node{nodeV1(t, c.path), nodeV2(t, c.path)} {
				up := c.path[:len(c.path)-len(infraID)]
				if i := len("/docker-" + infraID + ".scope"); len(c.path) > i && c.path[len(c.path)-6:] == ".scope" {
					up = c.path[:len(c.path)-i] + "/"
				}
				n.write(map[string]string{
					"sys/fs/cgroup/cpu,cpuacct" + up + "cpuacct.usage":      "99000000000\n",
					"sys/fs/cgroup" + up + "cpu.stat":                       "usage_usec 99000000\n",
					"sys/fs/cgroup/memory" + up + "memory.usage_in_bytes":   "99\n",
					"sys/fs/cgroup/memory" + up + "memory.stat":             "total_inactive_file 9\n",
					"sys/fs/cgroup" + up + "memory.current":                 "99\n",
					"sys/fs/cgroup" + up + "memory.stat":                    "inactive_file 9\n",
					"sys/fs/cgroup/pids" + up + "pids.current":              "6\n",
					"sys/fs/cgroup" + up + "pids.current":                   "6\n",
					"sys/fs/cgroup/memory" + up + "memory.limit_in_bytes":   "9223372036854771712\n",
					"sys/fs/cgroup" + up + "memory.max":                     "max\n",
					"sys/fs/cgroup/cpu,cpuacct" + up + "cpu.something_else": "",
				})
				u, err := n.pass().Pod(infraID, 4242, podUID)
				if err != nil {
					t.Fatal(err)
				}
				if (u != nil) != c.own {
					t.Fatalf("own cgroup: %v", u != nil)
				}
				if c.own && (u.CPU.Total != 99e9 || u.Memory.WorkingSet != 90 || *u.Processes != 6) {
					t.Errorf("%+v %+v", u.CPU, u.Memory)
				}
			}
		})
	}
	if _, own := (&home{v2: "/sys/fs/cgroup/pod/x"}).parent(""); own {
		t.Error("a pod without uid has no cgroup of its own")
	}
}

// TestPodRate: the pod's rate is not the infra container's.
func TestPodRate(t *testing.T) {
	n := nodeV2(t, "/kubepods/pod"+podUID+"/"+infraID)
	n.write(map[string]string{"sys/fs/cgroup/kubepods/pod" + podUID + "/cpu.stat": "usage_usec 99000000\n"})
	for range 2 {
		pod, err := n.pass().Pod(infraID, 4242, podUID)
		if err != nil {
			t.Fatal(err)
		}
		infra, err := n.pass().Container(infraID, 4242)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range []*Usage{pod, infra} {
			if u.CPU.Cores != nil && *u.CPU.Cores != 0 {
				t.Errorf("rate %d of something idle", *u.CPU.Cores)
			}
		}
		n.clock = n.clock.Add(time.Second)
	}
}

func TestSum(t *testing.T) {
	a := &Usage{Time: time.Unix(1, 0), CPU: &CPU{Total: 1, Cores: ptr(10)}, Memory: &Memory{Usage: 5, WorkingSet: 4, RSS: 3, Faults: 2, MajorFaults: 1}, Processes: ptr(2)}
	b := &Usage{Time: time.Unix(2, 0), CPU: &CPU{Total: 2, Cores: ptr(20)}, Memory: &Memory{Usage: 5, Available: ptr(7)}, Processes: ptr(3)}
	got := Sum([]*Usage{a, b})
	want := &Usage{Time: time.Unix(2, 0), CPU: &CPU{Total: 3, Cores: ptr(30)}, Memory: &Memory{Usage: 10, WorkingSet: 4, RSS: 3, Faults: 2, MajorFaults: 1}, Processes: ptr(5)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %+v", got.CPU, got.Memory)
	}
	if got := Sum([]*Usage{a, {CPU: &CPU{Total: 2}}, b}); got.CPU.Cores != nil {
		t.Errorf("a rate of something whose rate is not known: %d", *got.CPU.Cores)
	}
}
