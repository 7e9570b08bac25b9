package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// FileName is the name that the log has in the daemon's state directory.
const FileName = "events.db"

var (
	bucketMeta      = []byte("meta")
	bucketEvents    = []byte("events")
	bucketSnapshots = []byte("snapshots")
	keyFormat       = []byte("format")
	keyBase         = []byte("base")
)

// formatMagic tells a log from any other bbolt file.
const formatMagic = "crimuxev"

// birthSuffix marks a file that is not a log yet.
const birthSuffix = ".new"

// format is what the meta bucket says of the file.
type format struct {
	schema uint32
	id     [16]byte // of this log, random
	born   int64    // Unix nanoseconds
}

func (f format) encode() []byte {
	b := append([]byte(nil), formatMagic...)
	b = binary.BigEndian.AppendUint32(b, f.schema)
	b = append(b, f.id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(f.born))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeFormat reads a format of any schema: what a newer one appends lies
// between the fields known here and the checksum.
func decodeFormat(b []byte) (format, error) {
	const fields = len(formatMagic) + 4 + 16 + 8
	if len(b) < fields+crc32.Size || string(b[:len(formatMagic)]) != formatMagic {
		return format{}, fmt.Errorf("%w: it is no event log (its format record is missing or unknown)", ErrDamaged)
	}
	end := len(b) - crc32.Size
	if binary.BigEndian.Uint32(b[end:]) != crc32.Checksum(b[:end], castagnoli) {
		return format{}, fmt.Errorf("%w: the checksum of its format record does not match", ErrDamaged)
	}
	rest := b[len(formatMagic):]
	f := format{
		schema: binary.BigEndian.Uint32(rest),
		id:     [16]byte(rest[4:20]),
		born:   int64(binary.BigEndian.Uint64(rest[20:28])),
	}
	if f.schema > Schema {
		return f, fmt.Errorf("%w: its schema is %d, known is %d", ErrNewer, f.schema, Schema)
	}
	return f, nil
}

// create makes the log at path if there is nothing. It is built under another
// name and renamed when it is complete and on disk, so that a crash leaves
// either no log or an empty one, and never half of one. The lock on the
// directory keeps two processes from both seeing nothing and one of them
// writing to a file that the other has replaced.
func create(path string, now func() time.Time) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := lock(d, syscall.LOCK_EX); err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := path + birthSuffix
	// What a crash in here left behind holds nothing yet.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := initialize(tmp, now()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return d.Sync()
}

// syncDir makes the entries of the folder that path is in durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes a directory with its parents, and syncs each parent that got a
// new entry: a log in a directory that a crash takes away is lost as well.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	parent := filepath.Dir(dir)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return err
	}
	p, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join(p.Sync(), p.Close())
}

// initialize writes an empty log to path and syncs it: bbolt does in its
// commit.
func initialize(path string, now time.Time) error {
	f := format{schema: Schema, born: now.UnixNano()}
	_, _ = rand.Read(f.id[:]) // it never fails: crypto/rand ends the program instead
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockPatience})
	if err != nil {
		return err
	}
	return errors.Join(db.Update(f.begin), db.Close())
}

// begin makes an empty database a log without events.
func (f format) begin(tx *bbolt.Tx) error {
	meta, err := tx.CreateBucket(bucketMeta)
	if err != nil {
		return err
	}
	for _, name := range [][]byte{bucketEvents, bucketSnapshots} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return meta.Put(keyFormat, f.encode())
}

// file is a log's file while it is open.
type file struct {
	path string
	// swap is held for writing while the file is replaced by a smaller one.
	swap   sync.RWMutex
	f      *os.File
	db     *bbolt.DB
	format format

	// broken is set when a fault or panic interrupted bbolt at an unknown
	// place. It may hold its own locks since: whoever used it would wait for
	// ever.
	broken atomic.Pointer[faultError]
}

// openFile locks, checks and maps the file at path, which must exist. It
// returns *LockedError, ErrDamaged, ErrNewer, or the error of the system.
func openFile(path string, readOnly, noSync bool) (*file, error) {
	flags, how := os.O_RDWR, syscall.LOCK_EX
	if readOnly {
		flags, how = os.O_RDONLY, syscall.LOCK_SH
	}
	for {
		// Never a symlink or a FIFO that somebody put there.
		f, err := os.OpenFile(path, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		o := &file{path: path, f: f}
		err = lock(o.f, how)
		if err == nil && !sameFile(f, path) {
			// It was replaced by a smaller one while the lock was waited for.
			if err := o.close(); err != nil {
				return nil, err
			}
			continue
		}
		if err == nil {
			err = o.open(readOnly, noSync)
		}
		if err != nil {
			return nil, errors.Join(err, o.close())
		}
		return o, nil
	}
}

// sameFile tells whether path still names f.
func sameFile(f *os.File, path string) bool {
	opened, err := f.Stat()
	named, err2 := os.Lstat(path)
	return err == nil && err2 == nil && os.SameFile(opened, named)
}

// open checks and maps the file, which is locked.
func (o *file) open(readOnly, noSync bool) error {
	// Under the lock, or a commit in progress would look like damage.
	if err := checkPages(o.f); err != nil {
		return o.name(err)
	}
	err := o.use(func() (err error) {
		o.db, err = bbolt.Open(o.path, 0o600, &bbolt.Options{
			Timeout:      lockPatience,
			ReadOnly:     readOnly,
			NoSync:       noSync,
			FreelistType: bbolt.FreelistMapType,
			OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return o.f, nil },
		})
		return err
	})
	if err != nil {
		return err
	}
	return o.view(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil || tx.Bucket(bucketEvents) == nil {
			return fmt.Errorf("%w: it is no event log (a bucket is missing)", ErrDamaged)
		}
		o.format, err = decodeFormat(meta.Get(keyFormat))
		return err
	})
}

// use runs fn, which uses bbolt, and gives its errors the names that this
// package has for them, and the file's.
func (o *file) use(fn func() error) error {
	o.swap.RLock()
	defer o.swap.RUnlock()
	return o.guarded(fn)
}

// guarded is use for who holds swap.
func (o *file) guarded(fn func() error) error {
	if err := o.broken.Load(); err != nil {
		return o.name(err)
	}
	err := guard(fn)
	if fault, ok := errors.AsType[*faultError](err); ok {
		o.broken.Store(fault)
	}
	return o.name(boltError(err))
}

// view runs fn in a read transaction, which must be a short one.
func (o *file) view(fn func(*bbolt.Tx) error) error {
	return o.use(func() error { return o.db.View(fn) })
}

// sweepAside removes what a crash left of files that were to take this one's
// place.
func (o *file) sweepAside() error {
	for _, suffix := range []string{rewriteSuffix, salvageSuffix} {
		if err := os.Remove(o.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// update carries out a write transaction. It is for use within [file.use].
func (o *file) update(fn func(*bbolt.Tx) error) error { return o.db.Update(fn) }

// used is how many bytes of the file are in use, as of tx.
func used(tx *bbolt.Tx) int64 {
	stats := tx.DB().Stats()
	return tx.Size() - int64(stats.FreePageN+stats.PendingPageN)*int64(tx.DB().Info().PageSize)
}

// name puts the file's name before an error.
func (o *file) name(err error) error {
	if err == nil || errors.Is(err, ErrClosed) || errors.Is(err, errPageFull) {
		return err
	}
	return fmt.Errorf("%s: %w", filepath.Base(o.path), err)
}

// close unmaps, unlocks and closes the file. Where bbolt cannot be asked to,
// the file stays mapped if it was.
func (o *file) close() error {
	if o.db != nil && o.broken.Load() == nil {
		return o.db.Close()
	}
	// A map keeps the lock of a file that is closed. Where bbolt has closed
	// the file itself, there is nothing left to do.
	err := syscall.Flock(int(o.f.Fd()), syscall.LOCK_UN)
	if err = errors.Join(err, o.f.Close()); errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
