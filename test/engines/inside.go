package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crimux/crimux/test/lab"
)

const (
	// insideArg makes this program the first process of a root.
	insideArg = "inside"
	// failedInside is the exit code where the command could not be run at all.
	failedInside = 125
	// rootPath is where a Debian root has its programs.
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Where a root shows what is this machine's.
const (
	moduleAt = "/mnt/module"
	binAt    = "/mnt/bin"
	cacheAt  = "/mnt/cache"
)

// job is a command in a root.
type job struct {
	// Root is the folder of the root; Module, Bin and LabCache are folders of this machine that it is shown.
	Root, Module, Bin, LabCache string
	// Folder is where in the module the command starts.
	Folder string
	// Env is added to the command's environment.
	Env []string
	// Command is the command with its arguments.
	Command []string
}

// command starts this program again as the job's first process. That one is in a process group of its own, for a
// ctrl-C to reach it only through this process, and dies with this one, taking all that it started along.
func (j job) command(ctx context.Context) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	b, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("describe the job: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, insideArg, string(b))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Setpgid:    true, Pdeathsig: syscall.SIGKILL,
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	return cmd, nil
}

// inside is the first process of a root: it carries out a job and returns the exit code.
func inside(description string) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	code, err := work(description, stop)
	if err != nil {
		fmt.Fprintf(os.Stderr, "engines: %v\n", err)
		return failedInside
	}
	return code
}

func work(description string, stop <-chan os.Signal) (code int, err error) {
	var j job
	if err := json.Unmarshal([]byte(description), &j); err != nil {
		return 0, fmt.Errorf("read the job: %w", err)
	}
	if err := j.enter(); err != nil {
		return 0, err
	}
	if err := makeNetwork(); err != nil {
		return 0, err
	}
	code, err = j.run(stop)
	// What a killed test leaves lies outside the namespaces in part: cgroups, and files.
	if serr := lab.Sweep(context.Background(), os.Stderr); serr != nil {
		return 0, errors.Join(err, serr)
	}
	return code, errors.Join(err, emptyFolder("/tmp"))
}

func (j job) run(stop <-chan os.Signal) (code int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(j.Command[0], j.Command, &syscall.ProcAttr{
		Dir: filepath.Join(moduleAt, j.Folder), Env: append(environment(), j.Env...),
		Files: []uintptr{null.Fd(), os.Stdout.Fd(), os.Stderr.Fd()},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", j.Command[0], err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-stop:
			// It may have ended by itself.
			_ = unix.Kill(pid, unix.SIGTERM)
		case <-ended:
		}
	}()
	return reap(pid)
}

func environment() []string {
	return []string{
		"PATH=" + rootPath, "HOME=/root", "XDG_CACHE_HOME=" + cacheAt, "GORACE=" + os.Getenv("GORACE"),
		"CRIMUX_TEST_BINARY=" + binAt + "/crimux",
	}
}

// reap waits for a process, and for the orphans that a first process inherits: a test that waits for one of them
// to go would else wait for ever.
func reap(pid int) (code int, err error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the suite: %w", err)
		case got != pid:
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

func emptyFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
