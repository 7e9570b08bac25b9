// Command crimux is one CRI socket for many container runtimes, with a log of
// everything that happens to a node's pods.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes. Those of verify are its own.
const (
	exitFailed = 1
	exitUsage  = 64
)

// version is stamped by the build.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// run carries out the command line and returns the exit code.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "crimux: %v\nRun 'crimux --help' for usage.\n", err)
		return exitUsage
	default:
		fmt.Fprintf(os.Stderr, "crimux: %v\n", err)
		return exitFailed
	}
}

// exitError ends the program with a code of its own and no further message.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// usageError is a command line that cannot be carried out.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "crimux",
		Short:         "One CRI socket, many container runtimes, every event remembered",
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().String("config", defaultConfig, "configuration file")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newServe(), newEvents(), newState(), newTimeline(), newDiff(), newExplain(), newExport(), newReplay(),
		newVerify(), newForget(), newConfig())
	return root
}

// defaultConfig is where the configuration lies unless --config says so.
const defaultConfig = "/etc/crimux/config.yaml"

func configPath(c *cobra.Command) string {
	return c.Flag("config").Value.String()
}

// noArguments refuses arguments and names the first.
func noArguments(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case c.HasParent():
		return usageError{fmt.Errorf("%s: unknown argument or command %q", c.CommandPath(), args[0])}
	default:
		return usageError{fmt.Errorf("unknown command %q", args[0])}
	}
}

// buildVersion is the stamped version, or for a build without a stamp the
// revision that Go noted.
func buildVersion() string {
	if version != "devel" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "devel-" + s.Value[:12]
			}
		}
	}
	return version
}
