// Package stats reads what containers and pods use: CPU, memory, swap, I/O,
// processes and pressure from their cgroups (v1, v2, and v1 with a v2 tree
// beside it), the network's counters from /proc, and the size of writable
// layers from the disk.
//
// A [Reader] is asked in passes. A [Pass] opens few files for each container,
// starts no process and no goroutine, and asks nobody, so that the whole node
// is read in a few milliseconds. What ends while it is being read is answered
// with [ErrGone]; what the kernel does not tell is nil, not 0.
//
// Sizes on disk cannot be had that cheaply. A [Measurer] walks the layers in
// the background, for a small part of the time, and remembers what it found.
package stats
