// Package streaming carries exec, attach and port-forward of containers that
// Docker Engine runs, and runs ExecSync.
//
// Exec, Attach and PortForward of the CRI only ask for a URL; the kubelet then
// connects to it. [Server] gives out absolute http URLs on a loopback address.
// Each holds a token of 128 random bits that is good for one connection within
// a minute, so that another user of the node can neither guess nor reuse one.
// The SPDY and WebSocket protocols come with k8s.io/cri-streaming.
//
// # What ends with what
//
// A session ends when its client goes away, when the command or the container
// ends, or with the server: the connection to the Engine is closed, and with
// it the command's standard input. A command on a terminal gets a hangup, as
// from a terminal that is closed. A command without either goes on to its end,
// as it does under other runtimes.
//
// ExecSync leaves nothing behind: when it runs out of time, or its caller goes
// away, the command and its descendants are killed before it returns.
package streaming
