package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/policy"
)

func newConfig() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration",
		Args:  noArguments,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newConfigCheck())
	return c
}

func newConfigCheck() *cobra.Command {
	online := false
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Tell whether a configuration file can be used",
		Long: `Tell whether a configuration file can be used, without touching the node.

All problems are printed, each on a line of its own as FILE:LINE: KEY: MESSAGE,
and the exit code is 1. FILE is the one that --config names unless it is given.
With --online the backends are asked for their cgroup drivers as well, which
must be one and the same on a node.`,
		Example: `  crimux config check
  crimux config check ./crimux.yaml && install -m 644 ./crimux.yaml /etc/crimux/config.yaml`,
		Args: atMostOne("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			path := configPath(c)
			if len(args) == 1 {
				path = args[0]
			}
			cfg, err := policy.Load(path)
			var invalid *policy.InvalidError
			if errors.As(err, &invalid) {
				// Editors and CI find the place by the beginning of the line.
				fmt.Fprintln(c.ErrOrStderr(), invalid)
				return exitError{exitFailed}
			}
			if err != nil {
				return err
			}
			if online {
				if err := reportDrivers(c, path, cfg); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: ok: %s\n", path, summary(cfg))
			return err
		},
	}
	cmd.Flags().BoolVar(&online, "online", false, "ask the backends whether their cgroup drivers agree")
	return cmd
}

// reportDrivers prints which backends' cgroup drivers differ.
func reportDrivers(c *cobra.Command, path string, cfg *policy.Config) error {
	differ, err := checkDrivers(c.Context(), cfg, c.ErrOrStderr())
	for _, d := range differ {
		fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", path, d)
	}
	if len(differ) > 0 {
		return exitError{exitFailed}
	}
	return err
}

// summary is a configuration in one line.
func summary(cfg *policy.Config) string {
	var names []string
	for _, b := range cfg.Backends {
		names = append(names, fmt.Sprintf("%s (%s)", b.Name, b.Type))
	}
	handlers := "none"
	if h := cfg.Handlers(); len(h) > 0 {
		handlers = strings.Join(h, ", ")
	}
	migration := "none"
	if m := cfg.Migration; m.To != "" {
		migration = fmt.Sprintf("%d%% to %s", m.Percent, m.To)
	}
	return fmt.Sprintf("backends %s; handlers %s; default %s; migration %s",
		strings.Join(names, ", "), handlers, cfg.Default, migration)
}

// atMostOne accepts no argument or one, which help calls name.
func atMostOne(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usageError{fmt.Errorf("%s: takes one %s, not %d", c.CommandPath(), name, len(args))}
		}
		return nil
	}
}

// exactlyOne accepts one argument, which help calls name.
func exactlyOne(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{fmt.Errorf("%s: say which %s", c.CommandPath(), name)}
		}
		return atMostOne(name)(c, args)
	}
}
