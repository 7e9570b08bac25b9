package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/cmd/crimux/view"
	"github.com/crimux/crimux/proxy"
	"github.com/crimux/crimux/store/eventpb"
)

// Exit codes of a rehearsal, beside 0.
const (
	exitDiffered    = 1
	exitUnrehearsed = 2
)

const rehearseHelp = `Rehearse a pod on another backend: its requests are carried out there once
more, what comes of them is compared with what was recorded, the differences
are printed, and what was made is removed. It tells whether a pod of Docker
will run on containerd before it moves.

POD is a name, NAMESPACE/NAME, a uid, or the id of a sandbox or container, of a
pod that is there. The daemon must run.

The rehearsal has a namespace (crimux-rehearsal), a name and a uid of its own,
no host ports, nothing of the host's namespaces, folders and devices, no service
account, and logs of its own. The kubelet does not see it. By --level:

  create  make the sandbox and the containers, and start nothing (the default)
  start   start the containers too, in the pod's order, with the network's
          links down. What ended in the recording must end with the same code
          within --timeout, and what runs must go on running.

--network leaves the network up: the workload then runs twice, and may take what
is in a queue, or send mail. --host-mounts brings the host's folders in, to be
read only, and its devices.

Command, arguments, environment, mounts and security settings are in no log:
they are asked of the pod's own runtime. What that cannot tell, or the pod has
and its rehearsal must not have, is listed and not compared. --env-file sets
variables in all containers, over what they have: lines of NAME=VALUE, of which
the value is taken as it is, quotes and blanks included; the last of a NAME
holds. Empty lines and those that begin with # are skipped.

An image that the backend lacks is copied there from the node's other runtimes;
it is pulled only with --pull. It stays there.

--json prints one object: docs/replay.md tells its fields. The exit code is 0
where the rehearsal agreed with the recording, 1 where it differed, 2 where it
could not be carried out.`

// rehearsing are the flags of a rehearsal.
type rehearsing struct {
	on, level, envFile        string
	network, hostMounts, pull bool
	timeout                   time.Duration
}

func (r *rehearsing) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.on, "on", "", "the `BACKEND` to rehearse on")
	f.StringVar(&r.level, "level", proxy.LevelCreate, "how far to go: create or start")
	f.BoolVar(&r.network, "network", false, "leave the network up")
	f.BoolVar(&r.hostMounts, "host-mounts", false, "bring the host's folders in, to be read only, and its devices")
	f.BoolVar(&r.pull, "pull", false, "pull images that the node has nowhere")
	f.StringVar(&r.envFile, "env-file", "", "a `FILE` with variables to set, lines of NAME=VALUE")
	f.DurationVar(&r.timeout, "timeout", time.Minute, "how long what ended in the recording may take to end")
	completeFlags(c, map[string]cobra.CompletionFunc{
		"on":    completeBackend,
		"level": cobra.FixedCompletions([]string{proxy.LevelCreate, proxy.LevelStart}, cobra.ShellCompDirectiveNoFileComp),
	})
}

// rehearse carries out the command. Its errors are those of exit code 2.
func rehearse(c *cobra.Command, pod string, r rehearsing, asJSON bool) error {
	switch {
	case pod == "":
		return usageError{fmt.Errorf("%s: POD is empty", c.CommandPath())}
	case r.on == "":
		return usageError{fmt.Errorf("%s: --on BACKEND says where to rehearse; --dry-run FILE folds an exported log", c.CommandPath())}
	case r.level != proxy.LevelCreate && r.level != proxy.LevelStart:
		return usageError{fmt.Errorf("%s: --level: %q is neither %s nor %s", c.CommandPath(), r.level, proxy.LevelCreate, proxy.LevelStart)}
	case r.timeout <= 0:
		return usageError{fmt.Errorf("%s: --timeout: %s is no time", c.CommandPath(), r.timeout)}
	}
	report, err := r.carryOut(c, pod)
	if c.Context().Err() != nil {
		hint(c, "interrupted: the daemon removes what was made")
		return exitError{exitInterrupted}
	}
	if err != nil {
		hint(c, "crimux: "+err.Error())
		return exitError{exitUnrehearsed}
	}
	if err := printRehearsal(newOutput(c, true), report, asJSON); err != nil {
		return err
	}
	if !report.Agreed {
		return exitError{exitDiffered}
	}
	return nil
}

// carryOut has the daemon do it.
func (r rehearsing) carryOut(c *cobra.Command, pod string) (report *proxy.Rehearsal, err error) {
	env, err := readEnvFile(r.envFile)
	if err != nil {
		return nil, err
	}
	src, err := openSource(c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if src.daemon == nil {
		return nil, fmt.Errorf("a rehearsal is carried out by the daemon: %s", src.noDaemon)
	}
	sandbox, err := sandboxOf(c.Context(), src, pod)
	if err != nil {
		return nil, err
	}
	return src.daemon.Rehearse(c.Context(), proxy.RehearsalRequest{
		Sandbox: sandbox, On: r.on, Level: r.level, Network: r.network, HostMounts: r.hostMounts, Pull: r.pull, Env: env, Timeout: r.timeout,
	}, func(words string) { hint(c, words) })
}

// sandboxOf finds the newest sandbox of the one pod that is meant.
func sandboxOf(ctx context.Context, src *source, what string) (string, error) {
	finder := view.NewFinder(view.NewSelector(what))
	if _, err := src.walk(noting(finder.Add)); err != nil {
		return "", err
	}
	pods, err := finder.Pods()
	if errors.Is(err, view.ErrNoPod) {
		return "", fmt.Errorf("%q: %w: 'crimux state' lists the pods that there are", what, err)
	}
	if err != nil {
		return "", err
	}
	state, err := src.daemon.State(ctx)
	if err != nil {
		return "", err
	}
	var there []string
	sandbox := ""
	for _, p := range pods {
		if id := newestSandbox(state, p); id != "" {
			there, sandbox = append(there, p.UID), id
		}
	}
	switch len(there) {
	case 0:
		return "", fmt.Errorf("%q: the pod is not there any more, and no log has the command and environment that a rehearsal needs", what)
	case 1:
		return sandbox, nil
	}
	return "", fmt.Errorf("%q names %d pods that are there: write the uid of one: %s", what, len(there), strings.Join(there, ", "))
}

// newestSandbox is the id of a pod's newest sandbox, "" where it has none.
func newestSandbox(state *eventpb.State, p view.FoundPod) string {
	mine := slices.DeleteFunc(slices.Clone(state.GetSandboxes()), func(sb *eventpb.Sandbox) bool {
		k := sb.GetPod()
		return sb.GetLabels()[backends.LabelRehearsal] != "" || k.GetUid() != p.UID || k.GetNamespace() != p.Namespace || k.GetName() != p.Name
	})
	if len(mine) == 0 {
		return ""
	}
	return slices.MaxFunc(mine, func(a, b *eventpb.Sandbox) int {
		return cmp.Or(cmp.Compare(b.GetState(), a.GetState()), cmp.Compare(a.GetCreatedAt(), b.GetCreatedAt()))
	}).GetId()
}

// maxEnvLine bounds one line of an environment's file.
const maxEnvLine = 1 << 20

// readEnvFile reads lines of NAME=VALUE.
func readEnvFile(path string) (env []proxy.EnvVar, err error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxEnvLine)
	n := 1
	for ; lines.Scan(); n++ {
		text := lines.Text()
		if trimmed := strings.TrimSpace(text); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		v, err := parseEnv(text)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d %w", path, n, err)
		}
		env = append(env, v)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: line %d: %w", path, n, err)
	}
	return env, nil
}

// parseEnv reads a line. It may be a secret, and is in no error.
func parseEnv(line string) (proxy.EnvVar, error) {
	name, value, ok := strings.Cut(line, "=")
	name = strings.TrimSpace(name)
	switch {
	case !ok || name == "":
		return proxy.EnvVar{}, errors.New("is not NAME=VALUE")
	case strings.ContainsFunc(name, unicode.IsSpace):
		return proxy.EnvVar{}, errors.New("has a name with a blank in it: write NAME=VALUE alone, without export")
	case !utf8.ValidString(line) || strings.ContainsRune(line, 0):
		return proxy.EnvVar{}, errors.New("is no UTF-8 text")
	}
	return proxy.EnvVar{Name: name, Value: value}, nil
}

func printRehearsal(out *output, r *proxy.Rehearsal, asJSON bool) error {
	if asJSON {
		return errors.Join(out.line(r), out.Flush())
	}
	how := "level " + r.Level
	if r.Level == proxy.LevelStart && !r.Network {
		how += ", network down"
	}
	fmt.Fprintf(out, "%s/%s of %s, rehearsed on %s (%s)\n\n", view.Clean(r.Namespace), view.Clean(r.Name), r.From, r.On, how)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "OPERATION\tCONTAINER\tRECORDED\tREHEARSED")
	for _, op := range r.Operations {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", op.Method, cmp.Or(view.Clean(op.Container), "-"), wordsOf(op.Recorded), wordsOf(op.Rehearsed))
	}
	for _, ctr := range r.Containers {
		now := "not started"
		if ctr.Rehearsed != nil {
			now = ctr.Rehearsed.String()
		}
		fmt.Fprintf(w, "state\t%s\t%s\t%s\n", view.Clean(ctr.Name), ctr.Recorded, now)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	printList(out, "not rehearsed, since it is the host's:", r.LeftOut)
	printList(out, "not known of the pod, and not compared:", r.Missing)
	printList(out, "notes:", r.Notes)
	if len(r.Differences) == 0 {
		fmt.Fprintln(out, "\nno differences")
	}
	printList(out, "differences:", r.Differences)
	if !r.Undone {
		fmt.Fprintf(out, "\nsome of it is still there, and is removed as soon as that can be done: %s\n", view.Clean(r.Owed))
	}
	return out.Flush()
}

func printList(out *output, title string, list []string) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%s\n", title)
	for _, l := range list {
		fmt.Fprintf(out, "  %s\n", view.Clean(l))
	}
}

// wordsOf is a result in a few words.
func wordsOf(r *proxy.Result) string {
	if r == nil {
		return "not recorded"
	}
	return fmt.Sprintf("%s, %s", r.Code, time.Duration(r.Nanoseconds).Round(time.Millisecond))
}
