package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// keepEnv names the environment variable that makes Stop keep the lab's folder.
	keepEnv = "CRIMUX_LAB_KEEP"
	// keptFile marks a folder that was kept, so that Sweep leaves it alone.
	keptFile    = "kept"
	lookTimeout = 15 * time.Second
	stopGrace   = 12 * time.Second
)

// LeakError lists what a lab's users, or its engines, left behind. It has all been removed.
type LeakError struct {
	// Leaks has one human line for each thing.
	Leaks []string
}

// Error puts every leak on a line of its own.
func (e *LeakError) Error() string {
	return fmt.Sprintf("%d things were left behind:\n  %s", len(e.Leaks), strings.Join(e.Leaks, "\n  "))
}

// Stop takes the lab down whatever state its engines are in, and removes its folder unless CRIMUX_LAB_KEEP is
// set. It returns a [LeakError] that lists every process, container, mount, network namespace, link, address
// and NAT rule that was left behind by the lab's users, and the errors it met while removing them.
func (l *Lab) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*lookTimeout)
	defer cancel()
	leaks, lookErr := l.leaks(ctx)
	// Killed first, the containers do not make dockerd wait for them as it ends.
	if len(leaks) > 0 {
		_, contained, err := l.site.own()
		lookErr = errors.Join(lookErr, err, killAll(contained))
	}
	endErr := l.endEngines()
	more, clearErr := l.site.clear(ctx)
	for _, m := range more {
		if !slices.Contains(leaks, m) {
			leaks = append(leaks, m)
		}
	}
	errs := []error{lookErr, endErr, clearErr, l.closeClients(), l.registry.close(), l.site.remove(os.Getenv(keepEnv) != "")}
	if len(leaks) > 0 {
		errs = append([]error{&LeakError{leaks}}, errs...)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop the lab: %w", err)
	}
	return nil
}

// leaks looks at what is there while the engines can still be asked.
func (l *Lab) leaks(ctx context.Context) ([]string, error) {
	for _, d := range []*daemon{l.docker, l.containerd} {
		if d.running() {
			if err := d.resume(); err != nil && !errors.Is(err, errNotRunning) && !errors.Is(err, os.ErrProcessDone) {
				return nil, err
			}
		}
	}
	// Engines finish some cleaning after they have answered; what is still there then is a leak.
	settle, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return l.Settled(settle, Footprint{})
}

// endEngines stops dockerd before a containerd that it may stand on.
func (l *Lab) endEngines() error {
	if l.docker != nil && slices.Contains(l.docker.args, "--containerd") {
		return errors.Join(l.docker.end(stopGrace), l.engine.end(stopGrace), l.containerd.end(stopGrace))
	}
	var wg sync.WaitGroup
	var dockerErr, criErr error
	wg.Go(func() { dockerErr = l.docker.end(stopGrace) })
	wg.Go(func() { criErr = l.containerd.end(stopGrace) })
	wg.Wait()
	return errors.Join(dockerErr, criErr)
}

func (l *Lab) closeClients() error {
	var errs []error
	if l.dockerAPI != nil {
		errs = append(errs, l.dockerAPI.Close())
	}
	if l.criConn != nil {
		errs = append(errs, l.criConn.Close())
	}
	return errors.Join(errs...)
}

// clear removes all that belongs to a site but its folder, and says what it had to remove.
func (s site) clear(ctx context.Context) (leaks []string, err error) {
	killed, err := s.killOwn()
	for _, p := range killed {
		leaks = append(leaks, fmt.Sprintf("%v was still running", p))
	}
	mounts, merr := s.mounts()
	for _, m := range mounts {
		if !s.structural(m) {
			leaks = append(leaks, mountLeak(m.Mountpoint, m.FSType))
		}
	}
	err = errors.Join(err, merr, s.unmountAll(), s.removeLinks(), s.removeNAT(ctx), s.removeResults(), s.removeShimSockets(), s.removeCgroups())
	return leaks, err
}

// mountLeak speaks of a mount as a footprint does, so that no mount is reported twice.
func mountLeak(point, fstype string) string {
	if fstype == nsfs {
		return fmt.Sprintf("network namespace %s is still there", point)
	}
	return fmt.Sprintf("%s is still mounted (%s)", point, fstype)
}

// killOwn kills what runs for the site: engines first, lest they act on the deaths that follow.
func (s site) killOwn() (killed []process, err error) {
	// A second look finds what an engine was just starting.
	for range 2 {
		engines, contained, lerr := s.own()
		if lerr != nil {
			return killed, errors.Join(err, lerr)
		}
		slices.SortFunc(engines, func(a, b process) int { return rank(a) - rank(b) })
		found := append(engines, contained...)
		err = errors.Join(err, killAll(found))
		killed = append(killed, found...)
	}
	return killed, err
}

// rank sorts what starts processes before what merely watches over them.
func rank(p process) int {
	if p.isShim() {
		return 1
	}
	return 0
}

// remove deletes the folder, or marks it as kept.
func (s site) remove(keep bool) error {
	if keep {
		return os.WriteFile(s.path(keptFile), nil, 0o644)
	}
	// With a mount left, removing would reach into what it shows.
	left, err := s.mounts()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("remove %s: %s is still mounted: %w", s.dir, left[0].Mountpoint, syscall.EBUSY)
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove the lab's folder: %w", err)
	}
	return nil
}
