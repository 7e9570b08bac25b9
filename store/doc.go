// Package store is the event log of crimux: an append-only sequence of
// [eventpb.Event] in one bbolt file, and the [State] that is their fold.
//
// # Limits
//
// One process writes the file at a time, and while it does no other process
// can read it: those ask the daemon. The whole state is held in memory; the
// events are not. An event is at most 16 MiB. What the events take up is
// bounded by Options.MaxSize, and the file follows: it is written anew when
// more of it is free than in use, for which there must be room for a moment.
// Opening reads the structure of the whole file, which is bounded thereby, and
// of the records only those after the newest snapshot.
//
// # Snapshots and compaction
//
// A snapshot is a stored state. It is written every SnapshotEvery events and at
// the end, beside the work, in a transaction of its own. It stands in for the
// events only if its checksum is right, its hash is that of the event it comes
// after, and the fold that made it is the one of today; it is compared with the
// fold of the events after each start, and by [Verify].
//
// Compaction takes out events that are older than Retention, or that are too
// many for MaxSize, which comes first. There is a base: a snapshot from which on
// all events are there. The state since can be told exactly ([StateAt]); before
// it, it is ErrOutOfRange. Of the events before it the stories of the pods
// that were there at the base are kept, the oldest first to go where that is
// too much; of failed operations that are all the same the first is kept and
// the others are counted. A stub stands in place of what was taken out: it
// carries first, last, count and the hash of the last, so that sequence
// numbers and the chain of hashes go on across it.
//
// # Pressure
//
// [Log.Pressure] tells when nothing new should be begun: at three quarters of
// MaxSize, when the disk is nearly full, and after a commit that failed, until
// one succeeds, for which the log tries by itself. What ends something is to be
// appended all the same. When the disk is full, a ballast, a file that holds
// nothing but room, is given up, and made again when there is room.
//
// # Damage
//
// [OpenOrSalvage] opens all but a log that is locked or of a newer crimux. A
// damaged file is put aside as events.db.damaged-TIME, of which the newest
// DamagedKept stay; its pages are looked through, whatever its tree says of
// them, and what continues the chain from the first record on goes into a new
// file, with a stub for what is lost, what can be gone on with at a snapshot
// after that, and a Salvaged event. Beside
// the log lies events.db.mark, with the log's id and how far it had come: it is
// how a file that is gone, cut, or replaced by an older copy is told from a log
// that never was or never was longer. A record that is found to be damaged
// before the newest snapshot gets a stub in place.
//
// # Crash safety
//
// [Pending.Wait] returns without an error only after the events are on disk
// and folded into the published state. The events of one Append are contiguous
// and are committed together or not at all. A process or machine that stops at
// any moment loses no event that was waited for; of the others it keeps a
// prefix, in the order of their sequence numbers. State is published after the
// commit, never before: what a reader sees is on disk.
//
// A commit that fails consumes no sequence number and changes no state; its
// waiters get the error and the next commit is tried as if nothing had been:
// a full disk passes. After an error of the disk other than a full one the file
// is written anew before the next commit, since the kernel takes pages for
// clean that it failed to write. Where the failure was that of the last fdatasync of a
// commit, bbolt's new meta page may be in the page cache and reach the disk
// all the same. The log then takes the refused events out again in its next
// commit; if the machine stops before that, they may be found at the next
// start, as any event whose Append was not answered.
//
// # System assumptions
//
//   - fdatasync returns only when the data is durable, and reports an error
//     at least once to the file descriptor that wrote.
//   - A sector of 512 bytes is written whole or not at all: bbolt's meta pages
//     rely on it.
//   - Nobody else writes to the file while it is open. Damage from before is
//     found when the file is opened: its page structure is checked with plain
//     reads before bbolt maps it, so that a file cut short or with flipped
//     bits gives an error and not a fault; then every record is verified.
//     Damage that appears while the file is mapped is caught as a fault and
//     becomes an error where a record is read, and ends writing where it is
//     met in a commit.
//
// # File
//
//	events.db (bbolt, 0600)
//	├── meta                       what the file is
//	│   ├── "format" → magic(8) | schema(4) | log id(16) | born(8) | … | crc(4)
//	│   └── "base"   → seq(8) of the base, where events were taken out
//	├── events                     one record per event or stub
//	│   └── seq(8) → version(1) | crc(4) | previous(32) | Event (protobuf)
//	└── snapshots                  the base and the two newest
//	    └── seq(8) → a record, version 3
//
// Beside it: events.db.mark (see Damage), events.db.ballast, and while they are
// in the making, events.db.new, .rewrite and .salvage, which a start removes
// or writes over.
//
// Integers are big-endian. A crc is CRC-32C: that of a record covers its
// sequence number, version, previous and event; that of the format all before
// it. The version says what a record is: 1 an event; 2 a stub, whose key is
// the last event it stands for and whose Event is a Compacted; 3 a snapshot.
// previous is the hash of the record before, zero in the first: of an event
// the SHA-256 of its value, whole, of a stub the one that it carries. So the
// records form a chain in which none can be altered, left out or put in
// unnoticed. That of a snapshot is the hash of the record it comes after.
//
// Readers get stubs and snapshots in their places, as records: [Chain] and
// [State.Apply] know them. A record of another version and a file whose schema
// is above [Schema] were written by a newer crimux and give [ErrNewer]. The
// schema rises when a reader of the one before could no longer understand the
// file; buckets and keys may be added without that.
package store
