package docker

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hugePagesDir has one folder for each size of huge page that the kernel and
// the processor have: Documentation/admin-guide/mm/hugetlbpage.rst.
const hugePagesDir = "/sys/kernel/mm/hugepages"

// pageSizes returns the sizes of huge pages of this node, smallest first, as
// cgroup files and the CRI name them: 2MB, 1GB. A kernel without huge pages
// has none.
func pageSizes(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sizes of huge pages: %w", err)
	}
	var kilobytes []int
	for _, e := range entries {
		text, _ := strings.CutPrefix(e.Name(), "hugepages-")
		if kb, err := strconv.Atoi(strings.TrimSuffix(text, "kB")); err == nil && kb > 0 {
			kilobytes = append(kilobytes, kb)
		}
	}
	slices.SortFunc(kilobytes, cmp.Compare[int])
	var sizes []string
	for _, kb := range kilobytes {
		sizes = append(sizes, pageSizeName(kb))
	}
	return sizes, nil
}

// pageSizeName names a size as the kernel names the files of the hugetlb
// controller: with the largest unit that leaves no fraction.
func pageSizeName(kilobytes int) string {
	switch {
	case kilobytes%(1<<20) == 0:
		return strconv.Itoa(kilobytes>>20) + "GB"
	case kilobytes%(1<<10) == 0:
		return strconv.Itoa(kilobytes>>10) + "MB"
	}
	return strconv.Itoa(kilobytes) + "KB"
}

// checkPageSizes refuses a limit for pages of a size that this node does not
// have. A limit of 0 is what every kubelet sends for the sizes it knows of, and
// holds by itself.
func checkPageSizes(field string, limits []*runtimeapi.HugepageLimit, sizes []string) error {
	for i, l := range limits {
		if l.GetLimit() == 0 || slices.Contains(sizes, l.GetPageSize()) {
			continue
		}
		has := "it has none"
		if len(sizes) > 0 {
			has = "it has " + strings.Join(sizes, ", ")
		}
		return invalid(fmt.Sprintf("%s.hugepage_limits[%d]", field, i), "this node has no huge pages of %s; %s", l.GetPageSize(), has)
	}
	return nil
}
