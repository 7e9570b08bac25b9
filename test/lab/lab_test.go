package lab

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func needRoot(t *testing.T) {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("starting engines takes root, and -short asks not to")
	}
}

func mustStart(t *testing.T, o Options) *Lab {
	t.Helper()
	needRoot(t)
	o.Log = t.Output()
	l, err := Start(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustSee(t *testing.T, l *Lab) Footprint {
	t.Helper()
	f, err := l.Footprint(testContext(t))
	check(t, err)
	return f
}

// runDocker starts a container from the lab's registry.
func runDocker(t *testing.T, l *Lab, name string) string {
	t.Helper()
	ctx := testContext(t)
	pull, err := l.Docker().ImagePull(ctx, l.Image("busybox"), image.PullOptions{})
	check(t, err)
	_, err = io.Copy(io.Discard, pull)
	check(t, errors.Join(err, pull.Close()))
	created, err := l.Docker().ContainerCreate(ctx,
		&container.Config{Image: l.Image("busybox"), Cmd: []string{"sleep", "600"}},
		&container.HostConfig{NetworkMode: "none", OomScoreAdj: 0}, nil, nil, name)
	check(t, err)
	check(t, l.Docker().ContainerStart(ctx, created.ID, container.StartOptions{}))
	return created.ID
}

// runPod starts a pod with the web image in it and returns its sandbox's id and its address.
func runPod(t *testing.T, l *Lab, name string) (id, addr string) {
	t.Helper()
	ctx := testContext(t)
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "lab", Uid: name},
		LogDirectory: l.Dir,
		Linux:        &runtimeapi.LinuxPodSandboxConfig{},
		PortMappings: []*runtimeapi.PortMapping{{ContainerPort: 8080, HostPort: 18080, HostIp: "127.0.0.1"}},
	}
	pod, err := l.CRI().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox})
	check(t, err)
	spec := &runtimeapi.ImageSpec{Image: l.ImageByDigest("web")}
	_, err = l.CRIImages().PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec})
	check(t, err)
	created, err := l.CRI().CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod.GetPodSandboxId(), SandboxConfig: sandbox,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "web"}, Image: spec, LogPath: "web.log",
			Linux: &runtimeapi.LinuxContainerConfig{},
		},
	})
	check(t, err)
	_, err = l.CRI().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.GetContainerId()})
	check(t, err)
	status, err := l.CRI().PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.GetPodSandboxId()})
	check(t, err)
	return pod.GetPodSandboxId(), status.GetStatus().GetNetwork().GetIp()
}

func removePod(t *testing.T, l *Lab, id string) {
	t.Helper()
	ctx := testContext(t)
	_, err := l.CRI().StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	check(t, err)
	_, err = l.CRI().RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	check(t, err)
}

func wantBody(t *testing.T, addr string) {
	t.Helper()
	var last error
	for range 50 {
		r, err := http.Get("http://" + addr + ":8080/")
		if err == nil {
			b, err := io.ReadAll(r.Body)
			check(t, errors.Join(err, r.Body.Close()))
			if string(b) != WebBody {
				t.Fatalf("web answered %q", b)
			}
			return
		}
		last = err
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(last)
}

func wantLine(t *testing.T, lines []string, parts ...string) {
	t.Helper()
	for _, l := range lines {
		found := true
		for _, p := range parts {
			found = found && strings.Contains(l, p)
		}
		if found {
			return
		}
	}
	t.Errorf("no line with %q among:\n%s", parts, strings.Join(lines, "\n"))
}

func TestEnginesRunContainersAndLeaveNothing(t *testing.T) {
	for _, layout := range []Layout{OwnContainerd, SharedContainerd} {
		for _, version := range []Version{Debian, V2} {
			t.Run(layout.String()+"/"+version.String(), func(t *testing.T) {
				l := mustStart(t, Options{Layout: layout, Containerd: version})
				before := mustSee(t, l)
				useEngines(t, l, before)
				left, err := l.Settled(testContext(t), before)
				check(t, err)
				if len(left) > 0 {
					t.Errorf("after removing everything:\n%s", strings.Join(left, "\n"))
				}
				check(t, l.Stop())
				wantGone(t, l)
			})
		}
	}
}

func useEngines(t *testing.T, l *Lab, before Footprint) {
	t.Helper()
	cid := runDocker(t, l, "one")
	pod, addr := runPod(t, l, "two")
	wantBody(t, addr)
	diff := before.Diff(mustSee(t, l))
	wantLine(t, diff, "docker container "+cid, "one")
	wantLine(t, diff, "containerd sandbox "+pod, "lab/two")
	wantLine(t, diff, "containerd container", "web")
	wantLine(t, diff, "the shim of "+cid)
	wantLine(t, diff, "the shim of "+pod)
	wantLine(t, diff, "IPAM address "+addr, "held by "+pod)
	wantLine(t, diff, "CNI result", pod)
	wantLine(t, diff, "link veth", "bridge")
	wantLine(t, diff, "network namespace "+l.Dir)
	wantLine(t, diff, "still mounted (overlay)")
	wantLine(t, diff, "NAT rule", "dnat", pod)
	check(t, l.Docker().ContainerRemove(testContext(t), cid, container.RemoveOptions{Force: true}))
	removePod(t, l, pod)
}

// wantNoCgroups looks for cgroups of containers, which outlive them where nobody removes them.
func wantNoCgroups(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		// The command fails when cgroups vanish while it looks.
		if out, _ := exec.Command("find", "/sys/fs/cgroup", "-name", id).Output(); len(out) > 0 {
			t.Errorf("cgroups left:\n%s", out)
		}
	}
}

// wantGone looks for what Stop promises to remove without asking the code under test.
func wantGone(t *testing.T, l *Lab) {
	t.Helper()
	if _, err := os.Lstat(l.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder %s is still there: %v", l.Dir, err)
	}
	for what, command := range map[string]string{
		"processes": "ps -eo pid,args | grep -F '" + l.Dir + "/' | grep -v grep",
		"mounts":    "grep -F '" + l.Dir + "' /proc/self/mountinfo",
		"bridge":    "ip link show " + l.Bridge + " 2>/dev/null",
		"rules":     "iptables-save | grep -F '" + l.Bridge + "'",
		"results":   "grep -lrF '" + l.Bridge + "' /var/lib/cni 2>/dev/null",
	} {
		// The commands fail when they find nothing, as is right.
		if out, _ := exec.Command("sh", "-c", command).Output(); len(out) > 0 {
			t.Errorf("%s left:\n%s", what, out)
		}
	}
}

func TestStopReportsAndRemovesLeaks(t *testing.T) {
	l := mustStart(t, Options{LiveRestore: true})
	cid := runDocker(t, l, "forgotten")
	pod, addr := runPod(t, l, "forgotten")
	err := l.Stop()
	var leaks *LeakError
	if !errors.As(err, &leaks) {
		t.Fatalf("Stop said %v", err)
	}
	wantLine(t, leaks.Leaks, "docker container "+cid, "forgotten")
	wantLine(t, leaks.Leaks, "containerd sandbox "+pod)
	wantLine(t, leaks.Leaks, "IPAM address "+addr)
	wantLine(t, leaks.Leaks, "link veth")
	wantGone(t, l)
	wantNoCgroups(t, cid, pod)
}

func TestOutages(t *testing.T) {
	l := mustStart(t, Options{LiveRestore: true})
	before := mustSee(t, l)
	ctx := testContext(t)
	cid := runDocker(t, l, "survivor")
	pod, addr := runPod(t, l, "survivor")
	check(t, l.KillDocker(ctx))
	check(t, l.KillContainerd(ctx))
	wantBody(t, addr)
	check(t, l.StartDocker(ctx))
	check(t, l.StartContainerd(ctx))
	if err := l.StartDocker(ctx); err == nil {
		t.Error("a second dockerd was started")
	}
	wantPaused(t, l)
	check(t, l.StopDocker(ctx))
	check(t, l.StopContainerd(ctx))
	if err := l.KillDocker(ctx); !errors.Is(err, errNotRunning) {
		t.Errorf("killing a stopped dockerd gave %v", err)
	}
	check(t, l.StartDocker(ctx))
	check(t, l.StartContainerd(ctx))
	state, err := l.Docker().ContainerInspect(ctx, cid)
	check(t, err)
	if !state.State.Running {
		t.Error("live restore lost the container")
	}
	check(t, l.Docker().ContainerRemove(ctx, cid, container.RemoveOptions{Force: true}))
	removePod(t, l, pod)
	left, err := l.Settled(ctx, before)
	check(t, err)
	if len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
	check(t, l.Stop())
	wantGone(t, l)
}

func wantPaused(t *testing.T, l *Lab) {
	t.Helper()
	ctx := testContext(t)
	check(t, l.PauseDocker(ctx))
	check(t, l.PauseContainerd(ctx))
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := l.Docker().Ping(short); err == nil {
		t.Error("a paused dockerd answered")
	}
	if err := l.criReady(short); err == nil {
		t.Error("a paused containerd answered")
	}
	check(t, l.ResumeDocker(ctx))
	check(t, l.ResumeContainerd(ctx))
	check(t, l.dockerReady(ctx))
	check(t, l.criReady(ctx))
}

func TestSweepRemovesTheLabsOfTheDead(t *testing.T) {
	l := mustStart(t, Options{})
	cid := runDocker(t, l, "orphan")
	pod, _ := runPod(t, l, "orphan")
	// A pid that no process has: the kernel's limit is below.
	check(t, os.WriteFile(l.site.path("owner"), []byte("99999999 1\n"), 0o644))
	check(t, Sweep(testContext(t), t.Output()))
	wantGone(t, l)
	wantNoCgroups(t, cid, pod)
	check(t, errors.Join(l.closeClients(), l.registry.close()))
}
