package sink

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
)

// position is the last event that has arrived; zero before the first.
type position struct {
	Seq uint64
	// Hash is the SHA-256 of the event's record, by which another log of as
	// many events is told.
	Hash [32]byte
}

// errOther says that a position is of another log.
var errOther = errors.New("the log does not have the event that was shipped last")

// check tells whether the position is of that log.
func (p position) check(log Log) error {
	if p.Seq == 0 {
		return nil
	}
	if p.Seq > log.Last() {
		return errOther
	}
	var found error
	err := log.Records(p.Seq, func(r store.Record) error {
		found = p.is(r)
		return errFull
	})
	if err != nil && !errors.Is(err, errFull) {
		return err
	}
	return found
}

// is tells whether the position is that of a record, as far as that can be
// said: events that were compacted away have none.
func (p position) is(r store.Record) error {
	e, err := r.Event()
	if err != nil {
		return err
	}
	if r.Seq != p.Seq || view.KindOf(e) == view.KindCompacted || p.Hash == hashOf(r) {
		return nil
	}
	return errOther
}

// cursorFile holds a position on disk.
type cursorFile struct{ path string }

// cursor is the content of the file.
type cursor struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"sha256"`
}

// load reads the position, which is zero where there is no file yet.
func (f cursorFile) load() (position, error) {
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return position{}, nil
	}
	if err != nil {
		return position{}, err
	}
	var c cursor
	if err := json.Unmarshal(b, &c); err != nil {
		return position{}, fmt.Errorf("%s: %w", f.path, err)
	}
	p := position{Seq: c.Seq}
	if n, err := hex.Decode(p.Hash[:], []byte(c.Hash)); err != nil || n != len(p.Hash) {
		return position{}, fmt.Errorf("%s: its hash is none", f.path)
	}
	return p, nil
}

// save puts the position on disk: whole, or not at all.
func (f cursorFile) save(p position) (err error) {
	b, err := json.Marshal(cursor{p.Seq, hex.EncodeToString(p.Hash[:])})
	if err != nil {
		return err
	}
	tmp := f.path + ".new"
	if err := writeSynced(tmp, append(b, '\n')); err != nil {
		return err
	}
	if err := os.Rename(tmp, f.path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeSynced(path string, b []byte) (err error) {
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Sync()
}
