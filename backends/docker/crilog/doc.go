// Package crilog writes a container's log in the format of the CRI, from the
// json-file log that Docker Engine writes.
//
// # Position
//
// There is no state beside the two logs. Where to go on after a crash is read
// from the target itself: its last records are found again in the source. A
// record's timestamp is copied byte for byte, so it names its place; where
// several records have one timestamp, the whole run of them, and the record
// before, are compared. So no line is lost and none is doubled, whenever
// crimux is killed: a last line that was half written is cut off first and
// written again. When the kubelet has just rotated the target, its newest
// rotated sibling (0.log.20060102-150405) takes its place. When it takes that
// back, over the new target, copying goes on where the old one ends.
//
// # Cost
//
// A quiet source is watched, and looked at when it changes. The Engine writes
// record by record, and the kernel tells of each: so a busy source is looked at
// a hundred times a second instead, and not watched until it is calm again.
//
// # Limits
//
// When the Engine rotates a source away before it was read, the records are
// lost: that is a [Gap], told and counted, never silent. It is told too when
// it only cannot be ruled out. Rotated sources that the Engine compressed are
// not read. After a power failure the target may end earlier than it did; what
// the source still holds is written again, what it lost as well is not there.
// When something else than the kubelet renamed the target, under a name of
// another form, and crimux is killed before the new one has a line, the log
// begins anew with the oldest record that the Engine still has.
// A target that is a symbolic link, as cri-dockerd leaves it, is refused:
// [Manager.Convert] puts a log in its place first.
package crilog
