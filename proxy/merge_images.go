package proxy

import (
	"cmp"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// mergeImages makes one list without duplicate ids, which the kubelet keys
// its image garbage collection by: names are united, and an image that is
// pinned anywhere is pinned.
func mergeImages(frames []*backends.Frame) (*backends.Frame, error) {
	byID := make(map[string]*runtimeapi.Image)
	merged := new(runtimeapi.ListImagesResponse)
	for _, f := range frames {
		list := new(runtimeapi.ListImagesResponse)
		if err := proto.Unmarshal(f.Bytes(), list); err != nil {
			return nil, status.Errorf(codes.Internal, "decode a list of images: %v", err)
		}
		for _, img := range list.Images {
			have := byID[img.Id]
			if have == nil {
				byID[img.Id] = img
				merged.Images = append(merged.Images, img)
				continue
			}
			have.RepoTags = union(have.RepoTags, img.RepoTags)
			have.RepoDigests = union(have.RepoDigests, img.RepoDigests)
			have.Pinned = have.Pinned || img.Pinned
			have.Size += img.Size
		}
	}
	return encoded(merged)
}

func union(a, b []string) []string {
	for _, v := range b {
		if !slices.Contains(a, v) {
			a = append(a, v)
		}
	}
	return a
}

// mergeFsInfo concatenates the file systems, the one with the most used first:
// the kubelet looks at the first alone.
func mergeFsInfo(frames []*backends.Frame) (*backends.Frame, error) {
	merged := new(runtimeapi.ImageFsInfoResponse)
	for _, f := range frames {
		one := new(runtimeapi.ImageFsInfoResponse)
		if err := proto.Unmarshal(f.Bytes(), one); err != nil {
			return nil, status.Errorf(codes.Internal, "decode file system information: %v", err)
		}
		merged.ImageFilesystems = append(merged.ImageFilesystems, one.ImageFilesystems...)
		merged.ContainerFilesystems = append(merged.ContainerFilesystems, one.ContainerFilesystems...)
	}
	fuller := func(a, b *runtimeapi.FilesystemUsage) int {
		return cmp.Compare(b.GetUsedBytes().GetValue(), a.GetUsedBytes().GetValue())
	}
	slices.SortStableFunc(merged.ImageFilesystems, fuller)
	slices.SortStableFunc(merged.ContainerFilesystems, fuller)
	return encoded(merged)
}

// encoded is a message of crimux's own making as a frame.
func encoded(m proto.Message) (*backends.Frame, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode %s: %v", m.ProtoReflect().Descriptor().Name(), err)
	}
	return backends.NewFrame(b), nil
}
