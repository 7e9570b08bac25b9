// Package proxy is the CRI front: the socket that the kubelet talks to, the
// routing of its calls, the merging of the backends' answers, the recording
// of operations, and recovery.
//
// Every call takes one path:
//
//	frame in → route → record → effect → record → frame out
//
// [Server.handle] receives the frame of any method. The method's class says
// how its backend is found (route*.go); calls that name no single backend are
// asked of all and merged (merge.go). A method that changes something is an
// operation (operation.go): its intent is on disk before the backend hears of
// it and its outcome before the kubelet does. What crimux did not cause is
// observed off the request path (observe.go), and what a crash left open is
// finished or undone before the backend is given anything new (recover.go).
//
// Nothing is decoded that need not be: routing keys are read, and
// runtime_handler is rewritten, on the serialized message (package wire).
package proxy
