package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends/docker/checkpoint"
	"github.com/crimux/crimux/backends/docker/streaming"
	"github.com/crimux/crimux/cni"
)

// checkpoints are what cri-dockerd and dockershim keep of a sandbox besides,
// and what they need of one that is ours.
type checkpoints interface {
	Write(id string, c checkpoint.Checkpoint) error
	Read(id string) (c checkpoint.Checkpoint, ok bool, err error)
	Remove(id string) error
}

// adoptedInterface is the interface of a pod on its network, whichever shim
// made it.
const adoptedInterface = "eth0"

// keep writes the checkpoint of a sandbox of ours, with which cri-dockerd could
// take it over.
func (a *attachments) keep(id string, s *sandboxSpec) error {
	c := checkpoint.Checkpoint{Name: s.id.pod, Namespace: s.id.namespace, HostNetwork: s.host.NetworkMode.IsHost()}
	if s.attach != nil {
		for _, p := range s.attach.PortMappings {
			c.PortMappings = append(c.PortMappings, checkpoint.PortMapping{
				Protocol: p.Protocol, ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIP: p.HostIP,
			})
		}
	}
	return a.kept.Write(id, c)
}

// portMappings are those of a sandbox's checkpoint. One that is damaged is not
// passed over: host ports would stay taken, and nobody would know why.
func (a *attachments) portMappings(id string) ([]cni.PortMapping, error) {
	c, _, err := a.kept.Read(id)
	if errors.Is(err, checkpoint.ErrDamaged) {
		return nil, status.Errorf(codes.FailedPrecondition,
			"port mappings: %v: restore the file, or remove it to give up the pod's host ports", err)
	}
	if err != nil {
		return nil, fmt.Errorf("port mappings: %w", err)
	}
	var out []cni.PortMapping
	for _, p := range c.PortMappings {
		out = append(out, cni.PortMapping{Protocol: p.Protocol, ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIP: p.HostIP})
	}
	return out, nil
}

// adopt takes on the network of a running sandbox of which it is not known:
// another shim made it, or had it meanwhile, or crimux has begun anew. Pinned,
// the namespace outlives the infra container, for the sake of the DEL. One that
// is still being made has no network yet.
//
// Where libcni's cache has no result, the addresses are those of the pod's
// interface, as for cri-dockerd.
func (a *attachments) adopt(f *found, making bool) error {
	if f.kind != typeSandbox || !f.State.Running || f.State.Pid <= 0 || !f.HostConfig.NetworkMode.IsNone() || making {
		return nil
	}
	if a.adopted(f.ID) {
		return nil
	}
	a.adopting.Lock()
	defer a.adopting.Unlock()
	if a.get(f.ID).state == netDetached || a.adopted(f.ID) {
		return nil
	}
	ips, attached, err := a.addresses(f.ID)
	if err != nil {
		return err
	}
	if !attached {
		if ips, err = addressesIn(netnsOf(f.State.Pid), adoptedInterface); err != nil {
			return fmt.Errorf("addresses of sandbox %s: %w", f.ID, err)
		}
		if len(ips) == 0 {
			return nil // its ADD has failed, or is under way
		}
	}
	if a.pins.find(f.ID) == "" {
		if _, err := a.pins.pin(f.ID, f.State.Pid); err != nil {
			return err
		}
	}
	a.setIfUnknown(f.ID, attachment{state: netAttached, ips: ips})
	return nil
}

// adopted reports whether nothing is left to take on: the namespace is pinned,
// by whichever run of crimux, and the network is known.
func (a *attachments) adopted(id string) bool {
	return a.get(id).state != netUnknown && a.pins.find(id) != ""
}

// adopt takes on what another shim has made, before anybody is shown it. There
// is no caller to tell of a failure, and it is tried again the next time that
// the container is looked at.
func (s *server) adopt(ctx context.Context, f *found) {
	if err := s.pods.adopt(f, s.ops.look(f.op) != visible); err != nil {
		s.log.Warn("network of a sandbox cannot be taken on", "sandbox", f.ID, "error", err)
	}
	s.nameImage(ctx, f)
}

// nameImage gives the image of another shim's container its name: the kubelet
// asked for it by id, and shows what it is told. Where it has none, or that
// cannot be learned now, the id stands.
func (s *server) nameImage(ctx context.Context, f *found) {
	if f.kind != typeContainer || f.op != "" || f.image != "" || !strings.HasPrefix(f.Config.Image, "sha256:") {
		return
	}
	if known := s.cache.peek(f.ID); known != nil && known.image != "" {
		f.image = known.image
		return
	}
	if img, err := s.engine.ImageInspect(ctx, f.Image); err == nil && len(img.RepoTags) > 0 {
		f.image = img.RepoTags[0]
	}
}

// settleGone takes down what is left of a sandbox that the Engine has no more,
// as far as libcni's cache or a checkpoint tells of it: somebody removed it
// behind our back, or another shim did half of it.
func (s *server) settleGone(ctx context.Context, id string) error {
	if len(id) != containerIDLen || strings.Trim(id, "0123456789abcdef") != "" {
		return nil // no sandbox ever had it
	}
	if _, err := s.inspect(ctx, "", id); status.Code(err) != codes.NotFound {
		return err // it is still being made
	}
	c, kept, err := s.pods.kept.Read(id)
	if err != nil {
		return s.fail(err, "clean up sandbox %s", id)
	}
	_, _, cached, err := s.pods.net.Cached(id)
	if err != nil {
		return s.fail(err, "clean up sandbox %s", id)
	}
	if cached || kept && !c.HostNetwork {
		if _, err := s.pods.detach(ctx, id, 0, cni.Attachment{PodNamespace: c.Namespace, PodName: c.Name}); err != nil {
			return s.fail(err, "take down the network of sandbox %s", id)
		}
		s.pods.forget(id)
	}
	if err := errors.Join(s.pods.pins.unpin(id), s.pods.kept.Remove(id)); err != nil {
		return s.fail(err, "clean up sandbox %s", id)
	}
	return nil
}

// addressesIn returns the addresses of an interface in a network namespace.
// That there is no such interface is as good as none.
func addressesIn(netns, name string) (ips []netip.Addr, err error) {
	if visit := streaming.InNamespace(netns, func() { ips, err = addressesOf(name) }); visit != nil {
		return nil, visit
	}
	return ips, err
}

// addressesOf is addressesIn for the calling thread's namespace.
func addressesOf(name string) ([]netip.Addr, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	i := slices.IndexFunc(all, func(i net.Interface) bool { return i.Name == name })
	if i < 0 {
		return nil, nil
	}
	addrs, err := all[i].Addrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", name, err)
	}
	var out []netip.Addr
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue // link-local ones are nobody's address of the pod
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok {
			out = append(out, ip.Unmap())
		}
	}
	return out, nil
}
