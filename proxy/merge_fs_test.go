package proxy

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

func fs(path string, used uint64) *runtimeapi.FilesystemUsage {
	return &runtimeapi.FilesystemUsage{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: path}, UsedBytes: &runtimeapi.UInt64Value{Value: used}}
}

// TestTheFullerDiskFirst: the kubelet looks at the first one alone.
func TestTheFullerDiskFirst(t *testing.T) {
	info := func(image, container *runtimeapi.FilesystemUsage, more ...*runtimeapi.FilesystemUsage) *runtimeapi.ImageFsInfoResponse {
		r := &runtimeapi.ImageFsInfoResponse{ImageFilesystems: append([]*runtimeapi.FilesystemUsage{image}, more...)}
		if container != nil {
			r.ContainerFilesystems = []*runtimeapi.FilesystemUsage{container}
		}
		return r
	}
	for _, row := range []struct {
		name   string
		shares map[string]float64
		a, b   *runtimeapi.ImageFsInfoResponse
		// paths in order
		images, containers string
		used               uint64 // of the first
	}{
		{"by its share", map[string]float64{"/a": 0.9, "/b": 0.2}, info(fs("/a", 1), nil), info(fs("/b", 100), nil), "/a /b", "", 1},
		{"by its share, the other way", map[string]float64{"/a": 0.1, "/b": 0.2}, info(fs("/a", 100), nil), info(fs("/b", 1), nil), "/b /a", "", 1},
		{"by bytes where one cannot be seen", map[string]float64{"/a": 0.9}, info(fs("/a", 1), nil), info(fs("/b", 100), nil), "/b /a", "", 100},
		{"by bytes on the same disk", map[string]float64{"/a": 0.5, "/b": 0.5}, info(fs("/a", 1), nil), info(fs("/b", 100), nil), "/b /a", "", 100},
		{"one place is listed once", map[string]float64{"/a": 0.5}, info(fs("/a", 7), fs("/a", 3)), info(fs("/a", 9), fs("/a", 2)), "/a", "/a", 9},
		// Image and container file systems of two runtimes at the head would
		// look like one runtime with a disk for each.
		{"a runtime's own come together", map[string]float64{"/a": 0.9, "/b": 0.2}, info(fs("/a", 1), fs("/a/c", 1)), info(fs("/b", 100), fs("/b/c", 100)), "/a /b", "/a/c /b/c", 1},
		{"several of one runtime", map[string]float64{"/a": 0.1, "/a2": 0.8, "/b": 0.5}, info(fs("/a", 5), nil, fs("/a2", 1)), info(fs("/b", 3), nil), "/a2 /a /b", "", 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			var frames []*backends.Frame
			for _, r := range []*runtimeapi.ImageFsInfoResponse{row.a, row.b} {
				f, err := encoded(r)
				if err != nil {
					t.Fatal(err)
				}
				frames = append(frames, f)
			}
			out, err := mergeFsInfo(func(path string) (float64, bool) { share, ok := row.shares[path]; return share, ok })(frames)
			if err != nil {
				t.Fatal(err)
			}
			var got runtimeapi.ImageFsInfoResponse
			if err := proto.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			paths := func(list []*runtimeapi.FilesystemUsage) string {
				var all []string
				for _, f := range list {
					all = append(all, f.FsId.Mountpoint)
				}
				return strings.Join(all, " ")
			}
			if p := paths(got.ImageFilesystems); p != row.images || got.ImageFilesystems[0].UsedBytes.Value != row.used {
				t.Errorf("images are on %s, the first with %d bytes", p, got.ImageFilesystems[0].UsedBytes.Value)
			}
			if p := paths(got.ContainerFilesystems); p != row.containers {
				t.Errorf("containers are on %q", p)
			}
		})
	}
}

func TestDiskFullness(t *testing.T) {
	if share, ok := diskFullness(t.TempDir()); !ok || share < 0 || share > 1 {
		t.Errorf("%v, %v", share, ok)
	}
	if _, ok := diskFullness(filepath.Join(t.TempDir(), "none")); ok {
		t.Error("a place that is not there has a share")
	}
}

// TestOfTwoCountsTheLargerHolds, and what has no place is nobody else's.
func TestOfTwoCountsTheLargerHolds(t *testing.T) {
	list := func(used ...uint64) (all []fileSystem) {
		for i, n := range used {
			all = append(all, fileSystem{path: []string{"/a", "/b", ""}[i], used: n})
		}
		return all
	}
	all := addFs(addFs(nil, list(5, 5, 5)), list(4, 6, 7))
	var got []uint64
	for _, fs := range all {
		got = append(got, fs.used)
	}
	if !slices.Equal(got, []uint64{5, 6, 5, 7}) {
		t.Errorf("used are %v", got)
	}
}
