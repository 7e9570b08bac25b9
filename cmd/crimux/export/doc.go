// Package export is the event log as JSON lines: what crimux export writes,
// and what commands read again anywhere, without a daemon and without root.
//
// The first line is a [Header]. It has the state that the events before the
// first one amount to, so that an export that does not begin with the log's
// first event can be folded, too. Every other line is one event, as
// [view.Record] has it, which is what crimux events --json prints: an export
// without a header is one of the whole log.
//
// Exports can be put one behind the other: a header in the middle must fit
// what is before it, and events that were there already are passed over. So
// one that was interrupted is resumed by appending what comes after its last
// line's sequence number.
//
// Left out are the data of steps, which only the backend that wrote them
// understands, and in which a network's configuration is; they can be asked
// for. Nothing else that the state is made of is: the fold of an export is
// byte for byte that of the events.
package export

// Schema is what the header of an export says it is.
const Schema = "crimux.dev/export/v1"
