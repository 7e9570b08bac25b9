package proxy

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/policy"
)

const (
	listSandboxes    = runtimeapi.RuntimeService_ListPodSandbox_FullMethodName
	listContainers   = runtimeapi.RuntimeService_ListContainers_FullMethodName
	containerStats   = runtimeapi.RuntimeService_ListContainerStats_FullMethodName
	sandboxStats     = runtimeapi.RuntimeService_ListPodSandboxStats_FullMethodName
	listImagesMethod = runtimeapi.ImageService_ListImages_FullMethodName
)

// asked are the names of those who are asked.
func (n *node) asked(t *testing.T, full string, req proto.Message) string {
	t.Helper()
	b, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range n.server.concerned(full, b) {
		names = append(names, m.Name())
	}
	return strings.Join(names, " ")
}

func ofPodUID(uid string) map[string]string { return map[string]string{podUIDLabel: uid} }

// TestAFilterIsAskedOfWhomItNames: by id, by sandbox and by pod, and of all
// where that is not known.
func TestAFilterIsAskedOfWhomItNames(t *testing.T) {
	n := newNode(t)
	sb := n.run(t, "pb", "front-b")
	ctr := n.create(t, sb, "main")
	// A pod that somebody else has made.
	n.a.edit(func() {
		n.a.sandboxes["strange"] = &runtimeapi.PodSandbox{Id: "strange", Metadata: &runtimeapi.PodSandboxMetadata{Name: "s", Uid: "uid-s", Namespace: "ns"}}
	})
	eventually(t, "it is seen", func() bool { return n.server.knownSandbox("strange") != nil })
	for _, row := range []struct {
		name, full string
		req        proto.Message
		want       string
	}{
		{"sandbox by id", listSandboxes, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{Id: sb}}, "b"},
		{"sandbox by the beginning of an id", listSandboxes, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{Id: sb[:3]}}, "a b"},
		{"sandbox by pod", listSandboxes, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: ofPodUID("uid-pb")}}, "b"},
		{"sandbox of a pod that is not known", listSandboxes, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: ofPodUID("?")}}, "a b"},
		{"sandbox of a pod that crimux did not place", listSandboxes, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: ofPodUID("uid-s")}}, "a b"},
		{"sandbox by another label", listSandboxes, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"app": "uid-pb"}}}, "a b"},
		{"all sandboxes", listSandboxes, &runtimeapi.ListPodSandboxRequest{}, "a b"},
		{"container by id", listContainers, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{Id: ctr}}, "b"},
		{"container by sandbox", listContainers, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: sb}}, "b"},
		{"container by pod", listContainers, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: ofPodUID("uid-pb")}}, "b"},
		{"container by state", listContainers, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{}}}, "a b"},
		{"stats by id", containerStats, &runtimeapi.ListContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{Id: ctr}}, "b"},
		{"stats by sandbox", containerStats, &runtimeapi.ListContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{PodSandboxId: sb}}, "b"},
		{"stats by pod", containerStats, &runtimeapi.ListContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{LabelSelector: ofPodUID("uid-pb")}}, "b"},
		{"sandbox stats by id", sandboxStats, &runtimeapi.ListPodSandboxStatsRequest{Filter: &runtimeapi.PodSandboxStatsFilter{Id: sb}}, "b"},
		{"sandbox stats by pod", sandboxStats, &runtimeapi.ListPodSandboxStatsRequest{Filter: &runtimeapi.PodSandboxStatsFilter{LabelSelector: ofPodUID("uid-pb")}}, "b"},
		{"images", listImagesMethod, &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: sb}}}, "a b"},
	} {
		if got := n.asked(t, row.full, row.req); got != row.want {
			t.Errorf("%s: asked are %q, want %q", row.name, got, row.want)
		}
	}
}

// TestAPodThatMayHaveMoved is looked for where its next sandbox goes as well:
// one may be there that nobody has told of yet.
func TestAPodThatMayHaveMoved(t *testing.T) {
	n := nodeOf(t, "migration: {to: b, percent: 100}\n", nil)
	sb := n.run(t, "moved", "")
	req := &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: ofPodUID("uid-moved")}}
	if got := n.asked(t, listSandboxes, req); got != "b" {
		t.Errorf("where it runs and will run: asked are %q", got)
	}
	if _, err := n.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sb}); err != nil {
		t.Fatal(err)
	}
	n.restart(t, func(cfg *policy.Config) { cfg.Migration.To, cfg.Migration.Percent = "", 0 })
	if got := n.asked(t, listSandboxes, req); got != "a b" {
		t.Errorf("where it was and will be: asked are %q", got)
	}
}
