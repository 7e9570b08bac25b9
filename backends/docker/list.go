package docker

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The two lists that the kubelet asks for every second are put together from
// items that were encoded when they last changed. Only the state is added: it
// may change without the item.

// Field numbers of the answers and of their items.
const (
	itemsField          protowire.Number = 1
	sandboxStateField   protowire.Number = 3
	containerStateField protowire.Number = 6
)

// lists are the methods that answer in encoded form.
var lists = map[string]func(s *server, ctx context.Context, request []byte) ([]byte, error){
	runtimeapi.RuntimeService_ListPodSandbox_FullMethodName: (*server).listPodSandbox,
	runtimeapi.RuntimeService_ListContainers_FullMethodName: (*server).listContainers,
}

// listPodSandbox answers ListPodSandbox.
func (s *server) listPodSandbox(ctx context.Context, request []byte) ([]byte, error) {
	var r runtimeapi.ListPodSandboxRequest
	if err := decodeRequest("ListPodSandbox", request, &r); err != nil {
		return nil, err
	}
	all, err := s.all(ctx, typeSandbox)
	if err != nil {
		return nil, err
	}
	filter := r.GetFilter()
	out := make([]byte, 0, sizeOf(all))
	for _, f := range all {
		if !strings.HasPrefix(f.ID, filter.GetId()) || !matches(filter.GetLabelSelector(), f.labels) {
			continue
		}
		state := s.listedState(f)
		if want := filter.GetState(); want != nil && want.State != state {
			continue
		}
		out = appendItem(out, f.item, sandboxStateField, int32(state))
	}
	return out, nil
}

// listContainers answers ListContainers.
func (s *server) listContainers(ctx context.Context, request []byte) ([]byte, error) {
	var r runtimeapi.ListContainersRequest
	if err := decodeRequest("ListContainers", request, &r); err != nil {
		return nil, err
	}
	all, err := s.all(ctx, typeContainer)
	if err != nil {
		return nil, err
	}
	filter := r.GetFilter()
	out := make([]byte, 0, sizeOf(all))
	for _, f := range all {
		if !strings.HasPrefix(f.ID, filter.GetId()) || !strings.HasPrefix(f.sandboxID, filter.GetPodSandboxId()) ||
			!matches(filter.GetLabelSelector(), f.labels) {
			continue
		}
		state := f.criState()
		if want := filter.GetState(); want != nil && want.State != state {
			continue
		}
		out = appendItem(out, f.item, containerStateField, int32(state))
	}
	return out, nil
}

// decodeRequest reads a request.
func decodeRequest(method string, request []byte, to proto.Message) error {
	if err := proto.Unmarshal(request, to); err != nil {
		return status.Errorf(codes.InvalidArgument, "%s: request is not a valid message: %v", method, err)
	}
	return nil
}

// encodeItem is the container as an item of its list, but for the state.
func (f *found) encodeItem() ([]byte, error) {
	if f.kind == typeSandbox {
		return proto.Marshal(&runtimeapi.PodSandbox{
			Id: f.ID, Metadata: f.identity.sandbox(), CreatedAt: f.createdAtNanos(),
			Labels: f.labels, Annotations: f.annotations, RuntimeHandler: f.handler,
		})
	}
	return proto.Marshal(&runtimeapi.Container{
		Id: f.ID, PodSandboxId: f.sandboxID, Metadata: &runtimeapi.ContainerMetadata{Name: f.container, Attempt: f.attempt},
		Image: f.imageSpec(f.Config.Image), ImageRef: f.Image, ImageId: f.Image, CreatedAt: f.createdAtNanos(),
		Labels: f.labels, Annotations: f.annotations,
	})
}

// sizeOf is about what a list of all items takes.
func sizeOf(all []*found) (n int) {
	const tagsAndState = 8
	for _, f := range all {
		n += len(f.item) + tagsAndState
	}
	return n
}

// appendItem adds an item with its state, which is not written where it is 0.
func appendItem(list, item []byte, stateField protowire.Number, state int32) []byte {
	size := len(item)
	if state != 0 {
		size += protowire.SizeTag(stateField) + protowire.SizeVarint(uint64(state))
	}
	list = protowire.AppendTag(list, itemsField, protowire.BytesType)
	list = protowire.AppendVarint(list, uint64(size))
	list = append(list, item...)
	if state != 0 {
		list = protowire.AppendTag(list, stateField, protowire.VarintType)
		list = protowire.AppendVarint(list, uint64(state))
	}
	return list
}
