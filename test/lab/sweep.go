package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// unowned is how long a folder may lack its owner file before it counts as stale: labs are being made, too.
const unowned = time.Minute

// Sweep removes labs whose owner is dead, with their processes, mounts, links and rules, and says so on w. It
// leaves alone living labs and folders that CRIMUX_LAB_KEEP kept.
func Sweep(ctx context.Context, w io.Writer) error {
	// Two that sweep the same lab would trip over each other.
	unlock, err := lockCache()
	if err != nil {
		return err
	}
	defer unlock()
	dirs, err := filepath.Glob(filepath.Join(labRoot, basePrefix+"[0-9]*"))
	if err != nil {
		return fmt.Errorf("look for stale labs: %w", err)
	}
	var errs []error
	for _, d := range dirs {
		s := siteAt(d)
		stale, err := s.stale()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !stale {
			continue
		}
		fmt.Fprintf(w, "lab: removing %s, whose owner is dead\n", d)
		_, err = s.clear(ctx)
		errs = append(errs, err, s.remove(false))
	}
	return errors.Join(errs...)
}

// stale tells whether the process that made the folder is dead.
func (s site) stale() (bool, error) {
	if _, err := os.Lstat(s.path(keptFile)); err == nil {
		return false, nil
	}
	b, err := os.ReadFile(s.path("owner"))
	if errors.Is(err, os.ErrNotExist) {
		st, err := os.Stat(s.dir)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil && time.Since(st.ModTime()) > unowned, err
	}
	if err != nil {
		return false, fmt.Errorf("read who owns %s: %w", s.dir, err)
	}
	f := strings.Fields(string(b))
	if len(f) != 2 {
		return time.Since(modTime(s.path("owner"))) > unowned, nil
	}
	pid, err := strconv.Atoi(f[0])
	if err != nil {
		return false, fmt.Errorf("read who owns %s: %w; remove the folder by hand", s.dir, err)
	}
	start, err := ownerStart(pid)
	return err != nil || start != f[1], nil
}

func modTime(path string) time.Time {
	st, err := os.Stat(path)
	if err != nil {
		return time.Now()
	}
	return st.ModTime()
}
