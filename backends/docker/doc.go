// Package docker is the Docker Engine as a CRI backend. Requests are
// translated to the Engine API (1.41 and up, negotiated upwards) inside the
// process: there is no second socket and no shim.
//
// # What is made, and what it is called
//
// Names and labels are those of dockershim and cri-dockerd, so that their pods
// can be taken over running and a node can go back to them (names.go,
// labels.go). Labels of our own begin with crimux.dev/; of these the
// operation's id, crimux.dev/op, is what recovery finds things by.
//
// # Crash safety
//
// A creation is carried out under an operation. Until it has ended, what it
// made is not listed; if it fails it is undone in reverse, and what cannot be
// undone stays listed as not ready until the kubelet stops and removes it
// (sandbox_run.go). After a crash [Backend.Recover] undoes what was being
// created and goes on with what was being stopped or removed (recover.go).
//
// A CNI ADD is the only effect that neither the log's intent nor a label could
// reveal afterwards: so its plan is on disk before it begins.
//
// # What is not carried over
//
// A request field is translated, refused with its name, or harmless. The
// translators (translate_*.go) are pure functions of the request and of the
// Engine's [facts], and refuse before anything has been done.
package docker
