package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// driverOnly is a runtime that tells its cgroup driver and nothing else.
type driverOnly struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	driver runtimeapi.CgroupDriver
}

func (d driverOnly) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: d.driver}}, nil
}

func serveDriver(t *testing.T, d runtimeapi.CgroupDriver) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "cri.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(s, driverOnly{driver: d})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return socket
}

// TestConfigCheckOnline finds backends whose cgroup drivers differ, and says
// who was not there to be asked.
func TestConfigCheckOnline(t *testing.T) {
	systemd, systemd2, cgroupfs := serveDriver(t, 0), serveDriver(t, 0), serveDriver(t, 1)
	away := filepath.Join(t.TempDir(), "none.sock")
	for _, row := range []struct {
		name, other string
		code        int
		errOut      []string
	}{
		{"the same", systemd2, 0, nil},
		{"another", cgroupfs, exitFailed, []string{"config.yaml: backends.other: has cgroup driver cgroupfs", "the default, first, has systemd", "configure both alike"}},
		{"away", away, 0, []string{"backend other: its cgroup driver is not known", away}},
	} {
		t.Run(row.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.yaml")
			config := fmt.Sprintf("apiVersion: crimux.dev/v1\nkind: Config\nbackends:\n  first: {type: cri, endpoint: \"unix://%s\"}\n  other: {type: cri, endpoint: \"unix://%s\"}\ndefault: first\n", systemd, row.other)
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			r := crimux(t, "config", "check", "--online", file)
			if r.code != row.code {
				t.Errorf("exit %d, want %d: %s%s", r.code, row.code, r.out, r.errOut)
			}
			contains(t, r.errOut, row.errOut...)
			if r := crimux(t, "config", "check", file); r.code != 0 || r.errOut != "" {
				t.Errorf("without --online: exit %d, %q", r.code, r.errOut)
			}
		})
	}
}
