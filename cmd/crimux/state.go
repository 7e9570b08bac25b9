package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

func newState() *cobra.Command {
	return &cobra.Command{
		Use:   "state",
		Short: "Print the pods as the log knows them",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			src, err := openSource(c)
			if err != nil {
				return err
			}
			defer src.Close()
			w := newWalker(c.Context(), func(*store.State, *eventpb.Event) error { return nil })
			if err := src.Records(0, w.next); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), protojson.Format(w.state.Proto()))
			return err
		},
	}
}
