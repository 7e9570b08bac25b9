package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

const (
	// maxOutput bounds what a plugin may print: more than any result needs.
	maxOutput = 1 << 20
	// maxStderr bounds what of a plugin's standard error goes into an error.
	maxStderr = 4 << 10
	// waitDelay is how long the output of a killed plugin is waited for, in
	// case a process that left its group still holds the pipe.
	waitDelay = 2 * time.Second
	// busyPause and busyTries bound the wait for a plugin that is being
	// written: an add-on that updates its binaries in place.
	busyPause = 200 * time.Millisecond
	busyTries = 25
)

// PluginError is the failure of one plugin.
type PluginError struct {
	// Plugin is the program's path, Command ADD, DEL and so on.
	Plugin, Command string
	// Code is the plugin's own error code of the CNI specification, 0 if it
	// gave none.
	Code uint
	// Message is what the plugin said, Stderr the end of its standard error.
	Message, Stderr string
	// Err is how the process ended, or the end of the caller's context.
	Err error
}

// Error names the plugin and the cause.
func (e *PluginError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "plugin %s: %s failed: ", e.Plugin, e.Command)
	if e.Message != "" {
		fmt.Fprintf(&b, "%s (%v)", e.Message, e.Err)
	} else {
		fmt.Fprintf(&b, "%v", e.Err)
	}
	if e.Code != 0 {
		fmt.Fprintf(&b, ", CNI error %d", e.Code)
	}
	if e.Stderr != "" {
		fmt.Fprintf(&b, ", standard error: %q", e.Stderr)
	}
	return b.String()
}

// Unwrap returns how the process ended.
func (e *PluginError) Unwrap() error { return e.Err }

// runner runs plugins for libcni: each in a process group of its own, with the
// environment that the specification names and nothing else of the daemon's.
type runner struct{ version.PluginDecoder }

// FindInPath returns the path of a plugin.
func (*runner) FindInPath(plugin string, dirs []string) (string, error) {
	return findPlugin(plugin, dirs)
}

// ExecPlugin runs a plugin to its end. When ctx ends first, the plugin's whole
// process group is killed.
func (*runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	env := environment(environ)
	var stdout, stderr bounded
	var err error
	for range busyTries {
		stdout, stderr = bounded{max: maxOutput}, bounded{max: maxStderr, tail: true}
		c := exec.CommandContext(ctx, path)
		c.Env, c.Stdin, c.Stdout, c.Stderr = env, bytes.NewReader(stdin), &stdout, &stderr
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
		c.WaitDelay = waitDelay
		if err = c.Run(); !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, pluginError(ctx, path, env, &stdout, &stderr, err)
		case <-time.After(busyPause):
		}
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		// The plugin ended well; something that it started holds its output.
		err = nil
	}
	if err == nil && stdout.cut {
		err = fmt.Errorf("it printed more than %d bytes", maxOutput)
	}
	if err == nil {
		return stdout.b, nil
	}
	return nil, pluginError(ctx, path, env, &stdout, &stderr, err)
}

// pluginError says what a failed plugin said.
func pluginError(ctx context.Context, path string, env []string, stdout, stderr *bounded, err error) error {
	e := &PluginError{Plugin: path, Stderr: strings.TrimSpace(string(stderr.b)), Err: err}
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "CNI_COMMAND="); ok {
			e.Command = v
		}
	}
	if cause := ctx.Err(); cause != nil {
		e.Err = fmt.Errorf("%w: killed: %w", cause, err)
	}
	var said types.Error
	if json.Unmarshal(stdout.b, &said) == nil {
		e.Code, e.Message = said.Code, said.Msg
		if said.Details != "" {
			e.Message += "; " + said.Details
		}
	}
	return e
}

// environment keeps of environ what a plugin needs.
func environment(environ []string) []string {
	var out []string
	path := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range environ {
		switch {
		case strings.HasPrefix(kv, "PATH="):
			path = kv
		case strings.HasPrefix(kv, "CNI_"):
			out = append(out, kv)
		}
	}
	return append(out, path)
}

// findPlugin returns the path of an executable plugin.
func findPlugin(plugin string, dirs []string) (string, error) {
	if plugin == "" || plugin == "." || plugin == ".." || strings.ContainsRune(plugin, filepath.Separator) {
		return "", fmt.Errorf("%q is not the name of a plugin", plugin)
	}
	for _, d := range dirs {
		path := filepath.Join(d, plugin)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("plugin %q not found in %s: install it there or correct binDirs", plugin, strings.Join(dirs, ", "))
}

// bounded is a writer that keeps max bytes, the first or the last ones, and
// takes any number.
type bounded struct {
	b    []byte
	max  int
	tail bool
	cut  bool
}

// Write never fails.
func (w *bounded) Write(p []byte) (int, error) {
	n := len(p)
	if w.tail {
		w.b = append(w.b, p...)
		if over := len(w.b) - w.max; over > 0 {
			w.b, w.cut = append(w.b[:0], w.b[over:]...), true
		}
		return n, nil
	}
	if room := w.max - len(w.b); len(p) > room {
		p, w.cut = p[:room], true
	}
	w.b = append(w.b, p...)
	return n, nil
}
