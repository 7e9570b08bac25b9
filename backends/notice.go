package backends

// Notice is something that a backend has met on its own and that no caller
// could be told.
type Notice struct {
	// Name says what it is: NoticeLogGap.
	Name string
	// The objects concerned; either may be empty.
	SandboxID, ContainerID string
	// Message is the particulars, in words. No secrets: it is written to the
	// log as it is.
	Message string
	// Count is how often it was met since the last notice of this object.
	Count uint64
}

// NoticeLogGap is a hole in a container's log: the runtime rotated records
// away before they were copied.
const NoticeLogGap = "log.gap"

// Noticer is a backend that has notices to give. OnNotice sets who is told; it
// is called before anything else. tell must not block, and may be called
// concurrently.
type Noticer interface {
	OnNotice(tell func(Notice))
}
