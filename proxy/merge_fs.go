package proxy

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// fullness tells what share of the file system at a path is taken, from 0 to
// 1; ok is false where it cannot be seen from here.
type fullness func(path string) (share float64, ok bool)

// diskFullness asks the kernel. What is kept for root counts as taken, as it
// does for the kubelet.
func diskFullness(path string) (float64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Blocks == 0 {
		return 0, false
	}
	return 1 - float64(st.Bavail)/float64(st.Blocks), true
}

// Fields of the messages about file systems.
const (
	imageFs     protowire.Number = 1
	containerFs protowire.Number = 2

	fsID         protowire.Number = 2
	fsMountpoint protowire.Number = 1
	fsUsed       protowire.Number = 3
	fsUsedValue  protowire.Number = 1
)

// mergeFsInfo lists the runtimes' file systems, those of the runtime with the
// fullest first: the kubelet looks at the first image file system and the
// first container file system alone, and takes two of different runtimes for
// one runtime that keeps its images apart. One that two runtimes name, as they
// do where they share a containerd, is listed once.
func mergeFsInfo(full fullness) func([]*backends.Frame) (*backends.Frame, error) {
	return func(frames []*backends.Frame) (*backends.Frame, error) {
		runtimes := make([]*runtimeFs, len(frames))
		share := true
		for i, f := range frames {
			runtimes[i] = fsOf(f.Bytes())
			share = runtimes[i].measure(full) && share
		}
		slices.SortStableFunc(runtimes, func(a, b *runtimeFs) int {
			if share && a.share != b.share {
				return cmp.Compare(b.share, a.share)
			}
			return cmp.Compare(b.used, a.used)
		})
		var images, containers []fileSystem
		var out, beside []byte
		for _, r := range runtimes {
			images = addFs(images, r.images)
			containers = addFs(containers, r.containers)
			beside = append(beside, r.beside...)
		}
		for _, fs := range images {
			out = wire.AppendItem(out, imageFs, fs.raw)
		}
		for _, fs := range containers {
			out = wire.AppendItem(out, containerFs, fs.raw)
		}
		return backends.NewFrame(append(out, beside...)), nil
	}
}

// fileSystem is what a runtime says of one, and what of it is looked at.
type fileSystem struct {
	raw   wire.Message
	path  string
	used  uint64
	share float64
}

func fileSystemOf(m wire.Message) fileSystem {
	return fileSystem{raw: m, path: m.At(fsID, fsMountpoint), used: m.Msg(fsUsed).Uint(fsUsedValue)}
}

// runtimeFs is what one runtime says of its file systems.
type runtimeFs struct {
	images, containers []fileSystem
	// beside is what newer runtimes say beside them.
	beside []byte
	// share and used are those of its fullest image file system.
	share float64
	used  uint64
}

// fsOf takes an answer apart.
func fsOf(answer wire.Message) *runtimeFs {
	r := new(runtimeFs)
	answer.Fields(func(f wire.Field) bool {
		switch {
		case f.Type != protowire.BytesType || f.Num != imageFs && f.Num != containerFs:
			r.beside = append(r.beside, f.Raw...)
		case f.Num == imageFs:
			r.images = append(r.images, fileSystemOf(f.Value))
		default:
			r.containers = append(r.containers, fileSystemOf(f.Value))
		}
		return true
	})
	return r
}

// measure finds the fullest image file system and puts it first; ok is false
// where a share cannot be told.
func (r *runtimeFs) measure(full fullness) (ok bool) {
	ok = len(r.images) > 0
	for i := range r.images {
		fs := &r.images[i]
		var seen bool
		fs.share, seen = full(fs.path)
		ok = ok && seen
		r.share, r.used = max(r.share, fs.share), max(r.used, fs.used)
	}
	slices.SortStableFunc(r.images, func(a, b fileSystem) int {
		if ok && a.share != b.share {
			return cmp.Compare(b.share, a.share)
		}
		return cmp.Compare(b.used, a.used)
	})
	return ok
}

// addFs appends what is not listed yet. Of one that is, the larger number
// holds: each of the two counts the same bytes, as far as it knows of them.
// Those without a place are not known to be the same.
func addFs(all, more []fileSystem) []fileSystem {
	for _, fs := range more {
		at := slices.IndexFunc(all, func(have fileSystem) bool { return fs.path != "" && have.path == fs.path })
		switch {
		case at < 0:
			all = append(all, fs)
		case fs.used > all[at].used:
			all[at] = fs
		}
	}
	return all
}

// encoded is a message of crimux's own making as a frame.
func encoded(m proto.Message) (*backends.Frame, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode %s: %v", m.ProtoReflect().Descriptor().Name(), err)
	}
	return backends.NewFrame(b), nil
}
