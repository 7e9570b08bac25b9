package proxy

import (
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// BenchmarkCall compares calls made directly to a fake runtime with the same
// calls through the front.
func BenchmarkCall(b *testing.B) {
	n := newNode(b)
	conn, err := grpc.NewClient("unix://"+n.b.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	var id string
	for i := range 60 {
		id = n.run(b, fmt.Sprint("pod-", i), "front-b")
		n.create(b, id, "c")
	}
	for _, way := range []struct {
		name   string
		client runtimeapi.RuntimeServiceClient
	}{{"direct", runtimeapi.NewRuntimeServiceClient(conn)}, {"crimux", n}} {
		b.Run("PodSandboxStatus/"+way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := way.client.PodSandboxStatus(b.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("ListContainers60/"+way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := way.client.ListContainers(b.Context(), &runtimeapi.ListContainersRequest{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
