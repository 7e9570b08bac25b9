package cni

import (
	"errors"
	"net/netip"
)

// ErrNoNetwork is in the chain of errors that say that there is no usable
// network configuration. The rest of the text says why and what to do.
var ErrNoNetwork = errors.New("no usable CNI network")

// ErrInvalid is in the chain of errors that say that what was asked for, an
// attachment or a stored plan, cannot be.
var ErrInvalid = errors.New("invalid CNI request")

// Config says where network configurations, plugins and libcni's cache lie.
type Config struct {
	// ConfDir holds the configurations: *.conflist, *.conf, *.json. The first
	// valid one by name is the default network.
	ConfDir string
	// BinDirs are searched for plugins, in order.
	BinDirs []string
	// CacheDir is libcni's own cache, /var/lib/cni/cache on a node that
	// cri-dockerd or dockershim ran on. What they left there is understood.
	CacheDir string
}

// PortMapping is one host port of a pod. A HostPort of 0 maps nothing.
type PortMapping struct {
	// Protocol is tcp, udp or sctp, in any case; empty is tcp.
	Protocol      string
	ContainerPort int32
	HostPort      int32
	// HostIP is empty for every address of the host.
	HostIP string
}

// Attachment is one pod sandbox that is to get a network.
type Attachment struct {
	// ID is the sandbox's id: CNI_CONTAINERID.
	ID string
	// Netns is the path of the network namespace.
	Netns string
	// IfName is the interface in the pod; empty is eth0.
	IfName string

	PodNamespace, PodName, PodUID string

	PortMappings []PortMapping
	// Annotations are the pod's. kubernetes.io/ingress-bandwidth and
	// kubernetes.io/egress-bandwidth are used, in bits per second. All of them
	// go to plugins that declare the capability for it, as containerd has it;
	// they are never part of a stored plan.
	Annotations map[string]string
	// DNS is what the pod resolves names with.
	DNS DNS
	// CgroupPath is the parent of the pod's cgroups.
	CgroupPath string
}

// DNS says how names are resolved.
type DNS struct {
	Servers  []string `json:"servers,omitempty"`
	Searches []string `json:"searches,omitempty"`
	Options  []string `json:"options,omitempty"`
}

// Result is what an ADD gave the pod.
type Result struct {
	// IPs are the addresses of the pod's interface, in the order in which the
	// plugins named them: the first is the pod's primary address.
	IPs []netip.Addr
}
