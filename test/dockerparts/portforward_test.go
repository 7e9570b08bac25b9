package dockerparts

import (
	"errors"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/vishvananda/netns"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
)

// listenIn serves TCP connections on an address in the network namespace of a
// process.
func listenIn(t *testing.T, pid int, address string, serve func(*net.TCPConn)) {
	t.Helper()
	var l net.Listener
	done := make(chan error)
	go func() {
		// The thread stays locked, and ends with the goroutine.
		runtime.LockOSThread()
		ns, err := netns.GetFromPid(pid)
		if err == nil {
			err = errors.Join(netns.Set(ns), ns.Close())
		}
		if err == nil {
			l, err = net.Listen("tcp", address)
		}
		done <- err
	}()
	check(t, <-done)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
}

// echo sends back what it gets.
func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// withIPv6 has a pod without a network reach itself over IPv6. The Engine
// switches that off; CNI plugins that give an IPv6 address switch it on again,
// on lo too.
func withIPv6(t *testing.T, pid int) {
	t.Helper()
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-n", "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestPortForward(t *testing.T) {
	s, id := serve(t), sleeper(t)
	pid := pidOf(t, id)
	listenIn(t, pid, "127.0.0.1:8001", echo)
	withIPv6(t, pid)
	listenIn(t, pid, "[::1]:8002", echo)
	listenIn(t, pid, "[::]:8005", echo) // of both families, as servers do by themselves
	listenIn(t, pid, "[::1]:8006", func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "six\n")
	})
	listenIn(t, pid, "127.0.0.1:8003", func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		time.Sleep(1500 * time.Millisecond)
		_, _ = io.WriteString(c, "late\n")
	})
	listenIn(t, pid, "127.0.0.1:8004", func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "bye\n")
	})
	r, err := s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: id})
	check(t, err)
	conn := dial(t, r.Url, portforward.ProtocolV1Name)
	for i, port := range []int{8001, 8002, 8005, 8001} {
		data, failed := forward(t, conn, port, i)
		_, err := io.WriteString(data, "hello\n")
		check(t, err)
		if got := readUntil(t, data, "hello\n"); got != "hello\n" {
			t.Errorf("port %d: %q", port, got)
		}
		check(t, data.Close())
		if b, err := io.ReadAll(failed); err != nil || len(b) != 0 {
			t.Errorf("port %d: error stream %q, %v", port, b, err)
		}
	}
	forwardOddly(t, conn)
}

// forwardOddly goes through the ends that a connection may come to.
func forwardOddly(t *testing.T, conn httpstream.Connection) {
	t.Helper()
	t.Run("half-close", func(t *testing.T) {
		data, _ := forward(t, conn, 8003, 10)
		_, err := io.WriteString(data, "question\n")
		check(t, err)
		check(t, data.Close())
		if b, err := io.ReadAll(data); err != nil || string(b) != "late\n" {
			t.Errorf("answer %q, %v", b, err)
		}
	})
	t.Run("pod ends first", func(t *testing.T) {
		data, failed := forward(t, conn, 8004, 12)
		if b, err := io.ReadAll(data); err != nil || string(b) != "bye\n" {
			t.Errorf("answer %q, %v", b, err)
		}
		// The client has not closed its side: the session ends all the same.
		begin := time.Now()
		if b, _ := io.ReadAll(failed); len(b) != 0 || time.Since(begin) > 30*time.Second {
			t.Errorf("error stream %q after %v", b, time.Since(begin))
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		_, failed := forward(t, conn, 9, 11)
		b, _ := io.ReadAll(failed)
		if !strings.Contains(string(b), "connection refused") || !strings.Contains(string(b), "port 9") {
			t.Errorf("error %q", b)
		}
	})
}

// TestPortForwardClientGone: a connection that idles ends with its client.
func TestPortForwardClientGone(t *testing.T) {
	s, id := serve(t), sleeper(t)
	gone := make(chan struct{})
	listenIn(t, pidOf(t, id), "127.0.0.1:8001", func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c) // the client's half-close
		_, _ = io.WriteString(c, "x")
		buf := make([]byte, 1)
		for {
			// Only a closed connection refuses what is sent.
			if _, err := c.Write(buf); err != nil {
				close(gone)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	r, err := s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: id})
	check(t, err)
	conn := dial(t, r.Url, portforward.ProtocolV1Name)
	data, _ := forward(t, conn, 8001, 1)
	check(t, data.Close())
	readUntil(t, data, "x")
	check(t, conn.Close())
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Error("the pod's connection is still open")
	}
}

func TestPortForwardHostNetwork(t *testing.T) {
	s := serve(t)
	id := run(t, container.Config{Cmd: []string{"sleep", "600"}}, container.HostConfig{NetworkMode: "host"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			echo(c.(*net.TCPConn))
			_ = c.Close()
		}
	}()
	r, err := s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: id})
	check(t, err)
	conn := dial(t, r.Url, portforward.ProtocolV1Name)
	data, _ := forward(t, conn, l.Addr().(*net.TCPAddr).Port, 1)
	_, err = io.WriteString(data, "hello\n")
	check(t, err)
	readUntil(t, data, "hello\n")
}
