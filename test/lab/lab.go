package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// storeEnv names the environment variable that stands for [Options.ContainerdStore].
const storeEnv = "CRIMUX_LAB_CONTAINERD_STORE"

// Lab is a set of running engines. Its methods may be called from several goroutines, but Stop only once.
type Lab struct {
	// Dir is the lab's folder; users may put their own files into it, and they go when the lab goes.
	Dir string
	// DockerSocket is the path of dockerd's socket, "" without dockerd.
	DockerSocket string
	// ContainerdSocket is the path of containerd's socket (CRI and containerd API), "" without containerd.
	ContainerdSocket string
	// CNIConfDir holds the lab's one network configuration list, named as Bridge is.
	CNIConfDir string
	// CNIBinDirs are the folders with the CNI plugins.
	CNIBinDirs []string
	// CNICacheDir is free for users to pass to libcni; the footprint watches it. containerd keeps its results
	// in /var/lib/cni, where the footprint tells this lab's from others.
	CNICacheDir string
	// IPAMDir is the data folder of the host-local plugin; the addresses in use are files in IPAMDir/NETWORK.
	IPAMDir string
	// Bridge is the name of the lab's bridge and of its CNI network.
	Bridge string
	// Subnet is the network that pods' addresses come from, such as "10.70.3.0/24".
	Subnet string
	// Registry is the address of the lab's registry (plain http), such as "127.0.0.1:40123".
	Registry string
	// LogsDir holds what the engines print.
	LogsDir string

	site       site
	log        io.Writer
	registry   *imageRegistry
	digests    map[string]string
	docker     *daemon
	engine     *daemon // dockerd's containerd where dockerd cannot start it itself
	containerd *daemon
	dockerAPI  *client.Client
	criConn    *grpc.ClientConn
	netnsThen  map[string]bool // namespaces of others, from before the lab
	started    time.Time
}

// Start brings up a lab and returns when its engines answer and its images can be pulled. It installs what the
// machine lacks (see [EnsureHost]) and first removes labs whose owner died. When it fails nothing is left.
func Start(ctx context.Context, o Options) (*Lab, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	o.ContainerdStore = o.ContainerdStore || os.Getenv(storeEnv) != ""
	if o.Layout == SharedContainerd && o.NoContainerd && !o.NoDocker {
		return nil, errors.New("start the lab: dockerd cannot share a containerd that is left out; choose the layout OwnContainerd")
	}
	if err := EnsureHost(ctx, o.Log); err != nil {
		return nil, fmt.Errorf("prepare the machine for the lab: %w", err)
	}
	if err := Sweep(ctx, o.Log); err != nil {
		return nil, fmt.Errorf("remove labs whose owner died: %w", err)
	}
	s, err := newSite()
	if err != nil {
		return nil, fmt.Errorf("start the lab: %w", err)
	}
	l := &Lab{site: s, log: o.Log, started: time.Now()}
	if err := l.bringUp(ctx, o); err != nil {
		// Nobody has used the lab yet, so whatever Stop reports is part of the same failure.
		return nil, fmt.Errorf("start the lab: %w", errors.Join(err, l.Stop()))
	}
	l.say("up in %v: %s", time.Since(l.started).Round(time.Millisecond), l.Dir)
	return l, nil
}

func (l *Lab) say(format string, args ...any) { fmt.Fprintf(l.log, "lab: "+format+"\n", args...) }

func (l *Lab) bringUp(ctx context.Context, o Options) error {
	if err := l.layOut(o); err != nil {
		return err
	}
	var binDir string
	if o.Containerd == V2 && !o.NoContainerd {
		dir, err := buildContainerd2(ctx, o.Log)
		if err != nil {
			return err
		}
		binDir = dir
	}
	if err := l.makeEngines(ctx, o, binDir); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.fillRegistry(ctx) })
	g.Go(func() error {
		if o.Layout == SharedContainerd && l.containerd != nil {
			if err := l.containerd.start(ctx); err != nil {
				return err
			}
		}
		if err := l.startDockerPair(ctx); err != nil || !o.ContainerdStore || o.NoDocker {
			return err
		}
		return l.checkStore(ctx)
	})
	if o.Layout == OwnContainerd && l.containerd != nil {
		g.Go(func() error { return l.containerd.start(ctx) })
	}
	return g.Wait()
}

// layOut decides on paths, starts the registry (whose port the configurations need) and writes the network.
func (l *Lab) layOut(o Options) error {
	s := l.site
	l.Dir, l.Bridge, l.LogsDir = s.dir, s.name, s.path("logs")
	l.CNIConfDir, l.CNICacheDir, l.IPAMDir = s.path("cni/net.d"), s.path("cni/cache"), s.path("cni/ipam")
	l.CNIBinDirs = presentCNIBinDirs()
	netns, err := netnsMounts(s)
	if err != nil {
		return err
	}
	l.netnsThen = map[string]bool{}
	for _, n := range netns {
		l.netnsThen[n] = true
	}
	subnet, err := s.pickSubnet()
	if err != nil {
		return err
	}
	l.Subnet = subnet.String()
	if err := s.writeCNI(subnet); err != nil {
		return err
	}
	if l.registry, err = startRegistry(); err != nil {
		return err
	}
	l.Registry = l.registry.addr
	if !o.NoDocker {
		l.DockerSocket = s.path("run/docker.sock")
		if l.dockerAPI, err = newDockerClient(l.DockerSocket); err != nil {
			return err
		}
	}
	if !o.NoContainerd {
		l.ContainerdSocket = s.path("run/containerd.sock")
		if l.criConn, err = dialCRI(l.ContainerdSocket); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) makeEngines(ctx context.Context, o Options, binDir string) (err error) {
	if !o.NoContainerd {
		if l.containerd, err = l.newContainerd(o.Containerd, binDir); err != nil {
			return err
		}
	}
	if o.NoDocker {
		return nil
	}
	if o.Layout == OwnContainerd {
		if l.engine, err = l.newEngineContainerd(); err != nil {
			return err
		}
	}
	l.docker, err = l.newDocker(ctx, o)
	return err
}

func (l *Lab) fillRegistry(ctx context.Context) error {
	userland, err := fetchUserland(ctx, l.log)
	if err != nil {
		return err
	}
	images, err := buildImages(userland)
	if err != nil {
		return err
	}
	l.digests, err = l.registry.push(ctx, images)
	return err
}

// Image is the reference of one of the lab's images in its registry. There are:
//
//	busybox  a shell and the usual tools; runs sh
//	alt      the same tools as user 1000 in /home, with ALT=1 in its environment
//	web      answers GET / with [WebBody] on port $PORT (8080 unless set) and ends at once on SIGTERM
//	pause    containerd's sandbox
//
// Any other name gives a well-formed reference that the registry answers with "not found".
func (l *Lab) Image(name string) string { return l.registry.ref(name) }

// ImageByDigest is the reference of an image by its digest, for instance 127.0.0.1:40123/web@sha256:…
func (l *Lab) ImageByDigest(name string) string {
	return l.Registry + "/" + name + "@" + l.digests[name]
}

// Docker is a client of the lab's dockerd; the lab closes it.
func (l *Lab) Docker() *client.Client { return l.dockerAPI }

// CRI is a client of the lab's containerd; the lab closes its connection.
func (l *Lab) CRI() runtimeapi.RuntimeServiceClient {
	return runtimeapi.NewRuntimeServiceClient(l.criConn)
}

// CRIImages is a client of the image service of the lab's containerd.
func (l *Lab) CRIImages() runtimeapi.ImageServiceClient {
	return runtimeapi.NewImageServiceClient(l.criConn)
}

// Log is the end of what an engine ("dockerd" or "containerd") printed, for a test's failure message.
func (l *Lab) Log(engine string) string { return tail(filepath.Join(l.LogsDir, engine+".log")) }
