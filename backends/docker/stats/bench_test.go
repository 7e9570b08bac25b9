package stats

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkPass is one pass over 60 containers of a recorded node.
func BenchmarkPass(b *testing.B) {
	for _, version := range []int{1, 2} {
		b.Run(fmt.Sprintf("v%d", version), func(b *testing.B) {
			n := newNode(b, nil)
			var ids []string
			for i := range 60 {
				id := strings.Repeat(fmt.Sprintf("%04x", i), 16)
				ids = append(ids, id)
				path := "/docker/" + id
				proc, mounts, files := procV1(path), mountsV1, cgroupV1(path)
				if version == 2 {
					proc, mounts, files = "0::"+path+"\n", mountsV2, cgroupV2(path)
				}
				n.write(files)
				n.write(map[string]string{"proc/self/mountinfo": mounts, fmt.Sprintf("proc/%d/cgroup", 1000+i): proc})
			}
			for b.Loop() {
				p := n.Begin()
				for i, id := range ids {
					if _, err := p.Container(id, 1000+i); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
