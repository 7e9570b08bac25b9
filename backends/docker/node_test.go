package docker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// networkReady is the condition of a Status.
func (b *bench) networkReady(t *testing.T) *runtimeapi.RuntimeCondition {
	t.Helper()
	r, err := b.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(r.Status.Conditions, func(c *runtimeapi.RuntimeCondition) bool { return c.Type == runtimeapi.NetworkReady })
	return r.Status.Conditions[i]
}

// TestNetworkReady is true while there is a network, and otherwise says what
// is missing and what to do.
func TestNetworkReady(t *testing.T) {
	b := newBench(t)
	if c := b.networkReady(t); !c.Status {
		t.Fatalf("condition %v", c)
	}
	for name, c := range map[string]struct {
		take string
		want []string
	}{
		"configuration": {"net/10-test.conflist", []string{"no configuration", "install a network add-on"}},
		"folder":        {"net", []string{"does not exist", "install a network add-on"}},
		"plugin":        {"bin/fake", []string{`plugin "fake" not found`, "install it there"}},
	} {
		path := filepath.Join(b.engine.dir, c.take)
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		got := b.networkReady(t)
		if got.Status || got.Reason != "NetworkPluginNotReady" {
			t.Errorf("without the %s: %v", name, got)
		}
		for _, part := range c.want {
			if !strings.Contains(got.Message, part) {
				t.Errorf("without the %s: %q does not say %q", name, got.Message, part)
			}
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		if got := b.networkReady(t); !got.Status {
			t.Errorf("with the %s back: %v", name, got)
		}
	}
}

// TestVerboseStatusNamesWhatIsSkipped.
func TestVerboseStatusNamesWhatIsSkipped(t *testing.T) {
	b := newBench(t)
	if err := os.WriteFile(filepath.Join(b.engine.dir, "net/00-damaged.conflist"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := b.Status(t.Context(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil || !strings.Contains(r.Info["config"], "00-damaged.conflist") {
		t.Errorf("info %v, %v", r.GetInfo(), err)
	}
}

func TestUpdateRuntimeConfig(t *testing.T) {
	b := newBench(t)
	update := func(cidr string) error {
		_, err := b.UpdateRuntimeConfig(t.Context(), &runtimeapi.UpdateRuntimeConfigRequest{
			RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: cidr}}})
		return err
	}
	for _, empty := range []*runtimeapi.UpdateRuntimeConfigRequest{nil, {}, {RuntimeConfig: &runtimeapi.RuntimeConfig{}}} {
		if _, err := b.UpdateRuntimeConfig(t.Context(), empty); err != nil {
			t.Errorf("%v: %v", empty, err)
		}
	}
	for _, cidr := range []string{"10.1.0.0/24,fd00:1::/64", ""} {
		if err := update(cidr); err != nil || b.net.PodCIDR() != "10.1.0.0/24,fd00:1::/64" {
			t.Errorf("told %q: %q, %v", cidr, b.net.PodCIDR(), err)
		}
	}
	if err := update("all of them"); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "pod_cidr") {
		t.Errorf("error %v", err)
	}
	// What cannot be kept is not answered with OK: it is not told again.
	if err := os.RemoveAll(filepath.Join(b.engine.dir, "cache")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.engine.dir, "cache"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := update("10.2.0.0/24"); err == nil || b.net.PodCIDR() != "10.1.0.0/24,fd00:1::/64" {
		t.Errorf("not kept: %v, pod CIDR %q", err, b.net.PodCIDR())
	}
}

// collecting is a network that notes what it is told to keep.
type collecting struct {
	networks
	fail error
	kept []string
}

func (c *collecting) GC(_ context.Context, keep []string) ([]string, error) {
	c.kept = keep
	return []string{"gone"}, c.fail
}

// TestCollectNetworks: only when it is configured, and never from a sandbox
// that the Engine has, whatever the caller knows.
func TestCollectNetworks(t *testing.T) {
	b := newBench(t)
	r, err := b.RunPodSandbox(t.Context(), runRequest(func(*runtimeapi.PodSandboxConfig) {}))
	if err != nil {
		t.Fatal(err)
	}
	net := &collecting{networks: b.net}
	b.pods.net = net
	if err := b.backend.CollectNetworks(t.Context(), nil); err != nil || net.kept != nil {
		t.Errorf("not configured: %v, kept %v", err, net.kept)
	}
	b.collect = true
	b.pods.set("gone", attachment{state: netAttached})
	if err := b.backend.CollectNetworks(t.Context(), []string{"elsewhere"}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"elsewhere", r.PodSandboxId}; !slices.Equal(net.kept, want) {
		t.Errorf("kept %v, want %v", net.kept, want)
	}
	if got := b.pods.get("gone"); got.state != netUnknown {
		t.Errorf("what was taken away is still known as %v", got)
	}
	net.kept = nil
	b.engine.before["list"] = errInjected
	if err := b.backend.CollectNetworks(t.Context(), nil); err == nil || net.kept != nil {
		t.Errorf("while the engine does not say what it has: %v, kept %v", err, net.kept)
	}
	delete(b.engine.before, "list")
	net.fail = errInjected
	if err := b.backend.CollectNetworks(t.Context(), nil); err == nil || !strings.Contains(err.Error(), errInjected.Error()) {
		t.Errorf("error %v", err)
	}
}
