package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/node"
)

const (
	// loudFor is how long the loud container prints, 1 MB ten times a second.
	loudFor = 20 * time.Second
	// quietFor is how long the quiet containers are watched, of which each
	// prints a line a second.
	quietFor = 20 * time.Second
	// quietPods and quietPer are how many there are.
	quietPods, quietPer = 10, 10
)

// loud prints 10 MB/s in lines of 100 bytes when it is told to.
const loud = `yes 2026-01-02T15:04:05Z INFO request served method=GET path=/index.html code=200 bytes=612 took=1.234ms | head -c 1000000 >/tmp/block
until [ -e /tell/begin ]; do sleep 0.1; done
i=0; while [ $i -lt %d ]; do sleep 0.1 & cat /tmp/block; wait; i=$((i+1)); done; echo; echo end; sleep 1000000`

// quiet prints a line a second.
const quiet = `while :; do echo all is well; sleep 1; done`

// logs measures what it costs to copy logs: the CPU of the daemon beside that
// of the Engine, which reads the container's output and writes its own log,
// and beside containerd's, which writes the CRI's log itself; and how far the
// copy is behind the Engine's log.
func (b *bench) logs(ctx context.Context, n *node.Node) error {
	fmt.Printf("\nlogs: CPU in %% of a core, lag behind the Engine's log\n"+logsRow, "", "crimux", "dockerd", "containerd", "lag p50", "p99", "log", "crimux RSS")
	for _, handler := range []string{"docker", "containerd"} {
		if err := b.loudLog(ctx, n, handler); err != nil {
			return err
		}
	}
	for _, handler := range []string{"docker", "containerd"} {
		if err := b.quietLogs(ctx, n, handler); err != nil {
			return err
		}
	}
	return nil
}

// logsRow is a line of the table.
const logsRow = "%-22s%10s%10s%12s%12s%12s%12s%12s\n"

// loudLog measures one container that prints 10 MB/s.
func (b *bench) loudLog(ctx context.Context, n *node.Node, handler string) error {
	dir := filepath.Join(n.Dir, "tell-"+handler)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	c := node.ContainerConfig("main", b.lab.Image("busybox"), "sh", "-c", fmt.Sprintf(loud, loudFor/(100*time.Millisecond)))
	c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/tell"}}
	p, err := n.RunPod(ctx, handler, node.PodConfig("loud-"+handler, filepath.Join(n.Dir, "pods")), c)
	if err != nil {
		return err
	}
	source := ""
	if handler == "docker" {
		in, err := b.lab.Docker().ContainerInspect(ctx, p.Container)
		if err != nil {
			return err
		}
		source = in.LogPath
	}
	m, err := b.meter(n)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "begin"), nil, 0o600); err != nil {
		return err
	}
	lag := newRow("lag")
	for began := time.Now(); !endsWith(p.LogPath, "end"); {
		if time.Since(began) > 5*loudFor {
			return errors.New("the log of the loud container does not come to its end")
		}
		if source == "" {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		took, err := behind(ctx, source, p.LogPath)
		if err != nil {
			return err
		}
		lag.add("", took)
	}
	st, err := os.Stat(p.LogPath)
	if err != nil {
		return err
	}
	return errors.Join(m.print(handler+", 10 MB/s", lag.times[""], st.Size()), n.RemovePod(ctx, p.Sandbox))
}

// quietLogs measures many containers that print little.
func (b *bench) quietLogs(ctx context.Context, n *node.Node, handler string) error {
	var first *node.Pod
	for i := range quietPods {
		name := fmt.Sprintf("quiet-%s-%d", handler, i)
		p, err := n.RunPod(ctx, handler, node.PodConfig(name, filepath.Join(n.Dir, "pods")), node.ContainerConfig("main-0", b.lab.Image("busybox"), "sh", "-c", quiet))
		if err != nil {
			return err
		}
		if first == nil {
			first = p
		}
		for j := 1; j < quietPer; j++ {
			c, err := n.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: p.Sandbox, SandboxConfig: p.Config,
				Config: node.ContainerConfig(fmt.Sprintf("main-%d", j), b.lab.Image("busybox"), "sh", "-c", quiet)})
			if err != nil {
				return err
			}
			if _, err := n.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
				return err
			}
		}
	}
	m, err := b.meter(n)
	if err != nil {
		return err
	}
	time.Sleep(quietFor)
	st, err := os.Stat(first.LogPath)
	if err != nil {
		return err
	}
	return errors.Join(m.print(fmt.Sprintf("%s, %d quiet", handler, quietPods*quietPer), nil, st.Size()), n.RemovePods(ctx))
}

// behind returns how long it takes from now until all that is in the source
// is in the target.
func behind(ctx context.Context, source, target string) (time.Duration, error) {
	began := time.Now()
	_, want := lastStamps(source)
	for ctx.Err() == nil {
		if got, _ := lastStamps(target); !got.Before(want) {
			took := time.Since(began)
			time.Sleep(5 * time.Millisecond)
			return took, nil
		}
		if time.Since(began) > loudFor {
			return 0, errors.New("the copy does not come near the Engine's log")
		}
		time.Sleep(200 * time.Microsecond)
	}
	return 0, ctx.Err()
}

// lastStamps returns the time of a file's last whole line, in the CRI's format
// and in the Engine's; zero where it is not of that.
func lastStamps(path string) (cri, engine time.Time) {
	b := tail(path)
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	line := bytes.TrimSuffix(b, []byte("\n"))
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	stamp, _, _ := bytes.Cut(line, []byte{' '})
	cri, _ = time.Parse(time.RFC3339Nano, string(stamp))
	stamp = line[bytes.LastIndex(line, []byte(`"time":"`))+1:]
	stamp = bytes.TrimSuffix(bytes.TrimPrefix(stamp, []byte(`time":"`)), []byte(`"}`))
	engine, _ = time.Parse(time.RFC3339Nano, string(stamp))
	return cri, engine
}

// endsWith reports whether a file's last line is text.
func endsWith(path, text string) bool { return bytes.HasSuffix(tail(path), []byte(" "+text+"\n")) }

// tail returns the end of a file, nothing where it cannot be read.
func tail(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	b := make([]byte, min(st.Size(), 2048))
	n, _ := f.ReadAt(b, st.Size()-int64(len(b)))
	return b[:n]
}

// meter measures the CPU of the daemon and the engines from its making on.
type meter struct {
	began time.Time
	pids  []int
	spent []time.Duration
}

// meter begins to measure.
func (b *bench) meter(n *node.Node) (*meter, error) {
	m := &meter{pids: []int{n.PID()}}
	for _, socket := range []string{b.lab.DockerSocket, b.lab.ContainerdSocket} {
		pid, err := listener(socket)
		if err != nil {
			return nil, err
		}
		m.pids = append(m.pids, pid)
	}
	var err error
	m.began = time.Now()
	m.spent, err = m.now()
	return m, err
}

// print writes what was spent since.
func (m *meter) print(name string, lag []time.Duration, size int64) error {
	now, err := m.now()
	took := time.Since(m.began)
	if err != nil {
		return err
	}
	row := []any{name}
	for i := range now {
		row = append(row, fmt.Sprintf("%.1f", 100*float64(now[i]-m.spent[i])/float64(took)))
	}
	if len(lag) == 0 {
		row = append(row, "-", "-")
	} else {
		row = append(row, ms(quantile(lag, .5)), ms(quantile(lag, .99)))
	}
	rss, err := resident(m.pids[0])
	fmt.Printf(logsRow, append(row, fmt.Sprintf("%.1f MB", float64(size)/1e6), fmt.Sprintf("%.0f MB", float64(rss)/1e6))...)
	return err
}

// now returns the CPU time of each process so far.
func (m *meter) now() (all []time.Duration, err error) {
	for _, pid := range m.pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return nil, err
		}
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(f) < 13 {
			return nil, fmt.Errorf("process %d: no times in %q", pid, b)
		}
		var sum time.Duration
		for _, ticks := range f[11:13] { // utime and stime, in hundredths of a second
			n, err := strconv.Atoi(string(ticks))
			if err != nil {
				return nil, err
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
		all = append(all, sum)
	}
	return all, nil
}

// resident returns how much memory a process holds.
func resident(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, pages int
	_, err = fmt.Sscan(string(b), &size, &pages)
	return pages * os.Getpagesize(), err
}

// listener returns the process that listens on a socket.
func listener(socket string) (int, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) { peer, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if got != nil {
		return 0, got
	}
	return int(peer.Pid), nil
}
