package stats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Layer is the size of a container's writable layer.
type Layer struct {
	// Bytes are those that are allocated, Inodes the files of all kinds.
	Bytes, Inodes uint64
	// Device is where it lies, as MAJOR:MINOR.
	Device string
	// Measured is when.
	Measured time.Time
}

// folderMax is how deep folders are entered: each level holds a descriptor.
// What lies deeper is not counted.
const folderMax = 500

// namesAtOnce is how many entries of a folder are held in memory.
const namesAtOnce = 256

// walk adds up what lies below a folder.
type walk struct {
	ctx   context.Context
	pace  *pacer
	dev   uint64
	seen  map[uint64]struct{} // inodes that have more names
	layer Layer
}

// measure adds up what lies below dir. It enters no other file system, follows
// no link, and counts a file with several names once. A container goes on
// changing it meanwhile: what vanishes is left out.
func measure(ctx context.Context, dir string, pace *pacer) (Layer, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
	if err != nil {
		return Layer{}, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Layer{}, errors.Join(&os.PathError{Op: "stat", Path: dir, Err: err}, f.Close())
	}
	w := &walk{ctx: ctx, pace: pace, dev: st.Dev, seen: map[uint64]struct{}{}}
	w.layer.Device = Device(st.Dev)
	w.count(&st)
	if err := w.folder(f, 0); err != nil {
		return Layer{}, fmt.Errorf("measure %s: %w", dir, err)
	}
	w.layer.Measured = time.Now()
	return w.layer, nil
}

// folder adds the entries of a folder and closes it.
func (w *walk) folder(f *os.File, depth int) (err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		entries, err := f.Readdirnames(namesAtOnce)
		if errors.Is(err, io.EOF) || gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range entries {
			if err := w.entry(f, name, depth); err != nil {
				return err
			}
		}
		if err := w.pace.step(w.ctx); err != nil {
			return err
		}
	}
}

func (w *walk) entry(f *os.File, name string, depth int) error {
	var st unix.Stat_t
	parent := int(f.Fd())
	err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if gone(err) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Dev != w.dev {
		return nil
	}
	w.count(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || depth == folderMax {
		return nil
	}
	// By the folder's descriptor and not through links: nobody in the
	// container can lead this elsewhere.
	fd, err := retry(func() (int, error) {
		return unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
	if gone(err) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	return w.folder(os.NewFile(uintptr(fd), name), depth+1)
}

// blockSize is the unit of st_blocks, whatever the file system's is.
const blockSize = 512

func (w *walk) count(st *unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if _, ok := w.seen[st.Ino]; ok {
			return
		}
		w.seen[st.Ino] = struct{}{}
	}
	w.layer.Inodes++
	w.layer.Bytes += uint64(max(st.Blocks, 0)) * blockSize
}

// Device writes a device number as the kernel's files do.
func Device(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }
