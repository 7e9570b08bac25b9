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
	"slices"
	"strings"
)

// sbinPath is where Debian keeps what only root needs; a plain user's PATH lacks it.
const sbinPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const policyFile = "/usr/sbin/policy-rc.d"

// needs maps each tool of the lab to the package that brings it.
var needs = []struct{ tool, pkg string }{
	{"dockerd", "docker.io"},
	{"containerd", "containerd"},
	{"containerd-shim-runc-v2", "containerd"},
	{"runc", "runc"},
	{"iptables", "iptables"},
	{"mkfs.ext4", "e2fsprogs"},
	{"ip", "iproute2"},
	{"ps", "procps"},
}

// EnsureHost installs the packages that the lab needs and the machine lacks, saying on w what it does. It asks
// for root, leaves alone what is there already, and sees to it that no engine of the whole machine is started
// by being installed.
func EnsureHost(ctx context.Context, w io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("the lab starts container engines, which takes root; run it with sudo")
	}
	unlock, err := lockCache()
	if err != nil {
		return err
	}
	defer unlock()
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(w, "lab: refreshing the package lists\n")
	if err := run(ctx, "", "apt-get", "update", "-qq"); err != nil {
		return fmt.Errorf("refresh the package lists: %w", err)
	}
	fmt.Fprintf(w, "lab: installing %s\n", strings.Join(missing, " "))
	if err := install(ctx, missing); err != nil {
		return fmt.Errorf("install %s: %w; install them by hand", strings.Join(missing, " "), err)
	}
	if left := missingPackages(); len(left) > 0 {
		return fmt.Errorf("%s are installed but their tools are not found in %s", strings.Join(left, " "), sbinPath)
	}
	return nil
}

func missingPackages() []string {
	var out []string
	for _, n := range needs {
		if lookTool(n.tool) == "" && !slices.Contains(out, n.pkg) {
			out = append(out, n.pkg)
		}
	}
	if len(presentCNIBinDirs()) == 0 {
		out = append(out, "containernetworking-plugins")
	}
	return out
}

// lookTool finds a program in root's usual folders, whatever PATH says; "" when it is nowhere.
func lookTool(tool string) string {
	for _, d := range filepath.SplitList(sbinPath) {
		p, err := exec.LookPath(filepath.Join(d, tool))
		if err == nil {
			return p
		}
	}
	return ""
}

// install runs apt-get under a policy that forbids packages to start their services.
func install(ctx context.Context, pkgs []string) (err error) {
	if _, serr := os.Lstat(policyFile); errors.Is(serr, os.ErrNotExist) {
		if err := os.WriteFile(policyFile, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return fmt.Errorf("forbid packages to start services: %w", err)
		}
		defer func() { err = errors.Join(err, os.Remove(policyFile)) }()
	}
	args := append([]string{"install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"}, pkgs...)
	return run(ctx, "", "apt-get", args...)
}

// run executes a command in dir and, when it fails, says what it printed.
func run(ctx context.Context, dir, command string, args ...string) error {
	_, err := output(ctx, dir, command, args...)
	return err
}

// output is what a command prints on its standard output.
func output(ctx context.Context, dir, command string, args ...string) ([]byte, error) {
	path := lookTool(command)
	if path == "" {
		path = command
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "PATH="+sbinPath+":"+os.Getenv("PATH"))
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String() + stdout.String())
		return nil, fmt.Errorf("%s %s: %w: %s", command, strings.Join(args, " "), err, said)
	}
	return stdout.Bytes(), nil
}
