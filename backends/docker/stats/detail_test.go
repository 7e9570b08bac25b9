package stats

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDetail(t *testing.T) {
	path := "/docker/" + mainID
	for name, n := range map[string]*node{"v1": nodeV1(t, path), "v2": nodeV2(t, path)} {
		t.Run(name, func(t *testing.T) {
			pidsDir := "sys/fs/cgroup" + path
			if name == "v1" {
				pidsDir = "sys/fs/cgroup/pids" + path
			}
			n.write(map[string]string{
				"sys/dev/block/8:0/uevent":                         "MAJOR=8\nMINOR=0\nDEVNAME=sda\nDEVTYPE=disk\n",
				"sys/kernel/mm/hugepages/hugepages-2048kB/x":       "",
				"sys/kernel/mm/hugepages/hugepages-1048576kB/x":    "",
				"proc/4242/limits":                                 "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 524288               files\n",
				filepath.Join(pidsDir, "child", "cgroup.procs"):    "4343\n4444\n",
				filepath.Join("proc", "4242", "fd", "placeholder"): "",
			})
			if err := os.Symlink("socket:[99]", filepath.Join(n.dir, "proc/4242/fd/3")); err != nil {
				t.Fatal(err)
			}
			d, err := n.pass().Detail(mainID, 4242)
			if err != nil {
				t.Fatal(err)
			}
			if d.User != 7*time.Second || d.System != 4500*time.Millisecond ||
				!reflect.DeepEqual(d.Throttling, &Throttling{Periods: 40, ThrottledPeriods: 3, Throttled: 2500 * time.Millisecond}) {
				t.Errorf("cpu %v %v %+v", d.User, d.System, d.Throttling)
			}
			memory := &MemoryDetail{
				Cache: 11 << 20, Mapped: 1 << 20, ActiveFile: 2 << 20, InactiveFile: 9 << 20, OwnFaults: 5000, OwnMajorFaults: 7,
				Kernel: ptr(768 << 10), Peak: ptr(32 << 20), LimitHits: ptr(9), OOMKills: ptr(2),
			}
			pages := HugePages{Size: "2MB", Usage: 2 << 20}
			limit := (*uint64)(nil)
			if name == "v1" {
				memory.OwnFaults, memory.OwnMajorFaults, memory.Kernel = 100, 1, ptr(512<<10)
				pages.Peak, limit = ptr(4<<20), ptr(100)
			}
			if !reflect.DeepEqual(d.Memory, memory) {
				t.Errorf("memory %+v", d.Memory)
			}
			if !reflect.DeepEqual(d.HugePages, []HugePages{pages}) {
				t.Errorf("huge pages %+v", d.HugePages)
			}
			if len(d.IO) != 1 && name == "v1" || d.IO[0].Device != "/dev/sda" || d.IO[0].Major != "8" || d.IO[0].Bytes[1] != (Operation{"Write", 8192}) || d.IO[0].Ops[0] != (Operation{"Read", 1}) {
				t.Errorf("io %+v", d.IO)
			}
			want := &Processes{Count: 3, Threads: 5, MaxThreads: limit, Descriptors: 2, Sockets: 1, MaxFiles: ptr(1024)}
			if !reflect.DeepEqual(d.Processes, want) {
				t.Errorf("processes %+v", d.Processes)
			}
		})
	}
}

// TestKernelMemoryOfOldKernels: before 5.18 nobody summed it up.
func TestKernelMemoryOfOldKernels(t *testing.T) {
	b := strings.Replace(memoryStatV2, "kernel 786432\n", "", 1)
	if got := parseMemoryStat([]byte(b), true).kernel; got != 65536+131072+1440+300000 {
		t.Errorf("kernel memory %d", got)
	}
}

func TestHugePageSize(t *testing.T) {
	for in, want := range map[string]string{
		"hugepages-2048kB": "2MB", "hugepages-1048576kB": "1GB", "hugepages-64kB": "64KB", "hugepages-16777216kB": "16GB",
		"hugepages-0kB": "", "hugepages-kB": "", "other": "", "hugepages-1": "",
	} {
		if got, ok := hugePageSize(in); got != want || ok != (want != "") {
			t.Errorf("%s: %q %v", in, got, ok)
		}
	}
}

func TestNetwork(t *testing.T) {
	n := nodeV1(t, "/docker/"+infraID)
	n.write(map[string]string{"proc/4242/net/dev": `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 500 5 0 0 0 0 0 0 500 5 0 0 0 0 0 0
  net1:       7       1    0    0    0     0          0         0        8       1    0    0    0     0       0          0
  eth0:1068342283   42608    1    2    0     0          0         0  3013853   32668    3    4    0     0       0          0
`})
	got, err := n.pass().Network(infraID, 4242)
	if err != nil {
		t.Fatal(err)
	}
	want := []Interface{
		{Name: "net1", Rx: Traffic{Bytes: 7, Packets: 1}, Tx: Traffic{Bytes: 8, Packets: 1}},
		{Name: "eth0", Rx: Traffic{Bytes: 1068342283, Packets: 42608, Errors: 1, Dropped: 2}, Tx: Traffic{Bytes: 3013853, Packets: 32668, Errors: 3, Dropped: 4}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	// The numbers of another process are not the pod's.
	for _, c := range []struct {
		id  string
		pid int
	}{{mainID, 4242}, {infraID, 4243}, {infraID, 0}, {"", 4242}} {
		if got, err := n.pass().Network(c.id, c.pid); err != ErrGone {
			t.Errorf("%v: %v %v", c, got, err)
		}
	}
}

func TestUpper(t *testing.T) {
	n := nodeV1(t, "/docker/"+mainID)
	n.write(map[string]string{"proc/4242/mountinfo": `100 50 0:60 / / rw,relatime - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/var/lib/my\040docker/s/9/fs,workdir=/w
101 100 0:61 / /proc rw - proc proc rw
102 100 0:62 / /data rw - overlay overlay rw,upperdir=/not/this
`})
	if dir, err := n.pass().Upper(mainID, 4242); err != nil || dir != "/var/lib/my docker/s/9/fs" {
		t.Errorf("%q %v", dir, err)
	}
	if dir, err := n.pass().Upper(infraID, 4242); err != ErrGone {
		t.Errorf("of another's process: %q %v", dir, err)
	}
	n.write(map[string]string{"proc/4242/mountinfo": "100 50 8:1 / / rw - ext4 /dev/sda1 rw\n"})
	if dir, err := n.pass().Upper(mainID, 4242); err != nil || dir != "" {
		t.Errorf("no overlay: %q %v", dir, err)
	}
}
