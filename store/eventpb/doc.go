// Package eventpb holds the records of the event log, generated from
// event.proto, which documents them.
package eventpb

//go:generate go run ./protogen ../.. store/eventpb/event.proto
