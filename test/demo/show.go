package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// show is the demo over a running node.
type show struct {
	lab    *lab.Lab
	node   *node.Node
	logs   string
	before lab.Footprint
	pods   []*node.Pod
}

// names of the pods, by handler.
var names = map[string]string{"docker": "web-on-docker", "containerd": "web-on-containerd"}

// play runs the acts in order.
func (s *show) play(ctx context.Context) (err error) {
	if s.before, err = s.lab.Footprint(ctx); err != nil {
		return err
	}
	for _, act := range []func(context.Context) error{
		s.runPods, s.visit, s.logsAndExec, s.list, s.killIdle, s.killBusy, s.stillManaged, s.timeline, s.removeAll,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *show) runPods(ctx context.Context) error {
	step("Running a pod on Docker and a pod on containerd, through the one socket")
	for _, handler := range []string{"docker", "containerd"} {
		ctr := node.ContainerConfig("web", s.lab.Image("web"))
		p, err := s.node.RunPod(ctx, handler, node.PodConfig(names[handler], s.logs), ctr)
		if err != nil {
			return err
		}
		s.pods = append(s.pods, p)
		say("%-18s RuntimeClass %-10s sandbox %.12s  IP %s", names[handler], handler, p.Sandbox, p.IP)
	}
	return nil
}

// visit fetches each pod's page.
func (s *show) visit(ctx context.Context) error {
	step("Visiting both pods at their pod IPs")
	for _, p := range s.pods {
		body, err := fetch(ctx, "http://"+p.IP+":8080/")
		if err != nil {
			return err
		}
		if !strings.Contains(body, strings.TrimSpace(lab.WebBody)) {
			return fmt.Errorf("%s answers %q", p.IP, body)
		}
		say("GET http://%s:8080/ → %s", p.IP, strings.TrimSpace(body))
	}
	return nil
}

func fetch(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			b, err := io.ReadAll(resp.Body)
			return string(b), errors.Join(err, resp.Body.Close())
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *show) logsAndExec(ctx context.Context) error {
	step("Exec into both, and their logs, in CRI format at the kubelet's path")
	for _, p := range s.pods {
		name := p.Config.Metadata.Name
		word := "hello from " + name
		r, err := s.node.ExecSync(ctx, &runtimeapi.ExecSyncRequest{
			ContainerId: p.Container, Cmd: []string{"sh", "-c", "hostname; echo " + word + " > /proc/1/fd/1"}, Timeout: 10,
		})
		if err != nil {
			return err
		}
		if got := strings.TrimSpace(string(r.Stdout)); got != name || r.ExitCode != 0 {
			return fmt.Errorf("exec in %s printed %q, exit code %d", name, got, r.ExitCode)
		}
		line, err := logLine(ctx, p.LogPath, word)
		if err != nil {
			return err
		}
		say("%-18s $ hostname → %s", name, name)
		say("%-18s log: %s", "", line)
	}
	return nil
}

// logLine waits for a line with the text.
func logLine(ctx context.Context, path, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		b, err := os.ReadFile(path)
		for _, line := range strings.Split(string(b), "\n") {
			if strings.HasSuffix(line, " stdout F "+text) {
				return line, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(fmt.Errorf("the log %s has no line %q", path, text), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *show) list(ctx context.Context) error {
	step("Both in one list")
	return s.expect(ctx, s.pods)
}

// expect checks that the merged list has exactly the given pods, all ready.
func (s *show) expect(ctx context.Context, pods []*node.Pod) error {
	list, err := s.node.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	found := make(map[string]bool)
	for _, sb := range list.Items {
		say("%-22s %-14s handler %-10s %.12s", sb.Metadata.Name, sb.State, sb.RuntimeHandler, sb.Id)
		found[sb.Id] = sb.State == runtimeapi.PodSandboxState_SANDBOX_READY
	}
	for _, p := range pods {
		if !found[p.Sandbox] {
			return fmt.Errorf("%s is not listed as ready", p.Config.Metadata.Name)
		}
	}
	if len(list.Items) != len(pods) {
		return fmt.Errorf("%d sandboxes are listed, and there should be %d", len(list.Items), len(pods))
	}
	return nil
}

func (s *show) killIdle(ctx context.Context) error {
	step("Killing the daemon with SIGKILL while it is idle, and starting it again")
	if err := s.restart(ctx); err != nil {
		return err
	}
	if err := s.visit(ctx); err != nil {
		return err
	}
	return s.expect(ctx, s.pods)
}

func (s *show) restart(ctx context.Context) error {
	if err := s.node.Kill(); err != nil {
		return err
	}
	if err := s.node.Start(ctx); err != nil {
		return err
	}
	return s.node.WaitBackends(ctx)
}

// killBusy kills the daemon when the Engine has just started the pause
// container of a new pod: the container exists, its network is being made.
func (s *show) killBusy(ctx context.Context) error {
	step("Killing it in the middle of a RunPodSandbox on Docker, and repeating the call")
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	started, failed := s.lab.Docker().Events(watch, events.ListOptions{
		Filters: filters.NewArgs(filters.Arg("type", "container"), filters.Arg("event", "start")),
	})
	req := &runtimeapi.RunPodSandboxRequest{Config: node.PodConfig("interrupted", s.logs), RuntimeHandler: "docker"}
	answered := make(chan error, 1)
	go func() {
		_, err := s.node.RunPodSandbox(ctx, req)
		answered <- err
	}()
	select {
	case <-started:
	case err := <-failed:
		return err
	case err := <-answered:
		return fmt.Errorf("the call was over before the daemon could be killed: %w", err)
	}
	if err := s.node.Kill(); err != nil {
		return err
	}
	say("the caller got: %v", <-answered)
	if err := s.node.Start(ctx); err != nil {
		return err
	}
	retry, err := s.node.RunPodSandbox(ctx, req)
	if err != nil {
		return fmt.Errorf("the retry: %w", err)
	}
	say("the retry made sandbox %.12s; what the first call had begun was undone", retry.PodSandboxId)
	return s.oneMore(ctx, &node.Pod{Sandbox: retry.PodSandboxId, Config: req.Config})
}

// oneMore checks that there is exactly one sandbox and one address more than
// the two pods have, and removes it.
func (s *show) oneMore(ctx context.Context, extra *node.Pod) error {
	if err := s.expect(ctx, append(s.pods[:len(s.pods):len(s.pods)], extra)); err != nil {
		return err
	}
	addresses, err := s.addresses()
	if err != nil {
		return err
	}
	if addresses != len(s.pods)+1 {
		return fmt.Errorf("%d pod addresses are held, and there are %d pods", addresses, len(s.pods)+1)
	}
	say("%d pods, %d addresses held: none leaked", len(s.pods)+1, addresses)
	return s.node.RemovePod(ctx, extra.Sandbox)
}

// addresses counts the addresses that the pod network's IPAM holds.
func (s *show) addresses() (int, error) {
	n := 0
	files, err := os.ReadDir(s.lab.IPAMDir + "/" + s.lab.Bridge)
	for _, f := range files {
		if strings.Count(f.Name(), ".") == 3 {
			n++
		}
	}
	return n, err
}

func (s *show) stillManaged(ctx context.Context) error {
	step("The two pods have lived through both kills, and are still managed")
	if err := s.visit(ctx); err != nil {
		return err
	}
	for _, p := range s.pods {
		r, err := s.node.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: p.Container, Cmd: []string{"cat", "/proc/uptime"}, Timeout: 10})
		if err != nil || r.ExitCode != 0 {
			return fmt.Errorf("exec in %s: %v, %w", p.Config.Metadata.Name, r, err)
		}
		if _, err := s.node.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: p.Container, Timeout: 2}); err != nil {
			return err
		}
		say("%-18s exec works; its container was stopped", p.Config.Metadata.Name)
	}
	return nil
}

func (s *show) timeline(ctx context.Context) error {
	for _, pod := range []string{names["docker"], "interrupted"} {
		step("$ crimux timeline %s", pod)
		out, err := s.node.Run(ctx, "timeline", pod)
		if err != nil {
			return err
		}
		fmt.Print(out)
	}
	step("$ crimux verify")
	out, err := s.node.Run(ctx, "verify")
	fmt.Print(out)
	return err
}

func (s *show) removeAll(ctx context.Context) error {
	step("Removing both pods")
	for _, p := range s.pods {
		if err := s.node.RemovePod(ctx, p.Sandbox); err != nil {
			return err
		}
	}
	if err := s.expect(ctx, nil); err != nil {
		return err
	}
	left, err := s.lab.Settled(ctx, s.before)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	say("nothing of them is left on either engine")
	return nil
}
