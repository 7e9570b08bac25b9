// Command lab brings up container engines, a registry and a network for trying things by hand:
//
//	lab up [-layout own|shared] [-containerd debian|v2] [-live-restore]
//	lab install
//
// "install" only installs the packages that are missing. "up" prints where they are as KEY=VALUE lines, stays until SIGINT or SIGTERM, and takes everything down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/crimux/crimux/test/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	if len(args) == 1 && args[0] == "install" {
		return lab.EnsureHost(ctx, progress)
	}
	if len(args) == 0 || args[0] != "up" {
		return errors.New("usage: lab up [-layout own|shared] [-containerd debian|v2] [-live-restore] | lab install")
	}
	o, err := parse(args[1:])
	if err != nil {
		return err
	}
	o.Log = progress
	l, err := lab.Start(ctx, o)
	if err != nil {
		return err
	}
	describe(out, l)
	<-ctx.Done()
	return l.Stop()
}

func parse(args []string) (lab.Options, error) {
	var o lab.Options
	flags := flag.NewFlagSet("lab up", flag.ContinueOnError)
	layout := flags.String("layout", lab.OwnContainerd.String(), "dockerd's containerd: own or shared")
	version := flags.String("containerd", lab.Debian.String(), "the CRI's containerd: debian or v2")
	flags.BoolVar(&o.LiveRestore, "live-restore", false, "keep Docker's containers while dockerd is down")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	for _, l := range []lab.Layout{lab.OwnContainerd, lab.SharedContainerd} {
		if l.String() == *layout {
			o.Layout, *layout = l, ""
		}
	}
	for _, v := range []lab.Version{lab.Debian, lab.V2} {
		if v.String() == *version {
			o.Containerd, *version = v, ""
		}
	}
	if *layout != "" || *version != "" || flags.NArg() > 0 {
		return o, fmt.Errorf("unknown value among %q; see lab up -h", args)
	}
	return o, nil
}

func describe(w io.Writer, l *lab.Lab) {
	for _, kv := range [][2]string{
		{"LAB_DIR", l.Dir},
		{"DOCKER_HOST", "unix://" + l.DockerSocket},
		{"CONTAINERD_ADDRESS", l.ContainerdSocket},
		{"CONTAINER_RUNTIME_ENDPOINT", "unix://" + l.ContainerdSocket},
		{"REGISTRY", l.Registry},
		{"IMAGE_BUSYBOX", l.Image("busybox")},
		{"IMAGE_WEB", l.Image("web")},
		{"IMAGE_ALT", l.Image("alt")},
		{"CNI_CONF_DIR", l.CNIConfDir},
		{"CNI_BIN_DIRS", strings.Join(l.CNIBinDirs, ":")},
		{"CNI_CACHE_DIR", l.CNICacheDir},
		{"IPAM_DIR", l.IPAMDir},
		{"BRIDGE", l.Bridge},
		{"SUBNET", l.Subnet},
		{"LOGS_DIR", l.LogsDir},
	} {
		fmt.Fprintf(w, "%s=%s\n", kv[0], kv[1])
	}
}
