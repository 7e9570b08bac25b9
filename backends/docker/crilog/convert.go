package crilog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Linked returns the link to the Engine's log that cri-dockerd has left for a
// container: the target itself or, where the kubelet has just renamed that,
// its newest rotated sibling. ok is false if there is none: then the log is in
// the CRI's format, or it is not there yet. There is no state beside the files.
func Linked(target string) (link string, ok bool, err error) {
	st, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		link, err = newestSibling(target)
		if link == "" || err != nil {
			return "", false, err
		}
		st, err = os.Lstat(link)
	} else {
		link = target
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("look at the log: %w", err)
	}
	return link, st.Mode().Type() == fs.ModeSymlink, nil
}

// newestSibling returns the path that the kubelet renamed a log to last, ""
// for none.
func newestSibling(target string) (string, error) {
	entries, err := os.ReadDir(filepath.Dir(target))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("rotated logs: %w", err)
	}
	newest := ""
	for _, e := range entries { // by name, and so by time
		if suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(target)+"."); ok && isKubeletTime(suffix) {
			newest = filepath.Join(filepath.Dir(target), e.Name())
		}
	}
	return newest, nil
}

// Convert puts a file in the CRI's format in the place of the link that
// [Linked] finds, with all that the Engine still has up to now. Without a link
// it does nothing. [Manager.Follow] then goes on where that file ends, as it
// does behind any rotated log, so no line is lost or doubled.
//
// The file is made beside the link and changes places with it in one step.
// Whenever crimux is killed, or ctx ends, there is either the link still, and
// the next call goes on with the file as far as it came, or the file. Calls for
// one container must not overlap, nor go on while it is followed.
func (m *Manager) Convert(ctx context.Context, f File) error {
	link, ok, err := Linked(f.Target)
	if err != nil {
		return err
	}
	made := unfinished(f.Target)
	// One that was killed may have left the link in the file's place.
	if err := dropLink(made); err != nil || !ok {
		return err
	}
	if err := m.copyAll(ctx, File{ContainerID: f.ContainerID, Source: f.Source, Target: made}); err != nil {
		return fmt.Errorf("convert the log %s: %w", link, err)
	}
	if err := exchange(made, link); err != nil {
		return fmt.Errorf("convert the log %s: %w", link, err)
	}
	return dropLink(made)
}

// RemoveLink removes what another shim, or an interrupted [Manager.Convert],
// has left of a container's log. A file in the CRI's format is the kubelet's,
// and stays. Where there is nothing to remove, it only looks: a disk that
// cannot be written to then holds nobody up.
func RemoveLink(target string) error {
	made := unfinished(target)
	_, err := os.Lstat(made)
	if err == nil {
		err = os.Remove(made)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the link to the log: %w", err)
	}
	return dropLink(target)
}

// unfinished is where a converted log is made. No reader takes the name for a
// log, and the kubelet not for a rotated one.
func unfinished(target string) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".crimux")
}

// dropLink removes a path if it is a symbolic link.
func dropLink(path string) error {
	st, err := os.Lstat(path)
	if err == nil && st.Mode().Type() == fs.ModeSymlink {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the link to the log: %w", err)
	}
	return nil
}

// copyAll copies what is in the source now, and has it on the disk. A container
// may write faster than it lasts, so what comes meanwhile is left.
func (m *Manager) copyAll(ctx context.Context, f File) (err error) {
	end, size, err := sourceEnd(f.Source)
	if err != nil {
		return err
	}
	c := copier{file: f, size: chunk, onGap: func(g Gap) { m.o.OnGap(f.ContainerID, g) }}
	defer func() { err = errors.Join(err, c.close()) }()
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if more, err = c.batch(); err != nil {
			return err
		}
		if c.cur != nil && c.cur.id == end && c.in.off >= size && len(c.out) == c.sent {
			break
		}
	}
	if err := c.target.Sync(); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// sourceEnd is where a source ends now.
func sourceEnd(source string) (fileID, int64, error) {
	all, err := survey(source)
	if err != nil || len(all) == 0 {
		return fileID{}, 0, err
	}
	last := all[len(all)-1]
	defer closeAll(all)
	return last.id, last.size, nil
}

// exchange lets two files change places, and has that on the disk. A plain
// rename would make a log anew that the kubelet has just taken back or removed;
// where the file system knows no other, it must do.
func exchange(made, link string) error {
	err := unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = os.Rename(made, link)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(link))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
