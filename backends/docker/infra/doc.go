// Package infra is the pod infra image that is built into crimux: what a pod's
// namespaces hang on when the configured pause image is neither on the node
// nor to be had from a registry (an air-gapped node, a registry that is down).
//
// The image holds one file, /pause, and that file holds one loop: it waits
// for a signal, reaps the children that died, and ends on SIGTERM or SIGINT.
// It needs no C library and no kernel newer than 2.6. We assemble it ourselves
// (code.go holds the machine code with its listing,
// elf.go the file around it), so that no binary blob lies in the sources and
// the image is the same bytes wherever it is built.
//
// The package imports nothing of crimux.
package infra
