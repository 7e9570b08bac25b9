package docker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPageSizesOfTheNode(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"hugepages-1048576kB", "hugepages-64kB", "hugepages-2048kB", "hugepages-32768kB", "hugepages-16777216kB", "other", "hugepages-xkB"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := pageSizes(dir)
	if want := []string{"64KB", "2MB", "32MB", "1GB", "16GB"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if got, err := pageSizes(filepath.Join(dir, "none")); err != nil || len(got) != 0 {
		t.Errorf("a kernel without huge pages: %v, %v", got, err)
	}
}

func TestHugepageLimitOfASizeThatTheNodeLacks(t *testing.T) {
	for _, c := range []struct {
		limit *runtimeapi.HugepageLimit
		sizes []string
		want  string // in the error; "" for none
	}{
		{&runtimeapi.HugepageLimit{PageSize: "2MB", Limit: 2 << 20}, []string{"2MB"}, ""},
		{&runtimeapi.HugepageLimit{PageSize: "1GB"}, []string{"2MB"}, ""},
		{&runtimeapi.HugepageLimit{PageSize: "1GB"}, nil, ""},
		{&runtimeapi.HugepageLimit{PageSize: "1GB", Limit: 1 << 30}, []string{"64KB", "2MB"}, "no huge pages of 1GB; it has 64KB, 2MB"},
		{&runtimeapi.HugepageLimit{PageSize: "2MB", Limit: 2 << 20}, nil, "no huge pages of 2MB; it has none"},
	} {
		n := testNode()
		n.pageSizes = c.sizes
		r := &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "4KB"}, c.limit}}
		_, _, err := translateResources("linux", r, testFacts(), n)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%v on a node with %v: %v", c.limit, c.sizes, err)
		case c.want != "" && (status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "linux.hugepage_limits[1]") || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%v on a node with %v: %v", c.limit, c.sizes, err)
		}
	}
}
