package docker

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestDescribe: what the Engine has of a container is a request again.
func TestDescribe(t *testing.T) {
	f := &found{InspectResponse: container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{HostConfig: &container.HostConfig{
			Resources: container.Resources{
				Memory: 1 << 20, MemorySwap: 2 << 20, CPUShares: 512,
				Devices: []container.DeviceMapping{{PathOnHost: "/dev/fuse", PathInContainer: "/dev/fuse", CgroupPermissions: "rw"}},
			},
			CapAdd: []string{"CAP_NET_ADMIN"}, CapDrop: []string{"ALL"}, GroupAdd: []string{"7"}, ReadonlyRootfs: true, PidMode: "container:x",
			SecurityOpt: []string{"no-new-privileges", "seccomp=unconfined", "apparmor=mine"},
			Mounts:      []mount.Mount{{Type: mount.TypeBind, Source: "/srv", Target: "/data", ReadOnly: true}},
		}},
		Config: &container.Config{Entrypoint: []string{"serve"}, Cmd: []string{"--all"}, User: "5:6", WorkingDir: "/srv", Tty: true},
	}, object: object{image: "busybox:1"}}
	d := f.describe([]string{"A=b=c"})
	want := &runtimeapi.ContainerConfig{
		Image: &runtimeapi.ImageSpec{Image: "busybox:1"}, Command: []string{"serve"}, Args: []string{"--all"}, WorkingDir: "/srv", Tty: true,
		Envs:    []*runtimeapi.KeyValue{{Key: "A", Value: []byte("b=c")}},
		Mounts:  []*runtimeapi.Mount{{HostPath: "/srv", ContainerPath: "/data", Readonly: true}},
		Devices: []*runtimeapi.Device{{HostPath: "/dev/fuse", ContainerPath: "/dev/fuse", Permissions: "rw"}},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 1 << 20, CpuShares: 512},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				RunAsUser: &runtimeapi.Int64Value{Value: 5}, RunAsGroup: &runtimeapi.Int64Value{Value: 6}, SupplementalGroups: []int64{7},
				Capabilities:     &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"ALL"}},
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_POD},
				ReadonlyRootfs:   true, NoNewPrivs: true,
				Seccomp:  &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined},
				Apparmor: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "mine"},
			},
		},
	}
	if !proto.Equal(d.Config, want) {
		t.Errorf("got  %v\nwant %v", d.Config, want)
	}
	if len(d.Unknown) > 0 {
		t.Errorf("unknown: %q", d.Unknown)
	}
	f.Config.User, f.HostConfig.SecurityOpt = "web:staff", []string{`seccomp={"defaultAction":"x"}`}
	d = f.describe(nil)
	if d.Config.Linux.SecurityContext.RunAsUsername != "web" ||
		!slices.Equal(d.Unknown, []string{describedSecurity + "run_as_group", describedSecurity + "seccomp"}) {
		t.Errorf("by name: %v, unknown %q", d.Config.Linux.SecurityContext, d.Unknown)
	}
}

func TestReadResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	want := &runtimeapi.DNSConfig{Servers: []string{"10.0.0.1", "10.0.0.2"}, Searches: []string{"a.b", "c"}, Options: []string{"ndots:5"}}
	text, err := resolvConf(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readResolvConf(path); err != nil || !proto.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}
