package cri

import (
	"encoding/json"
	"slices"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What the two runtimes tell in a verbose status of a container, shortened.
const (
	ofContainerd = `{"sandboxID":"s","pid":4711,"snapshotter":"overlayfs","config":{"metadata":{"name":"main"},
		"image":{"image":"sha256:00","user_specified_image":"busybox:1"},"command":["sh","-c"],"args":["exit 3"],
		"envs":[{"key":"A","value":"plain text"}],"mounts":[{"container_path":"/data","host_path":"/srv","readonly":true,"propagation":1}],
		"linux":{"resources":{"memory_limit_in_bytes":1048576},"security_context":{"namespace_options":{"pid":1},"run_as_user":{"value":1000},"seccomp":{}}}},
		"runtimeSpec":{"process":{"args":["sh","-c","exit 3"],"env":["PATH=/bin","HOSTNAME=x","A=plain text","B=a=b"],"cwd":"/"}}}`
	ofCRIO = `{"sandboxID":"s","pid":4711,"privileged":false,"runtimeSpec":{"root":{"readonly":true},"process":{"terminal":true,
		"user":{"uid":5,"gid":6,"additionalGids":[7]},"args":["sh","-c","exit 3"],"env":["PATH=/bin","HOSTNAME=x"],"cwd":"/srv","noNewPrivileges":true}}}`
)

func described(t *testing.T, text string, st *runtimeapi.ContainerStatus) (*runtimeapi.ContainerConfig, []string) {
	t.Helper()
	v, err := parseVerbose(map[string]string{verboseKey: text})
	if err != nil {
		t.Fatal(err)
	}
	d, err := v.container(st)
	if err != nil || v.PID != 4711 {
		t.Fatalf("%v, of process %d", err, v.PID)
	}
	return d.Config, d.Unknown
}

func envOf(c *runtimeapi.ContainerConfig) (env []string) {
	for _, kv := range c.GetEnvs() {
		env = append(env, kv.GetKey()+"="+string(kv.GetValue()))
	}
	return env
}

func TestDescribeContainerd(t *testing.T) {
	c, unknown := described(t, ofContainerd, nil)
	sc := c.GetLinux().GetSecurityContext()
	if !slices.Equal(c.GetCommand(), []string{"sh", "-c"}) || !slices.Equal(c.GetArgs(), []string{"exit 3"}) ||
		!slices.Equal(envOf(c), []string{"PATH=/bin", "A=plain text", "B=a=b"}) ||
		c.GetImage().GetUserSpecifiedImage() != "busybox:1" || sc.GetRunAsUser().GetValue() != 1000 ||
		sc.GetNamespaceOptions().GetPid() != runtimeapi.NamespaceMode_CONTAINER ||
		c.GetLinux().GetResources().GetMemoryLimitInBytes() != 1<<20 ||
		len(c.GetMounts()) != 1 || c.GetMounts()[0].GetHostPath() != "/srv" || !c.GetMounts()[0].GetReadonly() {
		t.Errorf("it was made with %v", c)
	}
	if len(unknown) > 0 {
		t.Errorf("unknown: %q", unknown)
	}
}

// TestDescribeCRIO: what only the spec tells is told, and the rest is named.
func TestDescribeCRIO(t *testing.T) {
	mounts := []*runtimeapi.Mount{{HostPath: "/srv", ContainerPath: "/data"}}
	c, unknown := described(t, ofCRIO, &runtimeapi.ContainerStatus{Mounts: mounts})
	sc := c.GetLinux().GetSecurityContext()
	if !slices.Equal(c.GetCommand(), []string{"sh", "-c", "exit 3"}) || c.GetArgs() != nil || !slices.Equal(envOf(c), []string{"PATH=/bin"}) ||
		c.GetWorkingDir() != "/srv" || !c.GetTty() || len(c.GetMounts()) != 1 || sc.GetRunAsUser().GetValue() != 5 ||
		sc.GetRunAsGroup().GetValue() != 6 || !slices.Equal(sc.GetSupplementalGroups(), []int64{7}) || !sc.GetNoNewPrivs() || !sc.GetReadonlyRootfs() {
		t.Errorf("it was made with %v", c)
	}
	if !slices.Contains(unknown, "config.linux.security_context.capabilities") {
		t.Errorf("unknown: %q", unknown)
	}
}

// TestDescribeNothing: a runtime that tells nothing is told from one that does.
func TestDescribeNothing(t *testing.T) {
	for _, info := range []map[string]string{nil, {verboseKey: "no JSON"}, {verboseKey: `{"pid":"text"}`}} {
		if _, err := parseVerbose(info); err == nil {
			t.Errorf("%v is read", info)
		}
	}
}

// FuzzVerbose: whatever a runtime prints, nothing but an error comes of it.
func FuzzVerbose(f *testing.F) {
	f.Add(ofContainerd)
	f.Add(ofCRIO)
	f.Add(`{"config":{"envs":null,"linux":null}}`)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseVerbose(map[string]string{verboseKey: text})
		if err != nil {
			return
		}
		d, err := v.container(&runtimeapi.ContainerStatus{})
		if err == nil && d.Config == nil {
			t.Error("neither a config nor an error")
		}
		if !json.Valid([]byte(text)) {
			t.Error("what is no JSON was read")
		}
	})
}
