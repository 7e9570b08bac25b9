package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// DirCRIDockerd is where cri-dockerd keeps checkpoints, and DirDockershim
	// where dockershim did.
	DirCRIDockerd = "/var/lib/cri-dockerd/sandbox"
	DirDockershim = "/var/lib/dockershim/sandbox"

	// maxSize bounds what is read of a file: a pod has no more ports than fit.
	maxSize = 16 << 20
)

// Store is the checkpoints of a node. Its methods may be called concurrently.
type Store struct{ dirs []string }

// New returns a store that writes to the first folder and reads from all of
// them. They need not exist. Without folders it is cri-dockerd's, and then
// dockershim's.
func New(dirs ...string) (*Store, error) {
	if len(dirs) == 0 {
		dirs = []string{DirCRIDockerd, DirDockershim}
	}
	for _, d := range dirs {
		if !filepath.IsAbs(d) {
			return nil, fmt.Errorf("sandbox checkpoints: %q is not an absolute path", d)
		}
	}
	return &Store{dirs: dirs}, nil
}

// Write keeps a checkpoint under the sandbox's id. It is there whole and on
// disk, or not at all.
func (s *Store) Write(id string, c Checkpoint) error {
	if err := checkID(id); err != nil {
		return err
	}
	b, err := c.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dirs[0], 0o755); err != nil {
		return fmt.Errorf("sandbox checkpoint: %w", err)
	}
	if err := writeFile(filepath.Join(s.dirs[0], id), b); err != nil {
		return fmt.Errorf("sandbox checkpoint: %w", err)
	}
	return nil
}

// writeFile replaces a file as a whole. What a crash leaves begins with a dot,
// which is no sandbox to any reader, and the next attempt replaces it.
func writeFile(path string, b []byte) (err error) {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes names durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Read returns the checkpoint of a sandbox; ok is false if there is none. A
// damaged one is left where it is, and the error names it.
func (s *Store) Read(id string) (c Checkpoint, ok bool, err error) {
	if err := checkID(id); err != nil {
		return Checkpoint{}, false, err
	}
	for _, dir := range s.dirs {
		path := filepath.Join(dir, id)
		b, err := readFile(path)
		if absent(err) {
			continue
		}
		if err != nil {
			return Checkpoint{}, false, fmt.Errorf("sandbox checkpoint: %w", err)
		}
		if c, err = Parse(b); err != nil {
			return Checkpoint{}, false, fmt.Errorf("%s: %w", path, err)
		}
		return c, true, nil
	}
	return Checkpoint{}, false, nil
}

// readFile reads a regular file up to a bound.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(b) > maxSize {
		err = fmt.Errorf("%s: %w: it is larger than %d bytes", path, ErrDamaged, maxSize)
	}
	return b, errors.Join(err, f.Close())
}

// Remove drops the checkpoint of a sandbox, from all folders. That there is
// none is as good.
func (s *Store) Remove(id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	for _, dir := range s.dirs {
		for _, name := range []string{id, "." + id} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !absent(err) {
				return fmt.Errorf("sandbox checkpoint: %w", err)
			}
		}
	}
	return nil
}

// absent reports whether there is no such file, nor can be.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// checkID refuses what is not the name of a file of ours.
func checkID(id string) error {
	if id == "" || strings.Trim(id, "0123456789abcdef") != "" {
		return fmt.Errorf("sandbox checkpoint: %q is no id", id)
	}
	return nil
}
