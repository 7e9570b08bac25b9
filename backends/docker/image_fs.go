package docker

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/docker/docker/api/types"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// fsInterval is how often usage is measured at most; fsDuty is the part
	// of the time that measuring may take.
	fsInterval = time.Minute
	fsDuty     = 20
)

// fsUsage is what images take up, and the number of inodes of images and
// containers.
type fsUsage struct {
	measured   time.Time
	root       string
	imageBytes uint64
	inodes     uint64
}

// ImageFsInfo implements the ImageService. It tells what was last measured;
// only a daemon that has not measured yet does it now.
func (s *server) ImageFsInfo(ctx context.Context, _ *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	u := s.fs.Load()
	if u == nil {
		var err error
		if u, err = s.quickUsage(ctx); err != nil {
			return nil, err
		}
	}
	usage := func(bytes uint64) []*runtimeapi.FilesystemUsage {
		return []*runtimeapi.FilesystemUsage{{
			Timestamp: u.measured.UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: u.root},
			UsedBytes: &runtimeapi.UInt64Value{Value: bytes}, InodesUsed: &runtimeapi.UInt64Value{Value: u.inodes},
		}}
	}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: usage(u.imageBytes), ContainerFilesystems: usage(s.layerBytes())}, nil
}

// layerBytes is what containers have written, as it was last measured.
func (s *server) layerBytes() (sum uint64) {
	for _, f := range s.cache.all(typeContainer) {
		if l, ok := s.stats.layers.Layer(f.ID); ok {
			sum += l.Bytes
		}
	}
	return sum
}

// quickUsage is a first answer without a walk through the disk: the file
// system's own numbers, which are upper bounds.
func (s *server) quickUsage(ctx context.Context) (*fsUsage, error) {
	f, err := s.currentFacts(ctx, factsAge)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(f.rootDir, &st); err != nil {
		return nil, s.fail(err, "file system of the docker engine's data %s", f.rootDir)
	}
	return &fsUsage{
		measured: time.Now(), root: f.rootDir,
		imageBytes: (st.Blocks - st.Bfree) * uint64(st.Bsize), inodes: st.Files - st.Ffree,
	}, nil
}

// measureUsage measures now and then until ctx is done.
func (s *server) measureUsage(ctx context.Context) {
	for {
		began := time.Now()
		// While the Engine is away, the last numbers stand.
		if u, err := s.measure(ctx); err == nil {
			s.fs.Store(u)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(fsInterval, fsDuty*time.Since(began))):
		}
	}
}

// measure asks the Engine for the bytes of images, of which it keeps count,
// and counts inodes itself. Engine 20.10 does not take types, and looks at
// containers and volumes as well.
func (s *server) measure(ctx context.Context) (*fsUsage, error) {
	f, err := s.currentFacts(ctx, factsAge)
	if err != nil {
		return nil, err
	}
	du, err := s.engine.DiskUsage(ctx, types.DiskUsageOptions{Types: []types.DiskUsageObject{types.ImageObject}})
	if err != nil {
		return nil, s.fail(err, "disk usage")
	}
	u := &fsUsage{measured: time.Now(), root: f.rootDir, imageBytes: uint64(max(du.LayersSize, 0))}
	if u.inodes, err = countInodes(ctx, filepath.Join(f.rootDir, f.driver)); err != nil {
		return nil, err
	}
	return u, nil
}

// countInodes counts what lies below the storage driver's folder, without
// entering what is mounted there. Layers come and go while it counts.
func countInodes(ctx context.Context, dir string) (n uint64, err error) {
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return nil // gone meanwhile
		}
		n++
		if d.IsDir() && d.Name() == "merged" {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("count inodes of %s: %w", dir, err)
	}
	return n, nil
}
