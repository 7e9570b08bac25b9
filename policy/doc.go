// Package policy holds what the operator wrote down and what follows from it:
// the configuration, and the pure function from (pod, state, configuration) to
// the backend a new pod sandbox goes to, with the reason.
//
// # Configuration
//
// [Load] and [Parse] read one strict YAML document. Strict means that whatever
// the reader does not understand is an error and never a guess: an unknown or
// repeated key, a value of the wrong type, an alias, a second document. All
// problems of a file are reported together in one [*InvalidError], each with
// file, line and dotted key, and each saying what to do. A [*Config] that Parse
// returned is complete (defaults are filled in) and consistent (every backend
// that is named exists, every address can be used); nobody needs to check it
// again. It is never changed afterwards and safe for concurrent use.
//
// # Decision
//
// [Decide] answers where a new sandbox of a pod goes. It reads no clock, no
// file and no random number: the same pod, [View] and Config give the same
// [Route], on every node and in every replay of the log.
//
//   - A pod with a runtime handler goes where the first matching route says.
//     It is never migrated.
//   - A pod without one goes to the default, except that it stays where
//     something of it still runs, and that a migration sends the share of pods
//     whose [Bucket] is below its percentage to its target.
//   - During a migration a pod is decided once per epoch, which is the number
//     of the newest migration decision: so every step, forward or back, is
//     looked at again at the pod's next sandbox, and no sooner.
//
// The package imports nothing else of crimux; what it needs to know of the
// state it asks through View.
package policy
