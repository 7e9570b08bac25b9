package stats

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/crimux/crimux/backends/docker/cgroups"
)

// home is where the cgroups of a container, or of a pod, are.
type home struct {
	v1 [controllers]string
	v2 string
}

// dir is the folder with the controller's files; v2 says in which format they
// are. It is empty where the controller is in no hierarchy.
func (h *home) dir(c controller) (dir string, v2 bool) {
	if d := h.v1[c]; d != "" {
		return d, false
	}
	return h.v2, true
}

// home finds the cgroups of the container id, whose process is pid.
//
// The path of a cgroup names its container. So the process is known not to be
// another's, which has got its number since; and once the folder is known, it
// is the container's for good.
func (p *Pass) home(id string, pid int) (home, error) {
	if id == "" || pid <= 0 {
		return home{}, ErrGone
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if h, ok := p.r.homes[id]; ok {
		return h, nil
	}
	t, err := p.findTrees()
	if err != nil {
		return home{}, err
	}
	b, err := p.read(p.r.root, "proc", strconv.Itoa(pid), "cgroup")
	if gone(err) {
		return home{}, ErrGone
	}
	if err != nil {
		return home{}, fmt.Errorf("cgroup of process %d: %w", pid, err)
	}
	var h home
	cgroups.Each(b, func(names []string, path string) {
		path, ok := cgroups.Of(path, id)
		if !ok {
			return
		}
		if len(names) == 0 {
			h.v2 = t.V2(path)
			return
		}
		for c, name := range controllerNames {
			if slices.Contains(names, name) {
				h.v1[c] = t.V1(name, path)
			}
		}
	})
	if h == (home{}) {
		return home{}, ErrGone
	}
	p.r.homes[id] = h
	return h, nil
}

// lost forgets where a container's cgroups were, and says what that means.
func (p *Pass) lost(id string, err error) error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	delete(p.r.homes, id)
	if gone(err) {
		return ErrGone
	}
	return err
}

// owns reports whether the process still is the container's.
func (p *Pass) owns(id string, pid int) bool {
	b, err := p.read(p.r.root, "proc", strconv.Itoa(pid), "cgroup")
	return err == nil && id != "" && bytes.Contains(b, []byte(id))
}

// parent is the cgroup above, if it is the one that the kubelet has made for
// the pod: podUID with the cgroupfs driver, …-podUID.slice with systemd's,
// which has underscores for dashes. Anything else may be shared by many.
func (h *home) parent(uid string) (home, bool) {
	if uid == "" {
		return home{}, false
	}
	slice := "-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice"
	above := func(dir string) (string, bool) {
		up := filepath.Dir(dir)
		base := filepath.Base(up)
		return up, base == "pod"+uid || strings.HasSuffix(base, slice)
	}
	var out home
	ok := true
	for c, dir := range h.v1 {
		if dir != "" && ok {
			out.v1[c], ok = above(dir)
		}
	}
	if h.v2 != "" && ok {
		out.v2, ok = above(h.v2)
	}
	return out, ok
}
