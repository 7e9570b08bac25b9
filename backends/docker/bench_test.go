package docker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// benchReads fills a bench with pods of one container each.
func benchReads(b *testing.B, pods int) (*bench, string) {
	b.Helper()
	n := newBench(b)
	var last string
	for i := range pods {
		for kind, name := range map[string]string{typeSandbox: "POD", typeContainer: "main"} {
			id := fmt.Sprintf("%s%060x", map[string]string{typeSandbox: "aaaa", typeContainer: "bbbb"}[kind], i)
			uid := fmt.Sprintf("%08d-2f61-4a6e-9d0c-4b8e4e2f6a11", i)
			labels := map[string]string{labelType: kind, labelOp: "op", "app": "web", "pod-template-hash": "6d4cf56db6", "io.kubernetes.pod.name": "web",
				"io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": uid, annotationPrefix + "kubernetes.io/config.seen": "2026-01-01T00:00:00Z"}
			if kind == typeContainer {
				labels[labelSandboxID] = fmt.Sprintf("aaaa%060x", i)
				last = id
			}
			c := &container.InspectResponse{
				ContainerJSONBase: &container.ContainerJSONBase{ID: id, Name: fmt.Sprintf("/k8s_%s_web_default_%s_0", name, uid), Created: time.Now().Format(time.RFC3339Nano),
					State:      &container.State{Status: container.StateRunning, Running: true, StartedAt: time.Now().Format(time.RFC3339Nano)},
					HostConfig: &container.HostConfig{NetworkMode: "host"}, Image: "sha256:" + strings.Repeat("1", 64)},
				Config: &container.Config{Image: "web", Labels: labels},
			}
			n.engine.containers[id] = c
		}
	}
	n.resync(b)
	return n, last
}

// BenchmarkReads is what the kubelet's reads cost within the backend.
func BenchmarkReads(b *testing.B) {
	for _, pods := range []int{60, 200} {
		n, last := benchReads(b, pods)
		for _, c := range []struct {
			method string
			req    proto.Message
		}{
			{runtimeapi.RuntimeService_ListContainers_FullMethodName, &runtimeapi.ListContainersRequest{}},
			{runtimeapi.RuntimeService_ListPodSandbox_FullMethodName, &runtimeapi.ListPodSandboxRequest{}},
			{runtimeapi.RuntimeService_ContainerStatus_FullMethodName, &runtimeapi.ContainerStatusRequest{ContainerId: last}},
		} {
			body, err := proto.Marshal(c.req)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("%s/%d", c.method[strings.LastIndex(c.method, "/")+1:], pods), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					a, err := n.backend.Invoke(b.Context(), &backends.Call{Method: c.method, Request: backends.NewFrame(body), Journal: backends.NoJournal})
					if err != nil {
						b.Fatal(err)
					}
					a.Body.Free()
				}
			})
		}
	}
}
