package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/store"
)

const (
	exitDamaged    = 1
	exitUnreadable = 2
)

func newVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Check the event log",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			src, err := openSource(c)
			if err != nil {
				return unverified(c, err)
			}
			defer src.Close()
			r, err := store.Verify(src)
			if err != nil {
				return unverified(c, err)
			}
			if r.Damage != nil {
				return unverified(c, r.Damage)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "sound: %d events\n", r.Count)
			return err
		},
	}
}

// unverified says why the log is not sound, or not known to be.
func unverified(c *cobra.Command, err error) error {
	fmt.Fprintf(c.ErrOrStderr(), "crimux: %v\n", err)
	if errors.Is(err, store.ErrDamaged) {
		return exitError{exitDamaged}
	}
	return exitError{exitUnreadable}
}
