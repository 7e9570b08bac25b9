package store

import (
	"errors"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/crimux/crimux/store/eventpb"
)

// heal makes a log whole again of which an old record was found to be damaged
// while it was in use: a stub takes the record's place, and a Salvaged event
// tells of it. The state does not depend on that record, since there is a
// snapshot after it.
func (l *Log) heal(rep Report) error {
	if errors.Is(rep.Damage, ErrRefused) {
		// A snapshot is not what the events amount to: none is to be believed
		// at the next start.
		return l.dropSnapshots()
	}
	if err := l.mend(); err != nil {
		return err
	}
	// It is written behind, as all that nobody waits for.
	l.Append(&eventpb.Event{Kind: &eventpb.Event_Salvaged{Salvaged: &eventpb.Salvaged{
		Cause: rep.Damage.Error(), Kept: rep.Last, Lost: max(rep.Bad, rep.Last+1),
	}}})
	return nil
}

// mend puts stubs in place of all damaged records before the newest snapshot.
func (l *Log) mend() error {
	l.keeper.upkeep.Lock()
	defer l.keeper.upkeep.Unlock()
	var cut start
	err := l.file.view(func(tx *bbolt.Tx) (err error) {
		cut, err = newestStart(tx)
		return err
	})
	if err != nil || cut.chain.Last() == 0 {
		return err
	}
	if err := l.putBase(cut); err != nil {
		return err
	}
	return l.sweep(plan{all: true}, cut.chain.Last())
}

// dropSnapshots takes out all snapshots that the events can do without.
func (l *Log) dropSnapshots() error {
	l.keeper.upkeep.Lock()
	defer l.keeper.upkeep.Unlock()
	l.keeper.snapshotAt = 0
	return l.transact(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketSnapshots)
		if b == nil {
			return nil
		}
		base := string(tx.Bucket(bucketMeta).Get(keyBase))
		var keys [][]byte
		for k, _ := b.Cursor().First(); k != nil; k, _ = nextKey(b, k) {
			if string(k) != base {
				keys = append(keys, slices.Clone(k))
			}
		}
		for _, k := range keys {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}
