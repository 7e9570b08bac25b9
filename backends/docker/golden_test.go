package docker

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/cni"
)

var updateGolden = flag.Bool("update", false, "write the golden files anew")

// golden is a request to the Engine, and what goes on beside it.
type golden struct {
	Name       string
	Config     *container.Config
	HostConfig *container.HostConfig
	ResolvConf string            `json:",omitempty"`
	Ports      []cni.PortMapping `json:",omitempty"`
	HostPaths  []string          `json:",omitempty"`
}

// TestKubelet: what a stock kubelet v1.36 sends for an ordinary pod, with all
// that it adds unasked, on both kinds of nodes.
func TestKubelet(t *testing.T) {
	v1, v2 := testFacts(), ableFacts()
	// Nothing of this hangs on what a newer Engine can.
	v2.apparmor, v2.selinux, v2.cgroupDriver = false, false, "systemd"
	for node, f := range map[string]*facts{"cgroup1": v1, "cgroup2": v2} {
		t.Run(node, func(t *testing.T) {
			var run runtimeapi.RunPodSandboxRequest
			readRequest(t, node+"-run", &run)
			s, err := translateSandbox(&run, f, testNode())
			if err == nil {
				err = s.finish(image.InspectResponse{ID: "sha256:1"}, "op", engineTime("2024-01-01T00:00:00Z"))
			}
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, node+"-run", golden{Name: s.id.name(), Config: s.config, HostConfig: s.host, ResolvConf: s.resolvConf, Ports: s.attach.PortMappings})

			var create runtimeapi.CreateContainerRequest
			readRequest(t, node+"-create", &create)
			if err := checkCreate(&create); err != nil {
				t.Fatal(err)
			}
			c, err := translateContainer(&create, podSandbox{id: create.PodSandboxId, object: object{identity: s.id}}, f, testNode())
			if err == nil {
				err = c.finish(image.InspectResponse{}, "op", engineTime("2024-01-01T00:00:00Z"))
			}
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, node+"-create", golden{Name: c.id.name(), Config: c.config, HostConfig: c.host, HostPaths: c.hostPaths})
		})
	}
}

func readRequest(t *testing.T, name string, into proto.Message) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "kubelet", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// compareGolden compares with the file, or writes it with -update.
func compareGolden(t *testing.T, name string, got golden) {
	t.Helper()
	b, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	file := filepath.Join("testdata", "kubelet", name+".golden.json")
	if *updateGolden {
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	was, is := strings.Split(string(want), "\n"), strings.Split(string(b), "\n")
	for i := range max(len(was), len(is)) {
		if i < len(was) && i < len(is) && was[i] == is[i] {
			continue
		}
		t.Fatalf("%s: the request to the engine has changed; if it should have: go test ./backends/docker -run TestKubelet -update\nline %d\ngot  %q\nwant %q",
			name, i+1, is[min(i, len(is)-1)], was[min(i, len(was)-1)])
	}
}
