package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net/netip"
	"strings"
)

// version is the only one there has ever been.
const version = "v1"

// ErrDamaged is in the chain of errors about a checkpoint that cannot be read.
var ErrDamaged = errors.New("damaged sandbox checkpoint")

// Checkpoint is what is kept of a sandbox.
type Checkpoint struct {
	Name, Namespace string
	PortMappings    []PortMapping
	HostNetwork     bool
}

// PortMapping is one of a pod's ports. Protocol is tcp, udp or sctp; a HostPort
// of 0 maps nothing; an empty HostIP is every address of the host.
type PortMapping struct {
	Protocol      string
	ContainerPort int32
	HostPort      int32
	HostIP        string
}

// file is the stored form.
type file struct {
	Version   string  `json:"version"`
	Name      string  `json:"name"`
	Namespace string  `json:"namespace"`
	Data      *data   `json:"data,omitempty"`
	Checksum  *uint64 `json:"checksum"`
}

type data struct {
	PortMappings []*mapping `json:"port_mappings,omitempty"`
	HostNetwork  bool       `json:"host_network,omitempty"`
}

// mapping has pointers because the checksum tells an absent value from zero.
type mapping struct {
	Protocol      *string `json:"protocol,omitempty"`
	ContainerPort *int32  `json:"container_port,omitempty"`
	HostPort      *int32  `json:"host_port,omitempty"`
	HostIP        string  `json:"host_ip,omitempty"`
}

// Marshal returns the checkpoint as cri-dockerd writes it.
func (c Checkpoint) Marshal() ([]byte, error) {
	d := data{HostNetwork: c.HostNetwork}
	for _, p := range c.PortMappings {
		d.PortMappings = append(d.PortMappings, &mapping{
			Protocol: &p.Protocol, ContainerPort: &p.ContainerPort, HostPort: &p.HostPort, HostIP: p.HostIP,
		})
	}
	sum := d.checksum()
	b, err := json.Marshal(file{Version: version, Name: c.Name, Namespace: c.Namespace, Data: &d, Checksum: &sum})
	if err != nil {
		return nil, fmt.Errorf("encode sandbox checkpoint: %w", err)
	}
	return b, nil
}

// checksum is cri-dockerd's: FNV-1a over the data as Go prints it, with
// cri-dockerd's type names.
func (d data) checksum() uint64 {
	var b strings.Builder
	b.WriteString("(core.CheckpointData){PortMappings:([]*config.PortMapping)")
	if d.PortMappings == nil {
		b.WriteString("<nil>")
	} else {
		b.WriteByte('[')
		for i, m := range d.PortMappings {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString("<*>{Protocol:(*config.Protocol)" + printed(m.Protocol) +
				" ContainerPort:(*int32)" + printed(m.ContainerPort) +
				" HostPort:(*int32)" + printed(m.HostPort) +
				" HostIP:(string)" + m.HostIP + "}")
		}
		b.WriteByte(']')
	}
	fmt.Fprintf(&b, " HostNetwork:(bool)%t}", d.HostNetwork)
	h := fnv.New32a()
	h.Write([]byte(b.String())) // a hash takes everything
	return uint64(h.Sum32())
}

// printed is what a pointer leads to.
func printed[T any](p *T) string {
	if p == nil {
		return "<nil>"
	}
	return fmt.Sprint(*p)
}

// Parse reads a checkpoint of cri-dockerd, of dockershim or of our own. Errors
// have [ErrDamaged] in their chain.
func Parse(b []byte) (Checkpoint, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if f.Version != version {
		return Checkpoint{}, fmt.Errorf("%w: version %q: only %q is known", ErrDamaged, f.Version, version)
	}
	if f.Checksum == nil {
		return Checkpoint{}, fmt.Errorf("%w: it has no checksum", ErrDamaged)
	}
	c := Checkpoint{Name: f.Name, Namespace: f.Namespace}
	if f.Data == nil {
		return c, nil
	}
	c.HostNetwork = f.Data.HostNetwork
	for i, m := range f.Data.PortMappings {
		p, err := m.read()
		if err != nil {
			return Checkpoint{}, fmt.Errorf("%w: port mapping %d: %w", ErrDamaged, i, err)
		}
		c.PortMappings = append(c.PortMappings, p)
	}
	return c, nil
}

// read checks a stored mapping: what is wrong in it would go to the plugins.
func (m *mapping) read() (PortMapping, error) {
	if m == nil {
		return PortMapping{}, errors.New("it is null")
	}
	p := PortMapping{Protocol: "tcp", HostIP: m.HostIP}
	if m.Protocol != nil {
		p.Protocol = strings.ToLower(*m.Protocol)
	}
	switch p.Protocol {
	case "tcp", "udp", "sctp":
	default:
		return PortMapping{}, fmt.Errorf("protocol %q is not tcp, udp or sctp", p.Protocol)
	}
	for _, port := range []struct {
		from *int32
		to   *int32
	}{{m.ContainerPort, &p.ContainerPort}, {m.HostPort, &p.HostPort}} {
		if port.from == nil {
			continue
		}
		if *port.from < 0 || *port.from > math.MaxUint16 {
			return PortMapping{}, fmt.Errorf("%d is no port", *port.from)
		}
		*port.to = *port.from
	}
	if p.HostIP != "" {
		if _, err := netip.ParseAddr(p.HostIP); err != nil {
			return PortMapping{}, fmt.Errorf("host IP: %w", err)
		}
	}
	return p, nil
}
