package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	readyTimeout = 45 * time.Second
	pollInterval = 20 * time.Millisecond
	tailBytes    = 4096
)

// errNotRunning is what signalling a daemon that the lab has not started (or has stopped) gives.
var errNotRunning = errors.New("it is not running")

// daemon is one engine process that the lab starts, signals and starts again.
type daemon struct {
	name  string
	path  string
	args  []string
	env   []string
	log   string
	ready func(context.Context) error

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
}

// start launches the daemon and waits until it answers.
func (d *daemon) start(ctx context.Context) error {
	exited, err := d.launch()
	if err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := d.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("start %s: it exited; the end of its log:\n%s", d.name, tail(d.log))
		case <-ctx.Done():
			return fmt.Errorf("start %s: it does not answer (%w): %v; the end of its log:\n%s", d.name, ctx.Err(), err, tail(d.log))
		case <-tick.C:
		}
	}
}

// launch starts the process in a session of its own, so that a ctrl-C meant for the test does not reach it.
func (d *daemon) launch() (<-chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.alive() {
		return nil, errors.New("it is already running")
	}
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(d.path, d.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = d.env, out, out
	cmd.Dir = filepath.Dir(d.log)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	d.cmd, d.exited = cmd, exited
	go func() {
		// How it ended does not matter here: whoever waits reads the log's end.
		_ = cmd.Wait()
		close(exited)
	}()
	return exited, nil
}

// alive needs d.mu.
func (d *daemon) alive() bool {
	if d.cmd == nil {
		return false
	}
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// running tells whether the process exists (it may be paused).
func (d *daemon) running() bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.alive()
}

// signal sends sig to the daemon's own process only.
func (d *daemon) signal(sig syscall.Signal) (<-chan struct{}, error) {
	if d == nil {
		return nil, errors.New("this lab has no such engine; check the options it was started with")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.alive() {
		return nil, fmt.Errorf("signal %s: %w", d.name, errNotRunning)
	}
	if err := d.cmd.Process.Signal(sig); err != nil {
		return nil, fmt.Errorf("signal %s: %w", d.name, err)
	}
	return d.exited, nil
}

// kill ends the daemon as a crash would and waits until it is gone.
func (d *daemon) kill(ctx context.Context) error {
	exited, err := d.signal(syscall.SIGKILL)
	if err != nil {
		return err
	}
	return d.await(ctx, exited)
}

// stop asks the daemon to end and waits until it has.
func (d *daemon) stop(ctx context.Context) error {
	exited, err := d.signal(syscall.SIGTERM)
	if err != nil {
		return err
	}
	// A paused process takes no signal but SIGKILL until it goes on; one that has ended meanwhile needs none.
	if _, err := d.signal(syscall.SIGCONT); err != nil && !errors.Is(err, errNotRunning) && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return d.await(ctx, exited)
}

func (d *daemon) await(ctx context.Context, exited <-chan struct{}) error {
	select {
	case <-exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %s to end: %w", d.name, ctx.Err())
	}
}

// pause freezes the daemon; its socket still accepts connections but nothing answers.
func (d *daemon) pause() error {
	_, err := d.signal(syscall.SIGSTOP)
	return err
}

// resume lets a paused daemon go on.
func (d *daemon) resume() error {
	_, err := d.signal(syscall.SIGCONT)
	return err
}

// end stops the daemon by whatever means it takes within grace.
func (d *daemon) end(grace time.Duration) error {
	if !d.running() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := d.stop(ctx)
	if err == nil || errors.Is(err, errNotRunning) {
		return nil
	}
	killCtx, cancelKill := context.WithTimeout(context.Background(), grace)
	defer cancelKill()
	if kerr := d.kill(killCtx); kerr != nil && !errors.Is(kerr, errNotRunning) {
		return errors.Join(err, kerr)
	}
	return fmt.Errorf("%s did not end on SIGTERM and was killed: %w; the end of its log:\n%s", d.name, err, tail(d.log))
}

// tail is the end of a log file, or why it cannot be read.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > tailBytes {
		if _, err := f.Seek(-tailBytes, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b))
}
