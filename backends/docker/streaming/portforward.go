package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// dialBound is how long a port of a pod may take to answer.
	dialBound = 30 * time.Second
	// lastWords is how long the client may go on sending when the pod has
	// ended its side. Clients wait for us to end the session then.
	lastWords = time.Second
)

// forwarder forwards ports of a sandbox for the library, which gives it a
// context that never ends: the session's own is used.
type forwarder struct {
	*Server
	session context.Context
}

// PortForward carries one connection to a port of a sandbox.
func (f forwarder) PortForward(_ context.Context, sandboxID, _ string, port int32, client io.ReadWriteCloser) error {
	leave, err := f.sessions.enter()
	if err != nil {
		return err
	}
	defer leave()
	pid, err := f.pid(f.session, sandboxID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(f.session, dialBound)
	defer cancel()
	pod, err := dialPod(ctx, fmt.Sprintf("/proc/%d/ns/net", pid), port)
	if err != nil {
		return status.Errorf(codes.Unavailable, "connect to port %d of sandbox %s: %v", port, sandboxID, err)
	}
	return splice(f.session, client, pod)
}

// splice carries both directions, each to its own end, until both have ended
// or ctx has. It closes the pod's connection. The goroutine that reads the
// client's side ends with the session.
func splice(ctx context.Context, client io.ReadWriteCloser, pod *net.TCPConn) error {
	defer pod.Close()
	defer context.AfterFunc(ctx, func() { _ = pod.Close() })()

	fromPod, fromClient := make(chan error, 1), make(chan struct{})
	go func() {
		// A client that cannot be written to has gone: there is nobody to tell.
		r := &podReader{pod: pod}
		_, _ = io.Copy(client, r)
		// The client sees the pod's end though it may still send.
		_ = client.Close()
		fromPod <- r.err
	}()
	go func() {
		defer close(fromClient)
		_, _ = io.Copy(pod, client)
		// The pod sees the client's end though it may still answer. A
		// connection that the pod has closed already cannot be half-closed.
		_ = pod.CloseWrite()
	}()

	err := <-fromPod
	if ctx.Err() != nil {
		return nil // the client has gone
	}
	t := time.NewTimer(lastWords)
	defer t.Stop()
	select {
	case <-fromClient:
	case <-t.C:
	case <-ctx.Done():
	}
	return err
}

// podReader reads from a pod and keeps what went wrong.
type podReader struct {
	pod *net.TCPConn
	err error
}

// Read reads from the pod.
func (r *podReader) Read(p []byte) (int, error) {
	n, err := r.pod.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// dialPod connects to a port on the loopback of a network namespace, IPv4
// before IPv6. Nothing is run in the pod, and no route or policy of the node's
// is in the way.
func dialPod(ctx context.Context, netns string, port int32) (*net.TCPConn, error) {
	type outcome struct {
		conn *net.TCPConn
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		if err := inNamespace(netns, func() { o.conn, o.err = dialLoopback(ctx, port) }); err != nil {
			o.err = err
		}
		done <- o
	}()
	o := <-done
	return o.conn, o.err
}

// dialLoopback connects on the calling thread: the addresses are literal, so
// that no resolver is asked, and each attempt is one address.
func dialLoopback(ctx context.Context, port int32) (*net.TCPConn, error) {
	var failed error
	for _, host := range []string{"127.0.0.1", "::1"} {
		var d net.Dialer
		d.SetMultipathTCP(false)
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			if tcp, ok := c.(*net.TCPConn); ok {
				return tcp, nil
			}
			err = errors.Join(errors.New("not a TCP connection"), c.Close())
		}
		if failed != nil {
			err = fmt.Errorf("%w; %w", failed, err)
		}
		failed = err
	}
	return nil, failed
}

// inNamespace runs f on a thread in a network namespace. It must be called on
// a goroutine of its own: when the thread cannot be brought back, it stays
// locked and ends with the goroutine, and no other goroutine ever runs on it.
func inNamespace(path string, f func()) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(home)
	away, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer unix.Close(away)
	if err := unix.Setns(away, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	f()
	if err := unix.Setns(home, unix.CLONE_NEWNET); err == nil {
		runtime.UnlockOSThread()
	}
	return nil
}
