package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DamagedKept is how many damaged files are kept beside the log: the newest,
// the one that was put aside last among them. Each may be as large as the log,
// and a disk that spoils one file is likely to spoil the next.
const DamagedKept = 3

// damagedTime is how the names of damaged files tell when they were put aside.
const damagedTime = "20060102T150405Z"

// damagedFile is a file that was put aside.
type damagedFile struct {
	path string
	at   time.Time
	nth  int // of several that were put aside within a second
}

// aside is a name that nothing has yet, and that is newer than those that were
// given within the same second.
func aside(path string, o Options) string {
	at, nth := o.Now().UTC().Truncate(time.Second), 1
	// Where the folder cannot be listed it is enough that the name is free.
	all, _ := damagedFiles(path)
	for _, f := range all {
		if f.at.Equal(at) {
			nth = max(nth, f.nth+1)
		}
	}
	for ; ; nth++ {
		name := damagedName(path, at, nth)
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name
		}
	}
}

func damagedName(path string, at time.Time, nth int) string {
	name := path + damagedSuffix + at.Format(damagedTime)
	if nth > 1 {
		name += "-" + strconv.Itoa(nth)
	}
	return name
}

// dropDamaged removes damaged files until keep are left, the oldest first and
// made, which is the newest whatever its name says, never. It returns how many
// it has removed.
func dropDamaged(path string, keep int, made string, o Options) int {
	all, err := damagedFiles(path)
	if err != nil {
		o.OnFailure(fmt.Errorf("look for damaged files to remove: %w", err))
		return 0
	}
	slices.SortFunc(all, func(a, b damagedFile) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.nth, b.nth))
	})
	before := len(all)
	all = slices.DeleteFunc(all, func(f damagedFile) bool { return f.path == made })
	if len(all) < before {
		keep--
	}
	dropped := 0
	for _, f := range all[:max(0, len(all)-keep)] {
		if err := os.Remove(f.path); err != nil {
			o.OnFailure(fmt.Errorf("remove a damaged file: %w", err))
			continue
		}
		dropped++
		o.OnDropped(f.path)
	}
	return dropped
}

// damagedFiles are the files that were put aside. Folders that were found in
// the log's place, and files that somebody gave another name, are not touched.
func damagedFiles(path string) ([]damagedFile, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var all []damagedFile
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+damagedSuffix)
		if !ok || e.IsDir() {
			continue
		}
		at, nth, err := parseDamaged(name)
		if err == nil {
			all = append(all, damagedFile{filepath.Join(filepath.Dir(path), e.Name()), at, nth})
		}
	}
	return all, nil
}

// parseDamaged reads the end of a name that aside gave.
func parseDamaged(name string) (at time.Time, nth int, err error) {
	clock, number, several := strings.Cut(name, "-")
	if at, err = time.Parse(damagedTime, clock); err != nil || !several {
		return at, 1, err
	}
	if nth, err = strconv.Atoi(number); err == nil && (nth < 2 || strconv.Itoa(nth) != number) {
		err = errors.New("it is not a number that a name was given")
	}
	return at, nth, err
}
