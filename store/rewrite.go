package store

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"syscall"

	"go.etcd.io/bbolt"
)

// rewriteSuffix names the file that will take the log's place.
const rewriteSuffix = ".rewrite"

const (
	copyBytes = 4 << 20 // of one transaction
	copyRest  = 2000    // events that are left for the time when nobody appends
	copyTries = 10      // until then, however many come meanwhile
)

// renew makes the file anew when a commit failed with an error of the disk:
// after a failed fdatasync the kernel takes pages for clean that are not on
// disk, and the next fdatasync would succeed without having written them.
func (l *Log) renew() error {
	l.keeper.upkeep.Lock()
	defer l.keeper.upkeep.Unlock()
	return l.renewLocked()
}

func (l *Log) renewLocked() error {
	if !l.suspect.Load() {
		return nil
	}
	if err := l.rewriteLocked(); err != nil {
		return fmt.Errorf("write the log anew after an error of the disk: %w", err)
	}
	l.suspect.Store(false)
	return nil
}

// rewriteLocked copies the log to a new file, which has no free pages, and puts
// it in the place of the old one. Appends go on meanwhile, but for the last of
// it. A crash leaves the old file or the new one, both whole. keeper.upkeep is
// held.
func (l *Log) rewriteLocked() error {
	c, err := newCopy(l.file.path+rewriteSuffix, l.file.format)
	if err != nil {
		return err
	}
	if err := l.copyTo(c); err != nil {
		return errors.Join(err, c.discard())
	}
	return nil
}

func (l *Log) copyTo(c *copied) error {
	for range copyTries {
		before := c.last
		err := c.more(l.file.view, math.MaxUint64)
		if err != nil {
			return err
		}
		if c.last-before < copyRest {
			break
		}
	}
	if !l.opts.NoSync {
		if err := c.db.Sync(); err != nil {
			return err
		}
	}
	l.file.swap.Lock()
	defer l.file.swap.Unlock()
	return l.finishCopy(c)
}

// finishCopy copies the rest while nobody uses the file, and changes files.
func (l *Log) finishCopy(c *copied) error {
	o := l.file
	view := func(fn func(*bbolt.Tx) error) error { return o.guarded(func() error { return o.db.View(fn) }) }
	to := uint64(math.MaxUint64)
	if l.failed {
		// What is above was refused. Nothing that was not is unpublished: the
		// commit that failed is the last one.
		to = l.Last()
	}
	err := c.dropAfter(to)
	if err == nil {
		err = c.more(view, to)
	}
	if err == nil {
		err = c.snapshots(view)
	}
	if err == nil && !l.opts.NoSync {
		err = c.db.Sync()
	}
	if err == nil {
		err = os.Rename(c.path, o.path)
	}
	if err != nil {
		return err
	}
	old := file{path: o.path, f: o.f, db: o.db}
	o.f, o.db = c.f, c.db
	o.db.NoSync, o.db.NoGrowSync = l.opts.NoSync, false
	l.failed = false
	// The old file has no name any more: what closing it says matters no more
	// than it does.
	_ = old.close()
	if !l.opts.NoSync {
		return syncDir(o.path)
	}
	return nil
}

// copied is a copy of a log in the making.
type copied struct {
	path string
	f    *os.File
	db   *bbolt.DB
	last uint64 // copied up to here
}

// newCopy makes a log without events at path. It is locked, as it will be when
// it takes the place of another.
func newCopy(path string, as format) (*copied, error) {
	// What a crash left behind was not the log yet.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	c := &copied{path: path, f: f}
	if err := lock(f, syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, c.discard())
	}
	c.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockPatience, NoSync: true, NoGrowSync: true, FreelistType: bbolt.FreelistMapType,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	})
	if err == nil {
		err = c.db.Update(as.begin)
	}
	if err != nil {
		return nil, errors.Join(err, c.discard())
	}
	return c, nil
}

func (c *copied) discard() error {
	var err error
	if c.db != nil {
		err = c.db.Close()
	} else {
		err = c.f.Close()
	}
	return errors.Join(err, os.Remove(c.path))
}

// more copies the events up to to that are not copied yet.
func (c *copied) more(view func(func(*bbolt.Tx) error) error, to uint64) error {
	for {
		var part []Record
		size := 0
		err := view(func(tx *bbolt.Tx) error {
			if c.last == math.MaxUint64 {
				return nil
			}
			return scanEvents(tx, c.last+1, to, func(r Record) error {
				part = append(part, Record{Seq: r.Seq, Value: slices.Clone(r.Value)})
				if size += len(r.Value); size >= copyBytes {
					return errPageFull
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, errPageFull) {
			return err
		}
		if len(part) == 0 {
			return nil
		}
		if err := c.put(part); err != nil {
			return err
		}
	}
}

func (c *copied) put(part []Record) error {
	err := c.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketEvents)
		b.FillPercent = 1
		for _, r := range part {
			if err := b.Put(seqKey(r.Seq), r.Value); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && len(part) > 0 {
		c.last = part[len(part)-1].Seq
	}
	return err
}

// dropAfter takes out what was copied above last.
func (c *copied) dropAfter(last uint64) error {
	if c.last <= last {
		return nil
	}
	c.last = last
	return c.db.Update(func(tx *bbolt.Tx) error { return dropAfter(tx.Bucket(bucketEvents), last) })
}

// snapshots copies the snapshots, and which of them is the base.
func (c *copied) snapshots(view func(func(*bbolt.Tx) error) error) error {
	var all []Record
	var base []byte
	err := view(func(tx *bbolt.Tx) error {
		base = slices.Clone(tx.Bucket(bucketMeta).Get(keyBase))
		b := tx.Bucket(bucketSnapshots)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			seq, err := keySeq(k)
			all = append(all, Record{Seq: seq, Value: slices.Clone(v)})
			return err
		})
	})
	if err != nil {
		return err
	}
	return c.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketSnapshots)
		for _, r := range all {
			if err := b.Put(seqKey(r.Seq), r.Value); err != nil {
				return err
			}
		}
		if base == nil {
			return nil
		}
		return tx.Bucket(bucketMeta).Put(keyBase, base)
	})
}
