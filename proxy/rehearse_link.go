package proxy

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
)

// linksDown takes the links of the rehearsal's pod down, before anything runs
// in it: to run a workload twice can empty queues and send mail. A CRI runtime
// gives every pod a network, and plugins expect to find theirs when it is
// taken away, so the links stay.
func (r *rehearsal) linksDown(ctx context.Context) error {
	teller, ok := r.target.Backend.(backends.Describer)
	if !ok {
		return status.Errorf(codes.Unimplemented, "backend %q does not tell where its pods' networks are, so that nothing can be started without one: "+
			"--level create starts nothing, --network leaves the network as it is", r.target.Name())
	}
	pid, err := teller.SandboxPID(ctx, r.sandbox)
	if err == nil {
		err = setLinksDown(fmt.Sprintf("/proc/%d/ns/net", pid))
	}
	if err != nil {
		return status.Errorf(codes.FailedPrecondition, "the network of the rehearsal cannot be taken down, and nothing was started: %v", err)
	}
	r.say("its network is down")
	return nil
}

// setLinksDown takes all links of a network namespace down but the loopback.
// It never touches the node's own.
func setLinksDown(path string) error {
	// A namespace handle belongs to a thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer ns.Close()
	same, err := sameFile(fmt.Sprintf("/proc/self/fd/%d", int(ns)), "/proc/self/ns/net")
	if err != nil {
		return err
	}
	if same {
		return fmt.Errorf("%s is the node's own network", path)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("list the links of %s: %w", path, err)
	}
	for _, l := range links {
		if l.Attrs().Name == "lo" {
			continue
		}
		if err := h.LinkSetDown(l); err != nil {
			return fmt.Errorf("take link %s down: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

func sameFile(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(x, y), nil
}
