package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"go.etcd.io/bbolt"

	"github.com/crimux/crimux/store/eventpb"
)

const (
	salvageSuffix = ".salvage"
	damagedSuffix = ".damaged-"
)

// OpenOrSalvage is Open for a daemon, which has to come up: a log that is
// damaged, gone, or not the one that was here is put aside under the name
// events.db.damaged-TIME. What of it is whole goes into a new file, a stub in
// place of what is lost, and a Salvaged event, which is returned, tells of it.
// The state is then what was last known: it is for the caller to look at what
// there is. Of the files that were put aside, DamagedKept stay, and fewer where
// there is no room for the new one.
//
// A record of before the newest snapshot that is damaged is found afterwards;
// then OnDamage is told, and the log mends itself in place in the same way.
//
// It fails where the log is locked or was written by a newer crimux, and where
// the file system does not do as it is asked.
func OpenOrSalvage(path string, o Options) (*Log, *eventpb.Salvaged, error) {
	o.defaults()
	o.heal = true
	l, err := Open(path, o)
	if err == nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, syscall.EIO) {
		return l, nil, err
	}
	told, serr := salvage(path, o, err)
	if noRoom(serr) && o.Ballast > 0 && os.Remove(path+ballastSuffix) == nil {
		told, serr = salvage(path, o, err)
	}
	if noRoom(serr) && dropDamaged(path, 0, "", o) > 0 {
		told, serr = salvage(path, o, err)
	}
	if serr != nil {
		return nil, nil, fmt.Errorf("salvage the event log: %w (%w)", serr, err)
	}
	dropDamaged(path, DamagedKept, told.GetFile(), o)
	l, err = Open(path, o)
	return l, told, err
}

// salvage puts a log that is whole in the place of the one at path.
func salvage(path string, o Options, cause error) (*eventpb.Salvaged, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = nil, nil
	}
	if err != nil && !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.ELOOP) {
		return nil, err
	}
	w := &wreck{}
	if f != nil {
		defer f.Close()
		if err := lock(f, syscall.LOCK_EX); err != nil {
			return nil, err
		}
		if w, err = scanWreck(f); err != nil {
			return nil, err
		}
	}
	m, marked, err := readMark(path)
	if err != nil {
		return nil, err
	}
	s := &salvager{wreck: w, options: o, state: NewState(), told: &eventpb.Salvaged{Cause: cause.Error()}}
	if marked {
		s.mark = &m
	}
	s.as = s.format()
	if s.to, err = newCopy(path+salvageSuffix, s.as); err != nil {
		return nil, err
	}
	if err := s.fill(path); err != nil {
		return nil, errors.Join(err, s.to.discard())
	}
	return s.told, s.replace(path)
}

// salvager builds a log out of what was found.
type salvager struct {
	*wreck
	mark    *mark
	options Options
	as      format
	to      *copied
	told    *eventpb.Salvaged

	chain Chain
	state *State
	base  Record // the snapshot that ended the last gap
	part  []Record
	size  int
}

// format is that of the log that was here, as far as it is known.
func (s *salvager) format() format {
	f := format{schema: Schema, born: s.options.Now().UnixNano()}
	switch {
	case s.wreck.format != nil:
		f = *s.wreck.format
	case s.mark != nil:
		f.id = s.mark.id
	default:
		_, _ = rand.Read(f.id[:]) // it never fails: crypto/rand ends the program instead
	}
	return f
}

// fill copies what is whole: the events from the first on, what can be gone on
// with after a gap, and the event that tells of it.
func (s *salvager) fill(path string) error {
	if err := s.run(); err != nil {
		return err
	}
	s.told.Kept = s.chain.Last()
	for {
		next, ok := s.bridge(s.chain.Last())
		if !ok || next.Last() <= s.chain.Last() {
			break
		}
		if err := s.lose(next.Last(), next.Head()); err != nil {
			return err
		}
		if err := s.run(); err != nil {
			return err
		}
	}
	if last, hash := s.known(); last > s.chain.Last() {
		if err := s.lose(last, hash); err != nil {
			return err
		}
	}
	if err := s.settle(); err != nil {
		return err
	}
	if exists(path) == nil {
		s.told.File = aside(path, s.options)
	}
	return s.finish()
}

// run copies the records that follow the chain, as far as it goes on.
func (s *salvager) run() error {
	for i := s.after(s.chain); ; i = s.records[i].next {
		if err := s.meet(); err != nil {
			return err
		}
		if i < 0 {
			return nil
		}
		r, err := s.read(s.records[i])
		if err != nil {
			return err
		}
		chain := s.chain
		e, err := chain.Next(r)
		if err == nil {
			err = s.state.Apply(e)
		}
		if err != nil {
			return nil // the page has changed since, or no log was ever so: it ends here
		}
		s.chain = chain
		if err := s.put(r); err != nil {
			return err
		}
	}
}

// meet takes up the snapshot at the end of the chain where the state is not
// known without it.
func (s *salvager) meet() error {
	if !s.state.Partial() {
		return nil
	}
	r, ok := s.snapshotAt(s.chain)
	if !ok {
		return nil
	}
	e, err := r.Event()
	if err != nil {
		return err
	}
	s.base = r
	return s.state.Apply(e)
}

// lose puts a stub in place of the records up to last.
func (s *salvager) lose(last uint64, hash [32]byte) error {
	first := s.chain.Last() + 1
	r, err := newStub(&eventpb.Compacted{First: first, Last: last, LastHash: slices.Clone(hash[:]), Lost: last - first + 1}, s.chain.Head())
	if err != nil {
		return err
	}
	e, err := s.chain.Next(r)
	if err != nil {
		return err
	}
	s.told.Lost = last
	if err := s.state.Apply(e); err != nil {
		return err
	}
	return s.put(r)
}

// known is the last record that is known to have been there, whether by the
// mark or by a page that is left of it.
func (s *salvager) known() (last uint64, hash [32]byte) {
	if h := s.highest(); h != nil {
		last, hash = h.last, h.hash
	}
	ours := s.wreck.format == nil || s.mark != nil && s.mark.id == s.wreck.format.id
	if s.mark != nil && ours && s.mark.seq >= last {
		last, hash = s.mark.seq, s.mark.hash
	}
	return last, hash
}

// settle makes sure that the state is known at the end: where no snapshot says
// it, it is what the events that are left amount to.
func (s *salvager) settle() error {
	if !s.state.Partial() {
		return nil
	}
	r, err := newSnapshot(s.state.Proto(), s.chain.Head())
	s.base, s.state.partial = r, false
	return err
}

func (s *salvager) put(r Record) error {
	s.part = append(s.part, r)
	if s.size += len(r.Value); s.size < copyBytes {
		return nil
	}
	return s.flush()
}

func (s *salvager) flush() error {
	err := s.to.put(s.part)
	s.part, s.size = nil, 0
	return err
}

// finish adds the event that tells of it all, and makes the new file durable.
func (s *salvager) finish() error {
	e := &eventpb.Event{Kind: &eventpb.Event_Salvaged{Salvaged: s.told}}
	b, err := encode(e)
	if err != nil {
		return err
	}
	seq := s.chain.Last() + 1
	r := newRecord(seq, s.chain.Head(), seal(e, b, seq, s.options.Now().UnixNano()))
	s.chain.push(r)
	if err := errors.Join(s.put(r), s.flush()); err != nil {
		return err
	}
	if s.base.Value != nil {
		err = s.to.db.Update(func(tx *bbolt.Tx) error {
			if err := tx.Bucket(bucketSnapshots).Put(seqKey(s.base.Seq), s.base.Value); err != nil {
				return err
			}
			return tx.Bucket(bucketMeta).Put(keyBase, seqKey(s.base.Seq))
		})
		if err != nil {
			return err
		}
	}
	if s.options.NoSync {
		return nil
	}
	return s.to.db.Sync()
}

// replace puts the damaged file aside and the new one in its place. A crash
// leaves either under the log's name.
func (s *salvager) replace(path string) error {
	if s.told.GetFile() != "" {
		err := os.Link(path, s.told.GetFile())
		if err != nil {
			// Where there are no hard links, or it is no file, there is a
			// moment in which there is no log; its mark tells of it.
			err = os.Rename(path, s.told.GetFile())
		}
		if err != nil {
			return errors.Join(err, s.to.discard())
		}
	}
	if err := os.Rename(s.to.path, path); err != nil {
		return errors.Join(err, s.to.discard())
	}
	m := mark{id: s.as.id, seq: s.chain.Last(), hash: s.chain.Head(), time: s.options.Now().UnixNano()}
	return errors.Join(syncDir(path), s.to.db.Close(), m.write(path, s.options.NoSync))
}
