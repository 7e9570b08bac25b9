package crilog

import "time"

// File is the log of one container: where the Engine writes it and where the
// kubelet reads it. Both paths are absolute and already checked by the caller.
type File struct {
	// ContainerID is the Engine's id of the container.
	ContainerID string
	// Source is the Engine's json-file log, LogPath of the container.
	// Its rotated siblings are Source.1, Source.2 and so on, the newest first.
	Source string
	// Target is the log in CRI format.
	Target string
	// Running is false for a container that has already ended: its source is
	// drained once and no longer watched for growth.
	Running bool
}

// Options make a [Manager]. The zero value is usable.
type Options struct {
	// Poll is how often every source is looked at even though no file event
	// came; 0 is 10 s. It covers lost inotify events.
	Poll time.Duration
	// OnGap is told of records that are lost: the Engine rotated them away
	// before they were copied. It is called from the container's goroutine and
	// must not call back into the Manager.
	OnGap func(containerID string, g Gap)
	// OnError is told of an error the first time it is met, and once more with
	// nil when the container's log is copied again. Meanwhile the work is
	// retried with growing pauses. Same rule as OnGap.
	OnError func(containerID string, err error)
}

// Gap is a hole in a container's CRI log.
type Gap struct {
	// After is the timestamp of the last record before the hole; zero if
	// nothing came before it.
	After time.Time
	// Before is the timestamp of the first record behind the hole.
	Before time.Time
}
