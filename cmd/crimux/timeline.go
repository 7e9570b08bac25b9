package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func newTimeline() *cobra.Command {
	var asJSON, absolute bool
	c := &cobra.Command{
		Use:   "timeline POD",
		Short: "Tell the story of one pod",
		Long: `Tell the story of one pod: where it was put and by which rule, every operation
with its duration and outcome, what was seen to happen to it, and what crashes
of the daemon meant for it; over all its sandboxes and on whatever backends.

POD is a name, NAMESPACE/NAME, a uid, or the id of a sandbox or container; of
uids and ids the beginning is enough. Of several pods with the name, such as
those of a StatefulSet or in several namespaces, each story is told, the newest
last.

AT counts from the story's beginning. SEQ are the first and last event of an
operation: 'crimux events --from SEQ' shows them and what else happened then.
The steps of an operation follow it, each with the time since the one before.

` + fileHelp + `

--json prints one JSON object per pod and line:

` + view.StoryHelp,
		Example: `  crimux timeline web
  crimux timeline kube-system/coredns-5d78c9869d-abcde --absolute
  crimux timeline 4f5e6a7b8c9d --json | jq '.lines[] | select(.failed)'`,
		Args:              exactlyOne("POD"),
		ValidArgsFunction: completePod,
		RunE: aboutPod(&absolute, func(out *output, stories []*view.Story) error {
			return printStories(out, stories, asJSON)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object per pod")
	c.Flags().BoolVar(&absolute, "absolute", false, "print times as RFC 3339 instead of since the beginning")
	addFile(c)
	return c
}

// aboutPod is a command that prints something about the pod that its argument
// names.
func aboutPod(absolute *bool, print func(*output, []*view.Story) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if args[0] == "" {
			return usageError{fmt.Errorf("%s: POD is empty", c.CommandPath())}
		}
		return reading(c, *absolute, func(src *source, out *output) error {
			stories, err := tellStories(src, args[0])
			if err != nil {
				return err
			}
			return print(out, stories)
		})
	}
}

// tellStories reads the log twice: which pod an id belongs to is known only
// after the pod's first events.
func tellStories(src *source, pod string) ([]*view.Story, error) {
	finder := view.NewFinder(view.NewSelector(pod))
	if _, err := src.walk(noting(finder.Add)); err != nil {
		return nil, err
	}
	pods, err := finder.Pods()
	if errors.Is(err, view.ErrNoPod) {
		return nil, fmt.Errorf("%q: %w: 'crimux state' lists the pods that there are", pod, err)
	}
	if err != nil {
		return nil, err
	}
	teller := view.NewTeller(pods)
	w, err := src.walk(noting(teller.Add))
	if err != nil {
		return nil, err
	}
	return teller.Stories(w.state), nil
}

// noting makes a function that cannot fail fit for a walker.
func noting(add func(*store.State, *eventpb.Event)) func(*store.State, *eventpb.Event) error {
	return func(before *store.State, e *eventpb.Event) error {
		add(before, e)
		return nil
	}
}

func printStories(out *output, stories []*view.Story, asJSON bool) error {
	for i, s := range stories {
		if asJSON {
			if err := out.line(s); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := view.WriteStory(out, s, out.now, out.colour); err != nil {
			return err
		}
	}
	return nil
}
