// Package lab brings up real container engines for tests, demos and benchmarks, and takes them down again.
//
// A lab is a folder /tmp/cl-N that holds everything its engines write: a dockerd, a containerd with its CRI
// plugin, an OCI registry with a few small images, and a CNI network with a bridge, a subnet and an address
// pool of its own. Nothing is shared with engines that the machine may run already, and two labs can be up at
// the same time. [Lab.Stop] reports what the engines' users left behind, so a test that forgets a pod fails.
//
// The package needs root and Debian (or a relative of it): [EnsureHost] installs from packages what is missing.
package lab

import "io"

// Layout says which containerd dockerd stands on.
type Layout int

const (
	// OwnContainerd lets dockerd start and supervise a containerd of its own.
	OwnContainerd Layout = iota
	// SharedContainerd points dockerd at the containerd that also serves the CRI, as most packages do.
	SharedContainerd
)

// String names the layout as the lab command's flag does.
func (l Layout) String() string {
	if l == SharedContainerd {
		return "shared"
	}
	return "own"
}

// Version chooses the containerd that serves the CRI.
type Version int

const (
	// Debian is the containerd of the distribution's package (1.6 on Debian 12).
	Debian Version = iota
	// V2 is containerd 2.x, built once from its Go module and cached.
	V2
)

// String names the version as the lab command's flag does.
func (v Version) String() string {
	if v == V2 {
		return "v2"
	}
	return "debian"
}

// Options choose what [Start] brings up. The zero value is a dockerd with a containerd of its own beside the
// distribution's containerd.
type Options struct {
	// Layout says whether dockerd has a containerd of its own or shares the CRI's.
	Layout Layout
	// Containerd is the version that serves the CRI.
	Containerd Version
	// LiveRestore keeps Docker's containers running while dockerd is down.
	LiveRestore bool
	// ContainerdStore has dockerd keep images in its containerd (Engine 24 and up). The environment variable
	// CRIMUX_LAB_CONTAINERD_STORE sets it for every lab, so that any suite can be run with it.
	ContainerdStore bool
	// Log receives progress, one line each; nil discards it.
	Log io.Writer
	// NoDocker leaves dockerd out.
	NoDocker bool
	// NoContainerd leaves the CRI's containerd out.
	NoContainerd bool
}
