package proxy

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
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
			r := &runtimeFs{info: new(runtimeapi.ImageFsInfoResponse)}
			if err := proto.Unmarshal(f.Bytes(), r.info); err != nil {
				return nil, status.Errorf(codes.Internal, "decode file system information: %v", err)
			}
			share = r.measure(full) && share
			runtimes[i] = r
		}
		slices.SortStableFunc(runtimes, func(a, b *runtimeFs) int {
			if share && a.share != b.share {
				return cmp.Compare(b.share, a.share)
			}
			return cmp.Compare(b.used, a.used)
		})
		merged := new(runtimeapi.ImageFsInfoResponse)
		for _, r := range runtimes {
			merged.ImageFilesystems = addFs(merged.ImageFilesystems, r.info.ImageFilesystems)
			merged.ContainerFilesystems = addFs(merged.ContainerFilesystems, r.info.ContainerFilesystems)
		}
		return encoded(merged)
	}
}

// runtimeFs is what one runtime says of its file systems.
type runtimeFs struct {
	info *runtimeapi.ImageFsInfoResponse
	// share and used are those of its fullest image file system.
	share float64
	used  uint64
}

// measure finds the fullest image file system and puts it first; ok is false
// where a share cannot be told.
func (r *runtimeFs) measure(full fullness) (ok bool) {
	ok = len(r.info.ImageFilesystems) > 0
	shares := make(map[*runtimeapi.FilesystemUsage]float64)
	for _, fs := range r.info.ImageFilesystems {
		share, seen := full(fs.GetFsId().GetMountpoint())
		ok = ok && seen
		shares[fs] = share
		r.share, r.used = max(r.share, share), max(r.used, fs.GetUsedBytes().GetValue())
	}
	slices.SortStableFunc(r.info.ImageFilesystems, func(a, b *runtimeapi.FilesystemUsage) int {
		if ok && shares[a] != shares[b] {
			return cmp.Compare(shares[b], shares[a])
		}
		return cmp.Compare(b.GetUsedBytes().GetValue(), a.GetUsedBytes().GetValue())
	})
	return ok
}

// addFs appends what is not listed yet. Of one that is, the larger number
// holds: each of the two counts the same bytes, as far as it knows of them.
func addFs(all, more []*runtimeapi.FilesystemUsage) []*runtimeapi.FilesystemUsage {
	for _, fs := range more {
		at := slices.IndexFunc(all, func(have *runtimeapi.FilesystemUsage) bool {
			return have.GetFsId().GetMountpoint() == fs.GetFsId().GetMountpoint()
		})
		switch {
		case at < 0:
			all = append(all, fs)
		case fs.GetUsedBytes().GetValue() > all[at].GetUsedBytes().GetValue():
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
