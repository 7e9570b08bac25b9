package proxy

import (
	"slices"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestImagesGoWhereTheirPodGoes(t *testing.T) {
	n := newNode(t)
	run := runRequest("web", "front-b")
	run.Config.Annotations = map[string]string{"kubernetes.io/config.seen": "2026-01-02T03:04:05.678901234Z"}
	if _, err := n.RunPodSandbox(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	annotated := &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "i", Annotations: run.Config.Annotations}}
	bare := &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "i"}}
	if _, err := n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: annotated.Image, SandboxConfig: run.Config}); err != nil {
		t.Fatal(err)
	}
	if n.b.called("PullImage") != 1 || n.a.called("PullImage") != 0 {
		t.Error("the image was not pulled on its pod's runtime")
	}
	for what, req := range map[string]*runtimeapi.ImageStatusRequest{"with the pod's annotations": annotated, "without": bare} {
		if r, err := n.images.ImageStatus(t.Context(), req); err != nil || r.Image == nil {
			t.Errorf("ImageStatus %s: %v, %v", what, r, err)
		}
	}
	other := &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "i", Annotations: map[string]string{"x": "y"}}}
	if r, err := n.images.ImageStatus(t.Context(), other); err != nil || r.Image != nil {
		t.Errorf("for a pod that goes to the default the image is there: %v, %v", r, err)
	}
	if _, err := n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: bare.Image}); err != nil {
		t.Fatal(err)
	}
	list, err := n.images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil || len(list.Images) != 1 || len(list.Images[0].RepoTags) != 2 {
		t.Errorf("an image that both have is listed as %v, %v", list, err)
	}
	if _, err := n.images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: bare.Image}); err != nil {
		t.Fatal(err)
	}
	if n.a.called("RemoveImage") != 1 || n.b.called("RemoveImage") != 1 {
		t.Error("the image was not removed from both runtimes")
	}
}

func TestStreamedListsOverUnaryOnes(t *testing.T) {
	n := newNode(t)
	a, b := n.run(t, "pa", "front-a"), n.run(t, "pb", "front-b")
	st, err := n.StreamPodSandboxes(t.Context(), &runtimeapi.StreamPodSandboxesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for {
		r, err := st.Recv()
		if err != nil {
			break
		}
		for _, sb := range r.PodSandboxes {
			ids = append(ids, sb.Id)
		}
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{a, b}) {
		t.Errorf("streamed %v, want %s and %s", ids, a, b)
	}
}

// TestABareLookUp: without a pod on it, a runtime's images are not what a
// client that pulls to the default is told of.
func TestABareLookUp(t *testing.T) {
	n := newNode(t)
	n.b.edit(func() { n.b.images["i"] = &runtimeapi.Image{Id: "sha256:i"} })
	look := func() *runtimeapi.Image {
		r, err := n.images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "i"}})
		if err != nil {
			t.Fatal(err)
		}
		return r.Image
	}
	if img := look(); img != nil {
		t.Errorf("an image on a runtime without pods is there: %v", img)
	}
	n.run(t, "web", "front-b")
	if look() == nil {
		t.Error("an image on the runtime of a pod is not there")
	}
}
