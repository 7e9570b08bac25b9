package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func newEvents() *cobra.Command {
	return &cobra.Command{
		Use:   "events",
		Short: "Print the event log",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			src, err := openSource(c)
			if err != nil {
				return err
			}
			defer src.Close()
			return src.walk(c.Context(), func(_ *store.State, e *eventpb.Event) error {
				_, err := fmt.Fprintf(c.OutOrStdout(), "%d %T\n", e.GetSeq(), e.GetKind())
				return err
			})
		},
	}
}
