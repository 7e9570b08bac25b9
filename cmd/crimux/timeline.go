package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func newTimeline() *cobra.Command {
	return &cobra.Command{
		Use:   "timeline POD",
		Short: "Tell the story of one pod",
		Args:  exactlyOne("POD"),
		RunE: func(c *cobra.Command, args []string) error {
			src, err := openSource(c)
			if err != nil {
				return err
			}
			defer src.Close()
			return src.walk(c.Context(), func(_ *store.State, e *eventpb.Event) error {
				if e.GetIntent().GetPod().GetName() != args[0] {
					return nil
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "%d %s\n", e.GetSeq(), e.GetIntent().GetMethod())
				return err
			})
		},
	}
}
