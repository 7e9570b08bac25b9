// Package store is the event log of crimux: an append-only sequence of
// [eventpb.Event] in one bbolt file, and the [State] that is their fold.
//
// # Limits
//
// One process writes the file at a time, and while it does no other process
// can read it: those ask the daemon. The whole state is held in memory; the
// events are not. An event is at most 16 MiB. Nothing is ever taken out of the
// file yet, so that it grows with history, and opening it reads all of it.
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
// a full disk passes. Where the failure was that of the last fdatasync of a
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
//	│   └── "format" → magic(8) | schema(4) | log id(16) | born(8) | … | crc(4)
//	└── events                     one record per event, without gaps from 1
//	    └── seq(8) → version(1) | crc(4) | previous(32) | Event (protobuf)
//
// Integers are big-endian. A crc is CRC-32C: that of a record covers its
// sequence number, version, previous and event; that of the format all before
// it. previous is the SHA-256 of the value before, whole, and zero in the
// first, so that the records form a chain in which none can be altered, left
// out or put in unnoticed.
//
// A record whose version is not 1 and a file whose schema is above [Schema]
// were written by a newer crimux and give [ErrNewer]. The schema rises when a
// reader of the one before could no longer understand the file; buckets and
// keys may be added without that. Records of other versions (stubs in place
// of compacted ones) and a bucket for snapshots are such additions to come.
package store
