package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cgroupSettings are the resources that the Engine has no word for. They are
// written to the container's cgroup as soon as it runs; until then a label of
// the container remembers them.
type cgroupSettings struct {
	// Hugepages are limits in bytes by the size of a page: 2MB, 1GB.
	Hugepages map[string]uint64 `json:"hugepages,omitempty"`
	// Unified are files of the container's cgroup v2 and what they get.
	Unified map[string]string `json:"unified,omitempty"`
}

// stockUnified is what a kubelet sends for every container without anybody
// having asked for it: one end by lack of memory ends the container, there is
// no swap, nothing is reserved. Where the kernel cannot do it, that is no
// reason for the node to run nothing.
var stockUnified = map[string]string{"memory.oom.group": "1", "memory.swap.max": "0", "memory.min": "0", "memory.low": "0"}

var (
	// pageSize is how the kernel's files name a size.
	pageSize = regexp.MustCompile(`^[1-9][0-9]{0,6}[KMG]B$`)
	// unifiedKey is a file of a controller: no path, and not one by which
	// processes are moved, frozen or killed (cgroup.*).
	unifiedKey = regexp.MustCompile(`^[a-z0-9_]+(\.[A-Za-z0-9_-]+)+$`)
)

// translateCgroup carries over what goes to the cgroup.
func translateCgroup(field string, r *runtimeapi.LinuxContainerResources, f *facts) (cgroupSettings, error) {
	s := cgroupSettings{}
	for i, h := range r.GetHugepageLimits() {
		if !pageSize.MatchString(h.GetPageSize()) {
			return s, invalid(fmt.Sprintf("%s.hugepage_limits[%d].page_size", field, i), "%q: want a size such as 2MB or 1GB", h.GetPageSize())
		}
		if s.Hugepages == nil {
			s.Hugepages = map[string]uint64{}
		}
		s.Hugepages[h.GetPageSize()] = h.GetLimit()
	}
	for _, k := range slices.Sorted(maps.Keys(r.GetUnified())) {
		key, v := fmt.Sprintf("%s.unified[%q]", field, k), r.Unified[k]
		switch {
		case !unifiedKey.MatchString(k) || strings.HasPrefix(k, "cgroup."):
			return s, invalid(key, "it names no file of a cgroup v2 controller")
		case strings.TrimSpace(v) == "" || strings.ContainsRune(v, 0):
			return s, invalid(key, "%q is no value", v)
		case !f.cgroupV2 && stockUnified[k] == v:
			continue
		case !f.cgroupV2:
			return s, refused(key, "the docker engine on this node uses cgroup v1")
		}
		if s.Unified == nil {
			s.Unified = map[string]string{}
		}
		s.Unified[k] = v
	}
	return s, nil
}

func (s cgroupSettings) empty() bool { return len(s.Hugepages)+len(s.Unified) == 0 }

// encode makes the label's value; "" for nothing.
func (s cgroupSettings) encode() (string, error) {
	if s.empty() {
		return "", nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode cgroup settings: %w", err)
	}
	return string(b), nil
}

// decodeCgroupSettings reads the label.
func decodeCgroupSettings(label string) (s cgroupSettings, err error) {
	if label == "" {
		return s, nil
	}
	if err := json.Unmarshal([]byte(label), &s); err != nil {
		return s, fmt.Errorf("label %s: %w", labelCgroup, err)
	}
	// Whoever has the Engine's socket can write labels, and these become paths.
	for size := range s.Hugepages {
		if !pageSize.MatchString(size) {
			return cgroupSettings{}, fmt.Errorf("label %s: %q is no size of pages", labelCgroup, size)
		}
	}
	for k := range s.Unified {
		if !unifiedKey.MatchString(k) || strings.HasPrefix(k, "cgroup.") {
			return cgroupSettings{}, fmt.Errorf("label %s: %q is no file of a controller", labelCgroup, k)
		}
	}
	return s, nil
}

// asked reports whether there is anything that a kubelet does not send anyway.
func (s cgroupSettings) asked() bool {
	for _, limit := range s.Hugepages {
		if limit != 0 {
			return true
		}
	}
	for k, v := range s.Unified {
		if stockUnified[k] != v {
			return true
		}
	}
	return false
}
