package cgroups

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

var id = strings.Repeat("1a", 32)

const (
	mountsV1 = `25 1 0:21 / /proc rw - proc proc rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 30 0:31 /kubepods /part rw - cgroup cgroup rw,hugetlb
36 30 0:31 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb
37 30 0:31 /other /part2 rw - cgroup cgroup rw,hugetlb
`
	mountsV2   = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	mountsPart = "30 25 0:26 /kubepods /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
)

func TestMounted(t *testing.T) {
	for _, c := range []struct{ name, table, controller, path, want string }{
		{"v2", mountsV2, "", "/a/b", "/root/sys/fs/cgroup/a/b"},
		{"v2, whole", mountsV2, "", "/", "/root/sys/fs/cgroup"},
		{"v1", mountsV1, "cpuacct", "/a", "/root/sys/fs/cgroup/cpu,cpuacct/a"},
		{"the mount of the whole hierarchy", mountsV1, "hugetlb", "/kubepods/a", "/root/sys/fs/cgroup/hugetlb/kubepods/a"},
		{"no v2 there", mountsV1, "", "/a", ""},
		{"no such controller", mountsV1, "memory", "/a", ""},
		{"a part", mountsPart, "", "/kubepods/a", "/root/sys/fs/cgroup/a"},
		{"outside the part", mountsPart, "", "/other/a", ""},
		{"beside the part", mountsPart, "", "/kubepods2", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			trees, err := Mounted([]byte(c.table), "/root")
			if err != nil {
				t.Fatal(err)
			}
			got := trees.V2(c.path)
			if c.controller != "" {
				got = trees.V1(c.controller, c.path)
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	if _, err := Mounted([]byte("25 1 0:21 / /proc rw - proc proc rw\n"), ""); !errors.Is(err, errNoTree) {
		t.Errorf("without any: %v", err)
	}
	if _, err := Mounted([]byte("nonsense\n"), ""); err == nil || errors.Is(err, errNoTree) {
		t.Errorf("a table that cannot be read: %v", err)
	}
}

func TestEach(t *testing.T) {
	got := ""
	Each([]byte("7:hugetlb:/a\n3:cpu,cpuacct:/b:c\n1:name=systemd:/d\n0::/e\nnonsense\n5:half\n"), func(controllers []string, path string) {
		got += fmt.Sprintf("%q %s; ", controllers, path)
	})
	if want := `["hugetlb"] /a; ["cpu" "cpuacct"] /b:c; ["name=systemd"] /d; [] /e; `; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOf(t *testing.T) {
	for path, want := range map[string]string{
		"/a/" + id + "/b/c": "/a/" + id, "/a/" + id: "/a/" + id, "/a/docker-" + id + ".scope/init": "/a/docker-" + id + ".scope",
		"/": "", "/../" + id: "", "/a/" + id + "/..": "",
	} {
		if got, ok := Of(path, id); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", path, got, ok)
		}
	}
	if _, ok := Of("/a", ""); ok {
		t.Error("no id is in every path")
	}
}

// FuzzCgroups: whatever the kernel's files say, what is found is the
// container's and below a tree.
func FuzzCgroups(f *testing.F) {
	f.Add([]byte(mountsV1), []byte("7:hugetlb:/docker/"+id+"/x\n:::\n1\n"), id)
	f.Add([]byte(mountsPart), []byte("0::/../../kubepods/"+id+"\n"), id)
	f.Fuzz(func(t *testing.T, table, processes []byte, id string) {
		trees, err := Mounted(table, "/root")
		if err != nil || strings.Contains(id, "/") {
			return
		}
		Each(processes, func(controllers []string, path string) {
			up, ok := Of(path, id)
			if !ok {
				return
			}
			if !strings.HasPrefix(path, up) || !strings.Contains(up, id) || strings.Contains(up+"/", "/../") {
				t.Errorf("%q of %q", up, path)
			}
			for _, c := range append(controllers, "hugetlb") {
				if dir := trees.V1(c, up); dir != "" && dir != "/root" && !strings.HasPrefix(dir, "/root/") {
					t.Errorf("%q is outside: %q", up, dir)
				}
			}
		})
	})
}
