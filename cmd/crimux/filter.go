package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// eventFilter says which events are wanted.
type eventFilter struct {
	pod, namespace, backend string
	kinds                   []string
	sinceText, untilText    string
	failed                  bool

	sel          view.Selector
	since, until point
	// begun and over are set once the points were passed: a clock that was
	// set back brings neither back.
	begun, over bool
}

// flags gives a command the filter's flags.
func (f *eventFilter) flags(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.pod, "pod", "", "print events of this `POD` only")
	fl.StringVarP(&f.namespace, "namespace", "n", "", "print events of pods in this `NAMESPACE` only")
	fl.StringVar(&f.backend, "backend", "", "print events of this `BACKEND` only")
	fl.StringSliceVar(&f.kinds, "kind", nil, "print events of these `KINDS` only, such as outcome,health")
	fl.StringVar(&f.sinceText, "since", "", "print events after this `POINT`")
	fl.StringVar(&f.untilText, "until", "", "print no events after this `POINT`")
	fl.BoolVar(&f.failed, "failed", false, "print only what went wrong")
	completeFlags(c, map[string]cobra.CompletionFunc{
		"pod": completePod, "namespace": completeNamespace, "backend": completeBackend, "kind": completeKind,
	})
}

// parse reads what the flags hold.
func (f *eventFilter) parse(now time.Time) error {
	for _, k := range f.kinds {
		if !slices.Contains(view.Kinds, k) {
			return fmt.Errorf("--kind: there is no kind %q: there are %s", k, strings.Join(view.Kinds, ", "))
		}
	}
	var err error
	if f.since, err = parsePoint(f.sinceText, now); err != nil {
		return fmt.Errorf("--since: %w", err)
	}
	if f.until, err = parsePoint(f.untilText, now); err != nil {
		return fmt.Errorf("--until: %w", err)
	}
	f.begun = f.since == point{}
	if f.pod != "" {
		f.sel = view.NewSelector(f.pod)
	}
	f.sel = f.sel.In(f.namespace)
	return nil
}

// wants tells whether an event is wanted, but for failed, which depends on
// those before it; errPassed, that none will be any more.
func (f *eventFilter) wants(before *store.State, e *eventpb.Event) (bool, error) {
	if f.until.passed(e) {
		f.over = true
		return false, errPassed
	}
	f.begun = f.begun || f.since.passed(e)
	return f.begun &&
		(f.backend == "" || e.GetBackend() == f.backend) &&
		(len(f.kinds) == 0 || slices.Contains(f.kinds, view.KindOf(e))) &&
		f.sel.Selects(before, e), nil
}
