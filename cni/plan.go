package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"golang.org/x/sys/unix"
)

// planVersion is raised when the stored form changes so that an older release
// would misread it.
const planVersion = 1

// defaultIfName is the pod's interface unless something else is asked for.
const defaultIfName = "eth0"

// Plan is an [Attachment] pinned to the exact configuration list that it is
// made with. It does not change; it may be used concurrently.
//
// Its stored form goes into the event log, so it holds no secret of crimux's,
// and none of the pod's annotations, even where a plugin gets them: [Networks]
// takes those of a DEL from libcni's cache. It does hold the operator's network
// configuration as it lies in the file.
type Plan struct {
	list         *libcni.NetworkConfigList
	id           string
	netns        string
	inode        uint64 // of the network namespace; 0 where it is not known
	ifName       string
	args         [][2]string
	capabilities map[string]json.RawMessage
}

// record is the stored form of a Plan.
type record struct {
	Version      int                        `json:"version"`
	ID           string                     `json:"id,omitempty"`
	Netns        string                     `json:"netns,omitempty"`
	Inode        uint64                     `json:"netnsInode,omitempty"`
	IfName       string                     `json:"ifName"`
	Args         [][2]string                `json:"args,omitempty"`
	Capabilities map[string]json.RawMessage `json:"capabilityArgs,omitempty"`
	List         json.RawMessage            `json:"list"`
}

// newPlan pins a to list.
func newPlan(list *libcni.NetworkConfigList, a Attachment, ranges ...netip.Prefix) (*Plan, error) {
	capabilities, err := capabilityArgs(list, a, ranges)
	if err != nil {
		return nil, err
	}
	p := &Plan{list: list, ifName: a.IfName, capabilities: capabilities}
	if p.ifName == "" {
		p.ifName = defaultIfName
	}
	if err := utils.ValidateInterfaceName(p.ifName); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	// The names are those that every Kubernetes runtime passes.
	for _, kv := range [][2]string{
		{"IgnoreUnknown", "1"},
		{"K8S_POD_NAMESPACE", a.PodNamespace},
		{"K8S_POD_NAME", a.PodName},
		{"K8S_POD_UID", a.PodUID},
	} {
		if strings.ContainsAny(kv[1], ";=\x00") {
			return nil, fmt.Errorf("%w: %s %q holds a character that separates CNI arguments", ErrInvalid, kv[0], kv[1])
		}
		p.args = append(p.args, kv)
	}
	if a.ID == "" && a.Netns == "" {
		return p, nil
	}
	return p.For(a.ID, a.Netns)
}

// For returns the plan for a sandbox that now exists: its id, and the path of
// its network namespace, which may be empty if only a DEL is to follow.
func (p *Plan) For(id, netns string) (*Plan, error) {
	if err := utils.ValidateContainerID(id); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	q := *p
	q.id, q.netns, q.inode = id, netns, 0
	if netns != "" {
		ino, err := namespace(netns)
		if err != nil {
			return nil, fmt.Errorf("%w: network namespace %s of %s: %w", ErrInvalid, netns, id, err)
		}
		q.inode = ino
	}
	return &q, nil
}

// ID returns the sandbox id that the plan is for, empty if none was set yet.
func (p *Plan) ID() string { return p.id }

// Network returns the network's name.
func (p *Plan) Network() string { return p.list.Name }

// Marshal returns the plan as JSON, for [ParsePlan].
func (p *Plan) Marshal() ([]byte, error) {
	var list bytes.Buffer
	if err := json.Compact(&list, p.list.Bytes); err != nil {
		return nil, fmt.Errorf("CNI plan: network %q: %w", p.list.Name, err)
	}
	capabilities := maps.Clone(p.capabilities)
	delete(capabilities, capabilityAnnotations)
	b, err := json.Marshal(record{
		Version: planVersion, ID: p.id, Netns: p.netns, Inode: p.inode, IfName: p.ifName,
		Args: p.args, Capabilities: capabilities, List: list.Bytes(),
	})
	if err != nil {
		return nil, fmt.Errorf("CNI plan: network %q: %w", p.list.Name, err)
	}
	return b, nil
}

// ParsePlan reads what [Plan.Marshal] wrote. Errors have [ErrInvalid] in their
// chain.
func ParsePlan(b []byte) (*Plan, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%w: stored plan: %w", ErrInvalid, err)
	}
	if r.Version != planVersion {
		return nil, fmt.Errorf("%w: stored plan is of version %d, and only %d is understood: use the release that wrote it", ErrInvalid, r.Version, planVersion)
	}
	list, err := parseList(r.List, "")
	if err != nil {
		return nil, fmt.Errorf("%w: stored plan: %w", ErrInvalid, err)
	}
	if r.ID != "" {
		if err := utils.ValidateContainerID(r.ID); err != nil {
			return nil, fmt.Errorf("%w: stored plan: %w", ErrInvalid, err)
		}
	}
	if err := utils.ValidateInterfaceName(r.IfName); err != nil {
		return nil, fmt.Errorf("%w: stored plan: %w", ErrInvalid, err)
	}
	return &Plan{
		list: list, id: r.ID, netns: r.Netns, inode: r.Inode, ifName: r.IfName,
		args: r.Args, capabilities: r.Capabilities,
	}, nil
}

// runtimeConf returns what libcni wants to know beside the list.
func (p *Plan) runtimeConf(netns string) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{
		ContainerID: p.id, NetNS: netns, IfName: p.ifName,
		CapabilityArgs: map[string]any{},
	}
	infra := [2]string{"K8S_POD_INFRA_CONTAINER_ID", p.id}
	known := false
	for _, kv := range p.args {
		known = known || kv[0] == infra[0]
		rt.Args = append(rt.Args, kv)
	}
	if !known {
		rt.Args = append(rt.Args, infra)
	}
	for k, v := range p.capabilities {
		rt.CapabilityArgs[k] = v
	}
	return rt
}

// attachment is what the plan's ADD makes, as plugins know it.
func (p *Plan) attachment() types.GCAttachment {
	return types.GCAttachment{ContainerID: p.id, IfName: p.ifName}
}

// leadsHome reports whether netns is the namespace that the plan was made for,
// as far as that can be known, and not the host's.
func (p *Plan) leadsHome(netns string, host uint64) bool {
	if netns == "" {
		return false
	}
	ino, err := namespace(netns)
	return err == nil && ino != host && (p.inode == 0 || p.inode == ino)
}

// namespace returns the inode of a network namespace, which names it while it
// lives.
func namespace(path string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return 0, errors.New("it is not a namespace")
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// rawArgs returns capability arguments as the JSON that they came from.
func rawArgs(in map[string]any) (map[string]json.RawMessage, error) {
	out := make(map[string]json.RawMessage, len(in))
	for k, v := range in {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("capability %s: %w", k, err)
		}
		out[k] = b
	}
	return out, nil
}
