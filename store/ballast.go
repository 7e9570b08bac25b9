package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ballastSuffix names a file that holds nothing but room: when the disk is
// full, it is given up, so that what ends something can still be recorded.
const ballastSuffix = ".ballast"

// DefaultBallast is the size that Options.Ballast should have on a node: some
// thousand events.
const DefaultBallast = 8 << 20

var errLittleRoom = errors.New("little room is left")

// keepBallast makes the ballast where it is missing, and tells why there is not
// both it and as much room besides.
func (l *Log) keepBallast() error {
	free, err := freeBytes(filepath.Dir(l.file.path))
	if err != nil {
		return err
	}
	name, size := l.file.path+ballastSuffix, l.opts.Ballast
	info, err := os.Lstat(name)
	switch {
	case err == nil && info.Size() == size:
		if free < size {
			return fmt.Errorf("%w: %d MiB", errLittleRoom, free>>20)
		}
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case free < 2*size:
		return fmt.Errorf("%w: %d MiB", errLittleRoom, free>>20)
	}
	return makeBallast(name, size)
}

// makeBallast makes a file whose blocks are allocated.
func makeBallast(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		// A file system that cannot promise room has its blocks written.
		err = fill0(f, size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

func fill0(f *os.File, size int64) error {
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := f.Write(zeros[:min(int64(len(zeros)), size-at)]); err != nil {
			return err
		}
	}
	return f.Sync()
}

// dropBallast gives the ballast's room up. It returns false where there was
// none.
func (l *Log) dropBallast() bool {
	return l.opts.Ballast > 0 && os.Remove(l.file.path+ballastSuffix) == nil
}

func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}
