package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/cmd/crimux/view"
)

// explanation is what is said of one pod, for programs.
type explanation struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	UID       string   `json:"uid"`
	State     string   `json:"state"`
	Sentences []string `json:"sentences"`
}

func newExplain() *cobra.Command {
	var asJSON, absolute bool
	c := &cobra.Command{
		Use:   "explain POD",
		Short: "Say in plain words why a pod is where it is",
		Long: `Say in a few sentences why a pod is where it is and what happened to it: the
rule that placed it, moves, containers that ended and were restarted, calls
that failed, crashes of the daemon, absences of its backend. It knows only what
the events tell; 'crimux timeline' shows them one by one.

POD is a name, NAMESPACE/NAME, a uid, or the id of a sandbox or container; of
uids and ids the beginning is enough. Of several pods with the name each is
explained, the newest last.

` + fileHelp + `

--json prints one JSON object per pod and line: namespace, name, uid, state
(READY, NOTREADY, removed, or "" where it never had a sandbox), sentences.`,
		Example: `  crimux explain web
  crimux explain kube-system/coredns-5d78c9869d-abcde
  crimux explain web --file report.jsonl --absolute`,
		Args:              exactlyOne("POD"),
		ValidArgsFunction: completePod,
		RunE: aboutPod(&absolute, func(out *output, stories []*view.Story) error {
			return printExplanations(out, stories, asJSON)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object per pod")
	c.Flags().BoolVar(&absolute, "absolute", false, "say times as RFC 3339 instead of relative to now")
	addFile(c)
	return c
}

func printExplanations(out *output, stories []*view.Story, asJSON bool) error {
	for i, s := range stories {
		sentences := view.Explain(s, out.now)
		if asJSON {
			if err := out.line(explanation{s.Namespace, s.Name, s.UID, s.State, sentences}); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(out)
		}
		if _, err := fmt.Fprintln(out, strings.Join(sentences, "\n")); err != nil {
			return err
		}
	}
	return nil
}
