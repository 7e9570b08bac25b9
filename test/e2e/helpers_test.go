package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/node"
)

// runWeb runs a pod that answers HTTP.
func runWeb(t *testing.T, n *node.Node, handler, name string) *node.Pod {
	t.Helper()
	p, err := n.RunPod(t.Context(), handler, node.PodConfig(name, logs(t)), node.ContainerConfig("web", shared.Image("web")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// runSleep runs a pod whose container does nothing for long.
func runSleep(t *testing.T, n *node.Node, handler, name string) *node.Pod {
	t.Helper()
	p, err := n.RunPod(t.Context(), handler, node.PodConfig(name, logs(t)), node.ContainerConfig("main", shared.Image("busybox"), "sleep", "1000000"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// get fetches the page of a pod.
func get(ip string) (string, error) {
	var err error
	for range 50 {
		var resp *http.Response
		resp, err = (&http.Client{Timeout: time.Second}).Get("http://" + ip + ":8080/")
		if err == nil {
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			return string(b), err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", err
}

// eventually waits for what takes a moment on an idle machine. On a busy one it
// may take long; but what Docker's events should have told must not be found by
// the look at all of it, each half minute.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	var err error
	for tries, end := 0, time.Now().Add(25*time.Second); tries < 100 || time.Now().Before(end); tries++ {
		if err = ok(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("never so: %s: %v", what, err)
}

// sandboxes maps the ids of the merged list to their state.
func sandboxes(t *testing.T, n *node.Node) map[string]runtimeapi.PodSandboxState {
	t.Helper()
	list, err := n.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]runtimeapi.PodSandboxState)
	for _, sb := range list.Items {
		got[sb.Id] = sb.State
	}
	return got
}

// logHas checks that a CRI log file has a line with the text.
func logHas(path, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(b), "\n") {
		parts := strings.SplitN(line, " ", 4)
		if len(parts) == 4 && parts[3] == text {
			if _, err := time.Parse(time.RFC3339Nano, parts[0]); err != nil {
				return err
			}
			if parts[2] != "F" {
				return fmt.Errorf("the line is tagged %q", parts[2])
			}
			return nil
		}
	}
	return fmt.Errorf("no line %q in %q", text, b)
}

// notYet is a state that is not the one waited for.
type notYet struct{ is any }

func (e *notYet) Error() string { return fmt.Sprintf("it is %v", e.is) }

// wantInvalid checks that a request was refused as invalid, in words that
// have all parts.
func wantInvalid(t *testing.T, err error, parts ...string) {
	t.Helper()
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v, want InvalidArgument", err)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%v does not say %q", err, p)
		}
	}
}

func containerStop(seconds int) container.StopOptions {
	return container.StopOptions{Timeout: &seconds}
}
