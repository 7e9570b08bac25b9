// Package backends says what a backend is: a runtime that pods run on, spoken
// to in serialized CRI messages ([Frame]). A remote runtime answers them over
// its socket (package cri); Docker's are answered in-process (package docker).
// So routing, recording and merging see one kind of thing.
//
// What only some backends can do is a small interface of its own ([Bounder],
// [Recoverer], [Runner]), found by type assertion.
//
// A [Set] holds the backends of a node in the order of the configuration,
// each with its health: a [Member].
package backends
