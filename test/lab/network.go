package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// sharedResults is where containerd has CNI results cached; it offers no other place.
const sharedResults = "/var/lib/cni/results"

// ports are the links that hang on the lab's bridge.
func (s site) ports() ([]netlink.Link, error) {
	bridge, err := s.bridge()
	if err != nil || bridge == nil {
		return nil, err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	index := bridge.Attrs().Index
	return slices.DeleteFunc(links, func(l netlink.Link) bool { return l.Attrs().MasterIndex != index }), nil
}

// bridge is the lab's bridge, nil before the first pod.
func (s site) bridge() (netlink.Link, error) {
	l, err := netlink.LinkByName(s.name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up bridge %s: %w", s.name, err)
	}
	return l, nil
}

// removeLinks deletes what hangs on the bridge and then the bridge.
func (s site) removeLinks() error {
	ports, err := s.ports()
	if err != nil {
		return err
	}
	bridge, err := s.bridge()
	if err != nil || bridge == nil {
		return err
	}
	var errs []error
	for _, l := range append(ports, bridge) {
		err := netlink.LinkDel(l)
		// A veth goes by itself when its namespace ends.
		if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) && !strings.Contains(err.Error(), "no such device") {
			errs = append(errs, fmt.Errorf("delete link %s: %w", l.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}

// natRules are the rules that the bridge and portmap plugins made for this lab's network: both name the
// network in a comment.
func (s site) natRules(ctx context.Context) ([]string, error) {
	out, err := output(ctx, "", "iptables-save", "-t", "nat")
	if err != nil {
		return nil, fmt.Errorf("list the machine's NAT rules: %w", err)
	}
	var rules []string
	mark := `name: \"` + s.name + `\"`
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "-A ") && strings.Contains(line, mark) {
			rules = append(rules, strings.TrimSpace(line))
		}
	}
	return rules, nil
}

// removeNAT deletes the network's rules and the chains they lead to.
func (s site) removeNAT(ctx context.Context) error {
	rules, err := s.natRules(ctx)
	if err != nil || len(rules) == 0 {
		return err
	}
	var chains []string
	var in bytes.Buffer
	in.WriteString("*nat\n")
	for _, r := range rules {
		fmt.Fprintf(&in, "-D %s\n", strings.TrimPrefix(r, "-A "))
		_, target, ok := cutLast(r, " -j ")
		// The chain of a pod's masquerading is CNI-HASH, that of its ports CNI-DN-HASH; others are shared.
		if ok && strings.HasPrefix(target, "CNI-") && !strings.HasPrefix(target, "CNI-HOSTPORT") && !slices.Contains(chains, target) {
			chains = append(chains, target)
		}
	}
	for _, c := range chains {
		fmt.Fprintf(&in, "-F %s\n-X %s\n", c, c)
	}
	in.WriteString("COMMIT\n")
	file := s.path("nat.rules")
	if err := os.WriteFile(file, in.Bytes(), 0o600); err != nil {
		return fmt.Errorf("remove the network's NAT rules: %w", err)
	}
	if err := run(ctx, "", "iptables-restore", "-w", "5", "--noflush", file); err != nil {
		return fmt.Errorf("remove the network's NAT rules: %w", err)
	}
	return nil
}

// addresses are the IPAM plugin's files: an address and who holds it.
func (s site) addresses() (map[string]string, error) {
	dir := s.path("cni/ipam", s.name)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses in use: %w", err)
	}
	out := map[string]string{}
	for _, e := range entries {
		if e.Name() == "lock" || strings.HasPrefix(e.Name(), "last_reserved_ip") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read who holds %s: %w", e.Name(), err)
		}
		holder, _, _ := strings.Cut(string(b), "\n")
		out[e.Name()] = strings.TrimSpace(holder)
	}
	return out, nil
}

// results are the CNI results that are cached for this lab's pods, as paths.
func (s site) results() ([]string, error) {
	var out []string
	for _, dir := range []string{s.path("cni/cache/results"), sharedResults} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list cached CNI results: %w", err)
		}
		for _, e := range entries {
			p := filepath.Join(dir, e.Name())
			b, err := os.ReadFile(p)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read a cached CNI result: %w", err)
			}
			// A loopback's result names no network of ours but the namespace, which is in our folder.
			if dir != sharedResults || strings.HasPrefix(e.Name(), s.name+"-") || bytes.Contains(b, []byte(s.dir+"/")) {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// removeResults deletes this lab's results from the folder that all share.
func (s site) removeResults() error {
	paths, err := s.results()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove a cached CNI result: %w", err))
		}
	}
	return errors.Join(errs...)
}
