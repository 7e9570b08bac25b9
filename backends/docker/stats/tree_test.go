package stats

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// node is a recorded tree of /proc and /sys/fs/cgroup.
type node struct {
	t   testing.TB
	dir string
	*Reader
	clock time.Time
}

func newNode(t testing.TB, files map[string]string) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), clock: time.Unix(1_700_000_000, 0)}
	n.Reader = NewReader(n.dir)
	n.write(files)
	return n
}

func (n *node) write(files map[string]string) {
	n.t.Helper()
	for name, content := range files {
		name = filepath.Join(n.dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			n.t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) remove(name string) {
	n.t.Helper()
	if err := os.RemoveAll(filepath.Join(n.dir, name)); err != nil {
		n.t.Fatal(err)
	}
}

// pass is a pass at the node's own time.
func (n *node) pass() *Pass {
	p := n.Begin()
	p.now = func() time.Time { return n.clock }
	return p
}

var (
	infraID = strings.Repeat("1a", 32)
	mainID  = strings.Repeat("2b", 32)
)

const podUID = "0f7f-4d1e"

const mountsV1 = `25 1 0:21 / /proc rw - proc proc rw
30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
35 30 0:31 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb
36 30 0:32 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
`

const mountsV2 = `25 1 0:21 / /proc rw - proc proc rw
30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
`

// The unified tree beside v1, with no controllers.
const mountHybrid = "37 30 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"

func procV1(path string) string {
	return fmt.Sprintf("7:hugetlb:%[1]s\n6:blkio:%[1]s\n5:pids:%[1]s\n4:memory:%[1]s\n3:cpu,cpuacct:%[1]s\n1:name=systemd:%[1]s\n", path)
}

// memoryStatV1 is from a container on a 6.x kernel with cgroup v1.
const memoryStatV1 = `cache 4096
rss 8192
shmem 0
mapped_file 4096
swap 0
pgfault 100
pgmajfault 1
inactive_file 4096
active_file 0
hierarchical_memory_limit 67108864
hierarchical_memsw_limit 134217728
total_cache 11534336
total_rss 3145728
total_rss_huge 0
total_shmem 0
total_mapped_file 1048576
total_dirty 0
total_writeback 0
total_swap 2097152
total_pgpgin 100
total_pgpgout 50
total_pgfault 5000
total_pgmajfault 7
total_inactive_anon 0
total_active_anon 3145728
total_inactive_file 9437184
total_active_file 2097152
total_unevictable 0
`

// cgroupV1 are the files of a container's cgroup.
func cgroupV1(path string) map[string]string {
	const root = "sys/fs/cgroup/"
	out := map[string]string{}
	for dir, files := range map[string]map[string]string{
		"cpu,cpuacct": {
			"cpuacct.usage": "12000000000\n", "cpuacct.stat": "user 700\nsystem 450\n",
			"cpu.stat": "nr_periods 40\nnr_throttled 3\nthrottled_time 2500000000\nnr_bursts 0\nburst_time 0\n",
		},
		"memory": {
			"memory.usage_in_bytes": "16777216\n", "memory.limit_in_bytes": "67108864\n", "memory.memsw.limit_in_bytes": "134217728\n",
			"memory.stat": memoryStatV1, "memory.max_usage_in_bytes": "33554432\n", "memory.failcnt": "9\n",
			"memory.kmem.usage_in_bytes": "524288\n", "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
		},
		"pids": {"pids.current": "5\n", "pids.max": "100\n", "cgroup.procs": "4242\n"},
		"blkio": {
			"blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 12288\n8:0 Async 0\n8:0 Total 12288\nTotal 12288\n",
			"blkio.throttle.io_serviced_recursive":      "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
		},
		"hugetlb": {"hugetlb.2MB.usage_in_bytes": "2097152\n", "hugetlb.2MB.max_usage_in_bytes": "4194304\n"},
	} {
		for name, content := range files {
			out[root+dir+path+"/"+name] = content
		}
	}
	return out
}

// memoryStatV2 has the keys of a 6.x kernel that matter, and some that don't.
const memoryStatV2 = `anon 3145728
file 11534336
kernel 786432
kernel_stack 65536
pagetables 131072
percpu 1440
sock 0
shmem 0
file_mapped 1048576
file_dirty 0
swapcached 0
inactive_anon 0
active_anon 3145728
inactive_file 9437184
active_file 2097152
slab 300000
pgfault 5000
pgmajfault 7
workingset_refault_anon 0
`

// cgroupV2 are the files of a container's cgroup.
func cgroupV2(path string) map[string]string {
	out := map[string]string{}
	for name, content := range map[string]string{
		"cpu.stat":       "usage_usec 12000000\nuser_usec 7000000\nsystem_usec 4500000\ncore_sched.force_idle_usec 0\nnr_periods 40\nnr_throttled 3\nthrottled_usec 2500000\nnr_bursts 0\nburst_usec 0\n",
		"cpu.pressure":   "some avg10=1.50 avg60=0.75 avg300=0.25 total=3000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n",
		"memory.current": "16777216\n", "memory.max": "67108864\n", "memory.stat": memoryStatV2, "memory.peak": "33554432\n",
		"memory.events":   "low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n",
		"memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n",
		"io.pressure":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"io.stat":         "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:1 \n",
		"pids.current":    "5\n", "pids.max": "max\n", "cgroup.procs": "4242\n",
		"memory.swap.current": "2097152\n", "memory.swap.max": "67108864\n", "hugetlb.2MB.current": "2097152\n", "hugetlb.2MB.max": "max\n",
	} {
		out["sys/fs/cgroup"+path+"/"+name] = content
	}
	return out
}

func nodeV1(t testing.TB, path string) *node {
	n := newNode(t, cgroupV1(path))
	n.write(map[string]string{"proc/self/mountinfo": mountsV1, "proc/4242/cgroup": procV1(path)})
	return n
}

func nodeV2(t testing.TB, path string) *node {
	n := newNode(t, cgroupV2(path))
	n.write(map[string]string{"proc/self/mountinfo": mountsV2, "proc/4242/cgroup": "0::" + path + "\n"})
	return n
}
