package docker

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// userOf returns who the first process of container id runs as. It is read
// from the process itself: only the image's own files could tell the numbers
// of a name, and only the Engine knows what it made of them. The error is
// errEnded if the process is gone, or is no longer that container's.
func (p procFS) userOf(pid int, id string) (*runtimeapi.ContainerUser, error) {
	if pid <= 0 {
		return nil, errEnded
	}
	b, err := os.ReadFile(p.file(strconv.Itoa(pid), "status"))
	if gone(err) {
		return nil, errEnded
	}
	if err != nil {
		return nil, fmt.Errorf("user of process %d: %w", pid, err)
	}
	// Only now: a number that was given to another process in between shows.
	if err := p.belongs(pid, id); err != nil {
		return nil, err
	}
	user, err := parseUser(string(b))
	if err != nil {
		return nil, fmt.Errorf("user of process %d: %w", pid, err)
	}
	return &runtimeapi.ContainerUser{Linux: user}, nil
}

// belongs makes sure that a process is in a cgroup of container id.
func (p procFS) belongs(pid int, id string) error {
	b, err := os.ReadFile(p.file(strconv.Itoa(pid), "cgroup"))
	if gone(err) || err == nil && (id == "" || !strings.Contains(string(b), id)) {
		return errEnded
	}
	return err
}

// parseUser reads the ids in a process's status: real, effective, saved and
// file system ids in this order.
func parseUser(text string) (*runtimeapi.LinuxContainerUser, error) {
	user, seen := &runtimeapi.LinuxContainerUser{}, 0
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(line, ":")
		ids, err := numbers(rest, key == "Uid" || key == "Gid" || key == "Groups")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		switch {
		case key == "Groups":
			user.SupplementalGroups = ids
		case key == "Uid" && len(ids) > 0:
			user.Uid, seen = ids[0], seen|1
		case key == "Gid" && len(ids) > 0:
			user.Gid, seen = ids[0], seen|2
		}
	}
	if seen != 3 {
		return nil, errors.New("its status names no ids")
	}
	return user, nil
}

// numbers reads ids, where they are wanted.
func numbers(text string, wanted bool) (ids []int64, err error) {
	if !wanted {
		return nil, nil
	}
	for field := range strings.FieldsSeq(text) {
		id, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			return nil, err
		}
		ids = append(ids, int64(id))
	}
	return ids, nil
}
