package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store/eventpb"
)

// completionTime is how long a person waits for a completion.
const completionTime = time.Second

// completions completes with what names returns; what goes wrong completes
// nothing, since there is nobody to tell.
func completions(c *cobra.Command, begun string, names func(*eventpb.State) []string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completionTime)
	defer cancel()
	c.SetContext(ctx)
	state := &eventpb.State{}
	if src, err := openSource(c); err == nil {
		defer src.Close()
		// Of a log that takes too long there is the state that was come to.
		state, _ = src.state()
	}
	all := slices.DeleteFunc(names(state), func(n string) bool { return n == "" || !strings.HasPrefix(n, begun) })
	slices.Sort(all)
	return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
}

// completePod completes a pod as NAMESPACE/NAME, or as its name alone.
func completePod(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completions(c, begun, func(s *eventpb.State) []string {
		var names []string
		for _, sb := range s.GetSandboxes() {
			p := sb.GetPod()
			names = append(names, p.GetNamespace()+"/"+p.GetName())
			if begun != "" {
				names = append(names, p.GetName(), p.GetUid())
			}
		}
		return names
	})
}

func completeNamespace(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return completions(c, begun, func(s *eventpb.State) []string {
		var names []string
		for _, sb := range s.GetSandboxes() {
			names = append(names, sb.GetPod().GetNamespace())
		}
		return names
	})
}

// completeBackend completes a backend that the log knows or that is configured.
func completeBackend(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return completions(c, begun, func(s *eventpb.State) []string {
		var names []string
		for _, b := range s.GetBackends() {
			names = append(names, b.GetName())
		}
		for _, sb := range s.GetSandboxes() {
			names = append(names, sb.GetBackend())
		}
		if cfg, err := policy.Load(configPath(c)); err == nil {
			for _, b := range cfg.Backends {
				names = append(names, b.Name)
			}
		}
		return names
	})
}

// completeKind completes the last of a list of kinds.
func completeKind(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	head := begun[:strings.LastIndexByte(begun, ',')+1]
	var names []string
	for _, k := range view.Kinds {
		if strings.HasPrefix(head+k, begun) {
			names = append(names, head+k)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeFlags gives a command's flags their completion.
func completeFlags(c *cobra.Command, by map[string]cobra.CompletionFunc) {
	for name, f := range by {
		// It fails only for a flag that there is not, which a test would see.
		_ = c.RegisterFlagCompletionFunc(name, f)
	}
}
