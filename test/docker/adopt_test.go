package docker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/crimux/crimux/test/stream"
)

// adopted is a backend that finds a pod of another shim, and is ready to have
// it removed with the test.
func adopted(t *testing.T, p *shimPod, confDir string) cri {
	t.Helper()
	c := started(t, confDir)
	t.Cleanup(func() { c.removePod(p.id) })
	return c
}

// TestAdopt: a pod of another shim goes on as if nothing had happened, and goes
// without a trace.
func TestAdopt(t *testing.T) {
	noLeak(t)
	s := shim{t: t}
	p := s.pod()
	p.ports, p.image = []shimPort{{"tcp", 8080, 38091}}, "web"
	p.script = "httpd -p 8080 -h /www; while read l; do echo got $l; done; sleep 1000"
	s.run(p)
	c := adopted(t, p, "")

	listed, st := c.pods()[p.id], c.podStatus(p.id)
	if listed.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || st.State != listed.State || st.Network.GetIp() != p.ip || p.ip == "" {
		t.Errorf("listed %v, status %v, want the address %s", listed, st, p.ip)
	}
	if m := st.Metadata; m.Name != p.name || m.Namespace != p.namespace || m.Uid != p.uid || m.Attempt != 1 || st.RuntimeHandler != "" {
		t.Errorf("metadata %v, handler %q", m, st.RuntimeHandler)
	}
	if st.Labels["app"] != "adopted" || st.Labels["io.kubernetes.container.name"] != "" || len(st.Annotations) != 1 || st.Annotations["note"] != "x=y:z" {
		t.Errorf("labels %v, annotations %v", st.Labels, st.Annotations)
	}
	if o := st.Linux.Namespaces.Options; o.Network != runtimeapi.NamespaceMode_POD || o.Pid != runtimeapi.NamespaceMode_CONTAINER {
		t.Errorf("namespaces %v", o)
	}
	ctr := c.status(p.ctr)
	if ctr.State != runtimeapi.ContainerState_CONTAINER_RUNNING || ctr.Metadata.Name != "main" || ctr.Metadata.Attempt != 3 || ctr.LogPath != p.logPath ||
		ctr.Annotations["io.kubernetes.container.hash"] != "abc" || ctr.ImageId == "" || ctr.CreatedAt == 0 || ctr.StartedAt < ctr.CreatedAt {
		t.Errorf("container %v", ctr)
	}
	all := must[runtimeapi.ListContainersResponse](c, runtimeService+"ListContainers", &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: p.id}}).Containers
	if name := node.lab.Image("web"); len(all) != 1 || all[0].Image.Image != name || ctr.Image.Image != name || all[0].CreatedAt != ctr.CreatedAt {
		t.Errorf("listed %v, status %v, want the image %s", all, ctr, name)
	}
	if len(ctr.Mounts) != 1 || ctr.Mounts[0].ContainerPath != "/mnt" || !ctr.Mounts[0].Readonly {
		t.Errorf("mounts %v", ctr.Mounts)
	}
	get(t, "http://"+p.ip+":8080")
	get(t, "http://"+hostAddress(t)+":38091")
	streamsWork(t, c, p)
	statsAreThere(t, c, p)
	after, err := node.lab.Docker().ContainerInspect(t.Context(), p.ctr)
	if err != nil || after.State.StartedAt != p.started {
		t.Errorf("the container was started anew: %v, %v", after.State, err)
	}
	// Of two sandboxes the kubelet takes the newer, by this.
	if made, err := time.Parse(time.RFC3339Nano, after.Created); err != nil || ctr.CreatedAt != made.UnixNano() {
		t.Errorf("created at %d, and the Engine says %s", ctr.CreatedAt, after.Created)
	}

	removedTwice(c, p.id, p.ctr)
	if _, err := os.Lstat(p.logPath); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link to the log is left: %v", err)
	}
}

// streamsWork execs, attaches and forwards a port.
func streamsWork(t *testing.T, c cri, p *shimPod) {
	t.Helper()
	if got := c.sh(p.ctr, "hostname"); got != "pod" {
		t.Errorf("exec of hostname: %q", got)
	}
	e := must[runtimeapi.ExecResponse](c, runtimeService+"Exec", &runtimeapi.ExecRequest{ContainerId: p.ctr, Cmd: []string{"cat"}, Stdin: true, Stdout: true})
	if got, err := stream.Pipe(e.Url, "there and back"); got != "there and back" || err != nil {
		t.Errorf("exec: %q, %v", got, err)
	}
	f := must[runtimeapi.PortForwardResponse](c, runtimeService+"PortForward", &runtimeapi.PortForwardRequest{PodSandboxId: p.id, Port: []int32{8080}})
	if got, err := stream.Forward(f.Url, 8080, "GET / HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.") || err != nil {
		t.Errorf("port-forward: %q, %v", got, err)
	}
	a := must[runtimeapi.AttachResponse](c, runtimeService+"Attach", &runtimeapi.AttachRequest{ContainerId: p.ctr, Stdin: true, Stdout: true})
	if got := say(t, a.Url, "hello\n"); got != "got hello\n" {
		t.Errorf("attach: %q", got)
	}
}

// say sends a line to the attach at url and returns the one that comes back.
func say(t *testing.T, url, line string) string {
	t.Helper()
	conn, err := stream.Dial(url, remotecommand.StreamProtocolV4Name)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	streams := map[string]io.ReadWriter{}
	for _, kind := range []string{remotecommand.StreamTypeError, remotecommand.StreamTypeStdin, remotecommand.StreamTypeStdout} {
		if streams[kind], err = conn.CreateStream(http.Header{remotecommand.StreamType: {kind}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(streams[remotecommand.StreamTypeStdin], line); err != nil {
		t.Fatal(err)
	}
	got, err := bufio.NewReader(streams[remotecommand.StreamTypeStdout]).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// statsAreThere: the pod's and the container's, from the kernel.
func statsAreThere(t *testing.T, c cri, p *shimPod) {
	t.Helper()
	one := must[runtimeapi.ContainerStatsResponse](c, runtimeService+"ContainerStats", &runtimeapi.ContainerStatsRequest{ContainerId: p.ctr}).Stats
	if one.GetMemory().GetWorkingSetBytes().GetValue() == 0 || one.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || one.Attributes.Metadata.Attempt != 3 {
		t.Errorf("container statistics %v", one)
	}
	all := must[runtimeapi.PodSandboxStatsResponse](c, runtimeService+"PodSandboxStats", &runtimeapi.PodSandboxStatsRequest{PodSandboxId: p.id}).Stats
	if all.GetLinux().GetNetwork().GetDefaultInterface().GetRxBytes().GetValue() == 0 || len(all.GetLinux().GetContainers()) != 1 {
		t.Errorf("pod statistics %v", all)
	}
}

// count expects the lines of a counter, from 0 on, in files in either format.
func count(t *testing.T, files ...string) (lines int) {
	t.Helper()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for text := range strings.Lines(string(b)) {
			if !strings.HasSuffix(text, "\n") {
				break // it is being written
			}
			_, rest, ok := strings.Cut(text, "line ")
			digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
			if n, err := strconv.Atoi(digits); !ok || err != nil || n != lines {
				t.Fatalf("%s: line %d is %q", f, lines, text)
			}
			lines++
		}
	}
	return lines
}

// TestAdoptedLog: it is read through the link, from its beginning, until the
// kubelet rotates it. Then it is a log of the CRI like any other.
func TestAdoptedLog(t *testing.T) {
	noLeak(t)
	s := shim{t: t}
	p := s.pod()
	s.run(p)
	t.Cleanup(func() { kubelet(t).removePod(p.id) })
	c, quit := quittable(t)
	eventually(t, "lines", func() bool { return count(t, p.logPath) > 10 })
	if st, err := os.Lstat(p.logPath); err != nil || st.Mode().Type() != fs.ModeSymlink {
		t.Fatalf("before the first rotation: %v, %v", st, err)
	}
	all := []string{p.logPath}
	reopen := func(c cri) {
		t.Helper()
		must[runtimeapi.ReopenContainerLogResponse](c, runtimeService+"ReopenContainerLog", &runtimeapi.ReopenContainerLogRequest{ContainerId: p.ctr})
		for _, f := range all {
			if st, err := os.Lstat(f); err != nil || !st.Mode().IsRegular() {
				t.Errorf("%s is no file: %v, %v", f, st, err)
			}
		}
		before := count(t, all...)
		eventually(t, "lines after the rotation", func() bool { return count(t, all...) > before+10 })
	}
	for range 2 {
		rotated := fmt.Sprintf("%s.20260102-00000%d", p.logPath, len(all))
		if err := os.Rename(p.logPath, rotated); err != nil {
			t.Fatal(err)
		}
		all = append(all[:len(all)-1], rotated, p.logPath)
		reopen(c)
	}
	// A daemon that knows nothing sees whose the log is.
	quit()
	before := count(t, all...)
	again := started(t, "")
	eventually(t, "lines after a restart", func() bool { return count(t, all...) > before+10 })
	reopen(again)
	again.removePod(p.id)
	count(t, all...)
}

// TestAdoptedLogWithoutFile: another driver has nothing to rotate, and says so.
func TestAdoptedLogWithoutFile(t *testing.T) {
	noLeak(t)
	s := shim{t: t}
	p := s.pod()
	p.driver = "local"
	s.run(p)
	c := adopted(t, p, "")
	err := c.try(runtimeService+"ReopenContainerLog", &runtimeapi.ReopenContainerLogRequest{ContainerId: p.ctr})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), `"local"`) {
		t.Errorf("reopen: %v", err)
	}
}

// TestAdoptedLogWasNeverLinked: the other shim was killed between the start and
// the link.
func TestAdoptedLogWasNeverLinked(t *testing.T) {
	noLeak(t)
	s := shim{t: t}
	p := s.pod()
	s.run(p)
	if err := os.Remove(p.logPath); err != nil {
		t.Fatal(err)
	}
	adopted(t, p, "")
	eventually(t, "lines", func() bool {
		_, err := os.Stat(p.logPath)
		return err == nil && count(t, p.logPath) > 10
	})
}

// TestAdoptCreated: the other shim made a container and did not start it.
func TestAdoptCreated(t *testing.T) {
	noLeak(t)
	s := shim{t: t}
	p := s.pod()
	s.sandbox(p)
	s.create(p)
	c := adopted(t, p, "")
	if st := c.status(p.ctr); st.State != runtimeapi.ContainerState_CONTAINER_CREATED {
		t.Errorf("container %v", st)
	}
	c.start(p.ctr)
	eventually(t, "lines", func() bool {
		_, err := os.Stat(p.logPath)
		return err == nil && count(t, p.logPath) > 10
	})
}

// TestAdoptHalfMade: the other shim was killed before the ADD. A pod without a
// network is not ready, and goes.
func TestAdoptHalfMade(t *testing.T) {
	noLeak(t)
	s := shim{t: t, half: true}
	p := s.pod()
	s.sandbox(p)
	c := adopted(t, p, "")
	if st := c.podStatus(p.id); st.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY || c.pods()[p.id].State != st.State {
		t.Errorf("status %v", st)
	}
}

// TestAdoptedInfraDies: with the namespace pinned, the DEL still takes all
// along, and is carried out once.
func TestAdoptedInfraDies(t *testing.T) {
	noLeak(t)
	s := shim{t: t}
	p := s.pod()
	p.ports = []shimPort{{"tcp", 8080, 38092}}
	s.run(p)
	c := adopted(t, p, "")
	if c.podStatus(p.id).State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Fatal("not ready")
	}
	if err := node.lab.Docker().ContainerKill(t.Context(), p.id, "KILL"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod to be seen dead", func() bool { return c.podStatus(p.id).State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY })
	for range 2 {
		must[runtimeapi.StopPodSandboxResponse](c, runtimeService+"StopPodSandbox", &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id})
	}
}

// quietNetwork is the lab's network without what a plugin cannot take back once
// a namespace is gone.
func quietNetwork(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(node.lab.CNIConfDir + "/*.conflist")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	quiet := strings.Replace(string(b), `"ipMasq": true`, `"ipMasq": false`, 1)
	if quiet == string(b) {
		t.Fatalf("the lab's network has changed: %s", b)
	}
	if err := os.WriteFile(filepath.Join(dir, "10-quiet.conflist"), []byte(quiet), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestAdoptDead: after a reboot, in effect, all that is left of a pod is its
// containers, its checkpoint and the CNI cache, or less.
func TestAdoptDead(t *testing.T) {
	for name, lost := range map[string]func(t *testing.T, p *shimPod){
		"all there":     func(*testing.T, *shimPod) {},
		"cache lost":    func(t *testing.T, p *shimPod) { loseCache(t, p.id) },
		"no checkpoint": func(t *testing.T, p *shimPod) { loseCheckpoint(t, p) },
		"sandbox removed": func(t *testing.T, p *shimPod) {
			if err := node.lab.Docker().ContainerRemove(t.Context(), p.id, container.RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			s := shim{t: t, confDir: quietNetwork(t)}
			p := s.pod()
			p.ports, p.attempt, p.suffix = []shimPort{{"tcp", 8080, 38093}}, 7, "_0123abcd"
			p.checkpointDir = filepath.Join(node.lab.Dir, "dockershim", "sandbox")
			s.run(p)
			for _, id := range []string{p.ctr, p.id} {
				if err := node.lab.Docker().ContainerKill(t.Context(), id, "KILL"); err != nil {
					t.Fatal(err)
				}
			}
			lost(t, p)
			c := adopted(t, p, s.confDir)
			listed := c.pods()[p.id]
			if name != "sandbox removed" && (listed.GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY || listed.GetMetadata().GetAttempt() != 7) {
				t.Errorf("listed %v", listed)
			}
			if st := c.status(p.ctr); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 137 || st.Metadata.Attempt != 3 {
				t.Errorf("container %v", st)
			}
			must[runtimeapi.RemoveContainerResponse](c, runtimeService+"RemoveContainer", &runtimeapi.RemoveContainerRequest{ContainerId: p.ctr})
		})
	}
}

func loseCache(t *testing.T, id string) {
	t.Helper()
	cached, err := filepath.Glob(node.lab.CNICacheDir + "/results/*" + id + "*")
	if err != nil || len(cached) == 0 {
		t.Fatal(cached, err)
	}
	for _, f := range cached {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

func loseCheckpoint(t *testing.T, p *shimPod) {
	t.Helper()
	if err := os.Remove(filepath.Join(p.checkpointDir, p.id)); err != nil {
		t.Fatal(err)
	}
}

// TestAdoptWithoutCache: the addresses are those of the interface, and the host
// ports those of the checkpoint. So they are when crimux begins anew and finds
// its own pin.
func TestAdoptWithoutCache(t *testing.T) {
	noLeak(t)
	s := shim{t: t}
	p := s.pod()
	p.ports = []shimPort{{"udp", 53, 38094}, {"tcp", 8080, 38095}}
	s.run(p)
	loseCache(t, p.id)
	for range 2 {
		readyAt(adopted(t, p, ""), p.id, p.ip)
	}
}

// readyAt checks that a sandbox is ready and has an address.
func readyAt(c cri, id, ip string) {
	c.t.Helper()
	if st := c.podStatus(id); st.State != runtimeapi.PodSandboxState_SANDBOX_READY || st.Network.GetIp() != ip || c.pods()[id].State != st.State {
		c.t.Errorf("status %v, want ready with %s", st, ip)
	}
}

// TestRestartWithoutCache: nor are pods of crimux's own lost with libcni's cache.
func TestRestartWithoutCache(t *testing.T) {
	noLeak(t)
	c := kubelet(t)
	id := c.run(pod(t))
	ip := c.podStatus(id).Network.GetIp()
	loseCache(t, id)
	again := started(t, "")
	readyAt(again, id, ip)
	again.removePod(id)
}

// TestAdoptWithDamagedCheckpoint: without it host ports would stay taken, so
// the file is named until somebody decides.
func TestAdoptWithDamagedCheckpoint(t *testing.T) {
	noLeak(t)
	s := shim{t: t}
	p := s.pod()
	s.run(p)
	loseCache(t, p.id)
	file := filepath.Join(p.checkpointDir, p.id)
	if err := os.WriteFile(file, []byte(`{"version":"v1","na`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := adopted(t, p, "")
	err := c.try(runtimeService+"StopPodSandbox", &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), file) {
		t.Errorf("stop: %v", err)
	}
	loseCheckpoint(t, p)
	must[runtimeapi.StopPodSandboxResponse](c, runtimeService+"StopPodSandbox", &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id})
}

// TestAdoptOtherNetworks: the host's owes no DEL, and one of the Engine's is
// kept and shown.
func TestAdoptOtherNetworks(t *testing.T) {
	t.Run("host", func(t *testing.T) {
		noLeak(t)
		s := shim{t: t}
		p := s.pod()
		p.network = "host"
		s.run(p)
		c := adopted(t, p, "")
		st := c.podStatus(p.id)
		if st.State != runtimeapi.PodSandboxState_SANDBOX_READY || st.Network.GetIp() != "" || st.Linux.Namespaces.Options.Network != runtimeapi.NamespaceMode_NODE {
			t.Errorf("status %v", st)
		}
	})
	t.Run("engine", func(t *testing.T) {
		noLeak(t)
		engine := node.lab.Docker()
		made, err := engine.NetworkCreate(t.Context(), "adopt", network.CreateOptions{Driver: "bridge"})
		if err != nil {
			t.Fatal(err)
		}
		s := shim{t: t}
		p := s.pod()
		p.network = "adopt"
		s.run(p)
		info, err := engine.ContainerInspect(t.Context(), p.id)
		if err != nil {
			t.Fatal(err)
		}
		p.ip = info.NetworkSettings.Networks["adopt"].IPAddress
		c := started(t, "")
		if st := c.podStatus(p.id); st.State != runtimeapi.PodSandboxState_SANDBOX_READY || st.Network.GetIp() != p.ip || p.ip == "" || c.pods()[p.id].State != st.State {
			t.Errorf("status %v, want ready with %q", st, p.ip)
		}
		c.removePod(p.id)
		if err := engine.NetworkRemove(t.Context(), made.ID); err != nil {
			t.Error(err)
		}
	})
}
