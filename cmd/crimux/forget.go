package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/proxy"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// probeTime is how long a backend has to show that it is there.
const probeTime = 5 * time.Second

func newForget() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "forget BACKEND|POD",
		Short: "Give up pods that will never come back",
		Long: `Give up the pods of a backend that will never come back, or one pod of it.

While a backend is away its pods stay in every list as they were last known,
since they may still run. Where it is gone for good, such as an engine that was
uninstalled, they would be listed for ever and the kubelet could not finish
them, and a configuration without the backend is refused. This ends that: the
event "Forgotten" is recorded, the pods are listed no more, and the kubelet is
free to make them anew.

It stops nothing and removes nothing: what still runs goes on unseen. Should
the backend come back with the pods, they are observed and listed again. It is
refused while the backend is available and still has the pod: delete the pod
then.

BACKEND is a backend's name as in the configuration, be it that of an earlier
one. POD is a name, NAMESPACE/NAME, a uid, or the id of a sandbox or container;
of uids and ids the beginning is enough. Of a pod that is on several backends
only what is on those that are away is forgotten.

It shows what it will forget and asks before it does, unless --yes is given.
While the daemon runs it asks the daemon, otherwise it writes to the event log
itself.

To take a backend out of the configuration: forget it, change the
configuration, start the daemon.`,
		Example: `  crimux forget docker
  crimux forget kube-system/coredns-5d78c9869d-abcde
  crimux forget docker --yes && systemctl restart crimux`,
		Args: exactlyOne("BACKEND or POD"),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] == "" {
				return usageError{fmt.Errorf("%s: BACKEND or POD is empty", c.CommandPath())}
			}
			return ended(c.Context(), forget(c, args[0], yes))
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// forget finds what is meant, shows it, asks, and does it.
func forget(c *cobra.Command, what string, yes bool) (err error) {
	src, err := openSource(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	plan, state, err := planForget(src, what)
	if err != nil {
		return err
	}
	f := forgetter{c: c, src: src}
	if plan, err = f.allowed(plan); err != nil {
		return err
	}
	if err := showForget(c, plan, state); err != nil {
		return err
	}
	if !yes {
		if err := confirm(c, "Forget this?"); err != nil {
			return err
		}
	}
	if err := f.carryOut(plan, state); err != nil {
		return err
	}
	fmt.Fprintln(c.OutOrStdout(), "forgotten")
	return nil
}

// forgetting is what is to be forgotten of one backend.
type forgetting struct {
	backend string
	what    *eventpb.Forgotten
}

// planForget reads the log and finds what the argument names.
func planForget(src *source, what string) ([]forgetting, *store.State, error) {
	finder := view.NewFinder(view.NewSelector(what))
	w := newWalker(noting(finder.Add))
	if err := src.Records(0, w.next); err != nil {
		return nil, nil, err
	}
	st := w.state
	if hasBackend(st, what) {
		f := &eventpb.Forgotten{Whole: true}
		for sb := range st.SandboxesOf(what) {
			f.SandboxIds = append(f.SandboxIds, sb.GetId())
		}
		slices.Sort(f.SandboxIds)
		return []forgetting{{what, f}}, st, nil
	}
	pods, err := finder.Pods()
	if errors.Is(err, view.ErrNoPod) {
		return nil, nil, fmt.Errorf("%q: there is no such backend or pod in the log: 'crimux state' lists those that there are", what)
	}
	if err != nil {
		return nil, nil, err
	}
	plan, err := planPods(st, what, pods)
	return plan, st, err
}

// hasBackend tells whether the log knows anything of that backend.
func hasBackend(st *store.State, name string) bool {
	for range st.SandboxesOf(name) {
		return true
	}
	for range st.ContainersOf(name) {
		return true
	}
	for range st.OperationsOf(name) {
		return true
	}
	return st.Backend(name) != nil
}

// planPods finds the sandboxes of the one pod that is still there, by backend.
func planPods(st *store.State, what string, pods []view.FoundPod) ([]forgetting, error) {
	var there []string
	var plan []forgetting
	for _, p := range pods {
		byBackend := make(map[string]*eventpb.Forgotten)
		for sb := range st.Sandboxes() {
			k := sb.GetPod()
			if k.GetUid() != p.UID || p.UID == "" && (k.GetNamespace() != p.Namespace || k.GetName() != p.Name) {
				continue
			}
			f := byBackend[sb.GetBackend()]
			if f == nil {
				f = new(eventpb.Forgotten)
				byBackend[sb.GetBackend()] = f
				plan = append(plan, forgetting{sb.GetBackend(), f})
			}
			f.SandboxIds = append(f.SandboxIds, sb.GetId())
			slices.Sort(f.SandboxIds)
		}
		if len(byBackend) > 0 {
			there = append(there, p.UID)
		}
	}
	switch len(there) {
	case 0:
		return nil, fmt.Errorf("%q: the pod is not there any more: nothing of it is listed", what)
	case 1:
		slices.SortFunc(plan, func(a, b forgetting) int { return strings.Compare(a.backend, b.backend) })
		return plan, nil
	}
	return nil, fmt.Errorf("%q names %d pods that are there: write the uid of one: %s", what, len(there), strings.Join(there, ", "))
}

// showForget prints what will be forgotten.
func showForget(c *cobra.Command, plan []forgetting, st *store.State) error {
	out := newOutput(c, false)
	for _, p := range plan {
		switch {
		case !p.what.GetWhole():
			fmt.Fprintf(out, "of backend %s:\n\n", p.backend)
		case len(p.what.GetSandboxIds()) == 0:
			fmt.Fprintf(out, "backend %s, which has no pods:\n\n", p.backend)
		default:
			fmt.Fprintf(out, "backend %s with all it has:\n\n", p.backend)
		}
		shown := forgottenPart(st, p)
		if err := view.WriteState(out, shown, view.StateOptions{Now: out.now, Containers: true, Colour: out.colour}); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}

// forgottenPart is the part of the state that is forgotten.
func forgottenPart(st *store.State, p forgetting) *eventpb.State {
	all := st.Proto()
	part := &eventpb.State{Seq: all.GetSeq(), BootId: all.GetBootId()}
	gone := make(map[string]bool)
	for _, id := range p.what.GetSandboxIds() {
		gone[id] = true
	}
	for _, sb := range all.GetSandboxes() {
		if gone[sb.GetId()] {
			part.Sandboxes = append(part.Sandboxes, sb)
		}
	}
	for _, ctr := range all.GetContainers() {
		if gone[ctr.GetSandboxId()] || p.what.GetWhole() && ctr.GetBackend() == p.backend {
			part.Containers = append(part.Containers, ctr)
		}
	}
	for _, e := range proxy.ForgetEvents(st, p.backend, p.what) {
		if op := st.Operation(e.GetOp()); op != nil {
			part.Operations = append(part.Operations, op)
		}
	}
	for _, b := range all.GetBackends() {
		if b.GetName() == p.backend {
			part.Backends = append(part.Backends, b)
		}
	}
	return part
}

// confirm asks a person.
func confirm(c *cobra.Command, question string) error {
	fmt.Fprintf(c.OutOrStdout(), "%s It is listed no more, and nothing of it is stopped or removed. [y/N] ", question)
	answer, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	if err != nil {
		fmt.Fprintln(c.OutOrStdout())
		return errors.New("not confirmed, so that nothing was forgotten: answer y, or add --yes")
	}
	return errors.New("not confirmed, so that nothing was forgotten")
}

// forgetter carries a plan out, over the daemon or on the file.
type forgetter struct {
	c   *cobra.Command
	src *source
}

// allowed returns the part of the plan that may be carried out, and says what
// may not; an error is that nothing may.
func (f forgetter) allowed(plan []forgetting) ([]forgetting, error) {
	var some []forgetting
	var refused []error
	for _, p := range plan {
		err := f.mayForget(p)
		if err == nil {
			some = append(some, p)
			continue
		}
		refused = append(refused, err)
	}
	if len(some) == 0 {
		return nil, errors.Join(refused...)
	}
	for _, err := range refused {
		hint(f.c, "kept: "+err.Error())
	}
	return some, nil
}

func (f forgetter) mayForget(p forgetting) error {
	if f.src.daemon != nil {
		return f.src.daemon.Forget(f.c.Context(), p.backend, p.what, true)
	}
	cfg, err := policy.Load(configPath(f.c))
	if err != nil {
		return err
	}
	for _, b := range cfg.Backends {
		if b.Name == p.backend {
			return notThere(f.c.Context(), b)
		}
	}
	return nil
}

// notThere is an error where a backend answers: a daemon, which looks for
// itself, is then the one to say what it has.
func notThere(ctx context.Context, b policy.Backend) (err error) {
	one, err := openBackend(b, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, one.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if one.Probe(ctx) != nil {
		return nil
	}
	return fmt.Errorf("backend %q is available: start the daemon, which looks for itself what it still has", b.Name)
}

func (f forgetter) carryOut(plan []forgetting, st *store.State) error {
	if f.src.daemon != nil {
		for _, p := range plan {
			if err := f.src.daemon.Forget(f.c.Context(), p.backend, p.what, false); err != nil {
				return err
			}
		}
		return nil
	}
	cfg, err := policy.Load(configPath(f.c))
	if err != nil {
		return err
	}
	// The file is open for reading; it must not be when it is written.
	err = f.src.Close()
	f.src.Closer = io.NopCloser(nil)
	if err != nil {
		return err
	}
	return writeForget(f.c.Context(), filepath.Join(cfg.StateDir, store.FileName), plan, st)
}

// writeForget appends to the log's file what the daemon would.
func writeForget(ctx context.Context, path string, plan []forgetting, seen *store.State) (err error) {
	log, err := store.Open(path, store.Options{})
	if err != nil {
		return pathed(path, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if log.Last() != seen.Seq() {
		return errors.New("the log has changed meanwhile: run the command again")
	}
	var events []*eventpb.Event
	for _, p := range plan {
		events = append(events, proxy.ForgetEvents(seen, p.backend, p.what)...)
	}
	_, err = log.Append(events...).Wait(ctx)
	return err
}
