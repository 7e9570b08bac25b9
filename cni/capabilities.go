package cni

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
)

// The annotations that ask for a limit on a pod's bandwidth.
const (
	annotationIngress = "kubernetes.io/ingress-bandwidth"
	annotationEgress  = "kubernetes.io/egress-bandwidth"
)

// Limits of a bandwidth, in bits per second: the kubelet's.
const (
	minRate = 1_000
	maxRate = 1_000_000_000_000_000
)

// The capabilities that a plugin may declare, and the names of what it then
// finds in its runtimeConfig.
const (
	capabilityPortMappings = "portMappings"
	capabilityBandwidth    = "bandwidth"
	capabilityIPRanges     = "ipRanges"
	capabilityDNS          = "dns"
	capabilityCgroupPath   = "cgroupPath"
	// capabilityAnnotations is that of containerd.
	capabilityAnnotations = "io.kubernetes.cri.pod-annotations"
)

// ipRange is an entry of a range set of the capability ipRanges.
type ipRange struct {
	Subnet netip.Prefix `json:"subnet"`
}

// portMapping is an entry of the capability portMappings.
type portMapping struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// bandwidth is the capability bandwidth. Rates are in bits per second. The
// bursts are as large as the plugin takes: the annotations name none.
type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// capabilityArgs returns what plugins of the list that declare the capability
// for it are told: what the attachment asks for, and the node's ranges. What
// none declares is checked and left out.
func capabilityArgs(list *libcni.NetworkConfigList, a Attachment, ranges []netip.Prefix) (map[string]json.RawMessage, error) {
	ports, err := portMappings(a.PortMappings)
	if err != nil {
		return nil, err
	}
	limits, err := limits(a.Annotations)
	if err != nil {
		return nil, err
	}
	// One set for each range, since a pod gets an address of every set.
	sets := make([][]ipRange, len(ranges))
	for i, r := range ranges {
		sets[i] = []ipRange{{Subnet: r}}
	}
	out := map[string]json.RawMessage{}
	for _, c := range []struct {
		name  string
		none  bool
		value any
	}{
		{capabilityPortMappings, len(ports) == 0, ports},
		{capabilityBandwidth, limits == bandwidth{}, limits},
		{capabilityIPRanges, len(sets) == 0, sets},
		{capabilityDNS, len(a.DNS.Servers)+len(a.DNS.Searches)+len(a.DNS.Options) == 0, a.DNS},
		{capabilityCgroupPath, a.CgroupPath == "", a.CgroupPath},
		{capabilityAnnotations, len(a.Annotations) == 0, a.Annotations},
	} {
		if c.none || !declares(list, c.name) {
			continue
		}
		if out[c.name], err = json.Marshal(c.value); err != nil {
			return nil, fmt.Errorf("capability %s: %w", c.name, err)
		}
	}
	return out, nil
}

// declares reports whether a plugin of the list declares a capability.
func declares(list *libcni.NetworkConfigList, capability string) bool {
	return slices.ContainsFunc(list.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Capabilities[capability] })
}

// portMappings checks the mappings and leaves out those without a host port.
func portMappings(in []PortMapping) ([]portMapping, error) {
	var out []portMapping
	for _, m := range in {
		if m.HostPort == 0 {
			continue
		}
		protocol := strings.ToLower(m.Protocol)
		switch protocol {
		case "":
			protocol = "tcp"
		case "tcp", "udp", "sctp":
		default:
			return nil, fmt.Errorf("%w: host port %d: protocol %q is not tcp, udp or sctp", ErrInvalid, m.HostPort, m.Protocol)
		}
		if m.HostPort < 1 || m.HostPort > math.MaxUint16 || m.ContainerPort < 1 || m.ContainerPort > math.MaxUint16 {
			return nil, fmt.Errorf("%w: host port %d to container port %d: ports go from 1 to 65535", ErrInvalid, m.HostPort, m.ContainerPort)
		}
		if m.HostIP != "" {
			if _, err := netip.ParseAddr(m.HostIP); err != nil {
				return nil, fmt.Errorf("%w: host port %d: host IP: %w", ErrInvalid, m.HostPort, err)
			}
		}
		out = append(out, portMapping{HostPort: m.HostPort, ContainerPort: m.ContainerPort, Protocol: protocol, HostIP: m.HostIP})
	}
	return out, nil
}

// limits reads the bandwidth annotations.
func limits(annotations map[string]string) (b bandwidth, err error) {
	if b.IngressRate, err = rate(annotations, annotationIngress); err != nil {
		return b, err
	}
	if b.EgressRate, err = rate(annotations, annotationEgress); err != nil {
		return b, err
	}
	if b.IngressRate > 0 {
		b.IngressBurst = math.MaxInt32
	}
	if b.EgressRate > 0 {
		b.EgressBurst = math.MaxInt32
	}
	return b, nil
}

// rate reads one annotation; 0 means that it is not there.
func rate(annotations map[string]string, key string) (uint64, error) {
	text, ok := annotations[key]
	if !ok {
		return 0, nil
	}
	n, ok := quantity(text)
	if !ok {
		return 0, fmt.Errorf("%w: annotation %s: %q is no quantity such as 10M", ErrInvalid, key, text)
	}
	if n < minRate || n > maxRate {
		return 0, fmt.Errorf("%w: annotation %s: %s bits per second is not between 1k and 1P", ErrInvalid, key, text)
	}
	return n, nil
}

// suffixes of a Kubernetes quantity that make sense for bits per second.
var suffixes = map[string]int64{
	"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
	"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60,
}

// quantity reads a positive Kubernetes quantity: a decimal number with an
// optional suffix or exponent. A fraction that is left is rounded up.
func quantity(s string) (uint64, bool) {
	end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	number, suffix := s, ""
	if end >= 0 {
		number, suffix = s[:end], s[end:]
	}
	factor, known := suffixes[suffix]
	if !known && len(s) <= 24 && (suffix[0] == 'e' || suffix[0] == 'E') {
		number, factor = s, 1
	} else if !known || len(s) > 24 {
		return 0, false
	}
	if exponentTooLarge(number) {
		return 0, false
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok || r.Sign() < 0 {
		return 0, false
	}
	r.Mul(r, new(big.Rat).SetInt64(factor))
	n := new(big.Int).Add(r.Num(), new(big.Int).Sub(r.Denom(), big.NewInt(1)))
	n.Quo(n, r.Denom())
	return n.Uint64(), n.IsUint64()
}

// exponentTooLarge guards against numbers such as 1e999999999, that take
// memory without end.
func exponentTooLarge(number string) bool {
	i := strings.IndexAny(number, "eE")
	return i >= 0 && len(strings.TrimLeft(number[i+1:], "+-0")) > 2
}
