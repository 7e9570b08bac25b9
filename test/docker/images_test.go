package docker

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// image is what ImageStatus says; nil if there is none.
func (c cri) image(ref string) *runtimeapi.Image {
	c.t.Helper()
	return must[runtimeapi.ImageStatusResponse](c, imageService+"ImageStatus",
		&runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}, Verbose: true}).Image
}

func TestImages(t *testing.T) {
	c := kubelet(t)
	ref := node.lab.Image("alt")
	remove := func(ref string) {
		t.Helper()
		must[runtimeapi.RemoveImageResponse](c, imageService+"RemoveImage", &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	}
	if img := c.image(ref); img != nil {
		t.Fatalf("there before its pull: %v", img)
	}
	remove(ref) // absent is as good
	pulled := must[runtimeapi.PullImageResponse](c, imageService+"PullImage", &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: ref}, Auth: &runtimeapi.AuthConfig{Auth: "dXNlcjpwYXNz"},
	}).ImageRef
	img := c.image(ref)
	if img.GetId() != pulled || !slices.Contains(img.RepoTags, ref) || len(img.RepoDigests) == 0 || img.Size == 0 || img.Uid.GetValue() != 1000 {
		t.Errorf("image %v, pulled %q", img, pulled)
	}
	for _, other := range []string{img.Id, strings.TrimPrefix(img.Id, "sha256:"), img.RepoDigests[0]} {
		if got := c.image(other); got.GetId() != img.Id {
			t.Errorf("image by %s: %v", other, got)
		}
	}
	all := must[runtimeapi.ListImagesResponse](c, imageService+"ListImages", &runtimeapi.ListImagesRequest{})
	if !slices.ContainsFunc(all.Images, func(i *runtimeapi.Image) bool { return i.Id == img.Id && slices.Equal(i.RepoTags, img.RepoTags) }) {
		t.Errorf("not in the list: %v", all.Images)
	}

	// A second name: taking one away leaves the other.
	second := ref + "-second"
	if err := node.lab.Docker().ImageTag(t.Context(), ref, second); err != nil {
		t.Fatal(err)
	}
	remove(second)
	if c.image(second) != nil || c.image(ref) == nil {
		t.Error("removing one name")
	}
	if err := node.lab.Docker().ImageTag(t.Context(), ref, second); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { remove(img.Id) })
	}
	group.Wait()
	if c.image(ref) != nil || c.image(second) != nil || c.image(img.Id) != nil {
		t.Error("removing by id")
	}
}

// TestUsedImage: an image that a container is made of stays, with all its
// names, and the refusal names the container. One name of several can go.
func TestUsedImage(t *testing.T) {
	s := newSandbox(t, plain)
	ref := s.pull("alt")
	second := ref + "-second"
	if err := node.lab.Docker().ImageTag(t.Context(), ref, second); err != nil {
		t.Fatal(err)
	}
	ctr := s.add(func(c *runtimeapi.ContainerConfig) { c.Image.Image = ref })
	img := s.image(ref)
	remove := func(ref string) error {
		return s.try(imageService+"RemoveImage", &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	}
	for running := range 2 {
		if running == 1 {
			s.start(ctr)
		}
		err := remove(img.Id)
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), ctr) {
			t.Errorf("by id: %v", err)
		}
		if got := s.image(img.Id); len(got.GetRepoTags()) != 2 {
			t.Errorf("its names now: %q", got.GetRepoTags())
		}
	}
	if err := remove(second); err != nil || s.image(second) != nil || s.image(ref) == nil {
		t.Errorf("one name of two: %v", err)
	}
	if err := remove(ref); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), ctr) {
		t.Errorf("the last name: %v", err)
	}
	// One image has one id, whoever is asked.
	st := s.status(ctr)
	all := must[runtimeapi.ListContainersResponse](s.cri, runtimeService+"ListContainers", &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{Id: ctr}}).Containers
	pulled := must[runtimeapi.PullImageResponse](s.cri, imageService+"PullImage", &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}}).ImageRef
	for what, id := range map[string]string{"pull": pulled, "status": st.ImageId, "status ref": st.ImageRef, "list": all[0].ImageId, "list ref": all[0].ImageRef} {
		if id != img.Id {
			t.Errorf("%s: %q, want %q", what, id, img.Id)
		}
	}
	listed := must[runtimeapi.ListImagesResponse](s.cri, imageService+"ListImages", &runtimeapi.ListImagesRequest{}).Images
	if !slices.ContainsFunc(listed, func(i *runtimeapi.Image) bool { return i.Id == img.Id && i.Uid.GetValue() == 1000 }) {
		t.Errorf("listed: %v", listed)
	}
	must[runtimeapi.RemoveContainerResponse](s.cri, runtimeService+"RemoveContainer", &runtimeapi.RemoveContainerRequest{ContainerId: ctr})
	if err := remove(img.Id); err != nil || s.image(img.Id) != nil {
		t.Errorf("when nobody uses it: %v", err)
	}
}

func TestPullFailures(t *testing.T) {
	c := kubelet(t)
	const secret = "hunter2"
	for name, r := range map[string]struct {
		req  *runtimeapi.PullImageRequest
		code codes.Code
	}{
		"no image":   {&runtimeapi.PullImageRequest{}, codes.InvalidArgument},
		"no name":    {&runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "UPPER case"}}, codes.InvalidArgument},
		"not there":  {&runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: node.lab.Image("nothing")}, Auth: &runtimeapi.AuthConfig{Username: "u", Password: secret}}, codes.NotFound},
		"bad auth":   {&runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: node.lab.Image("web")}, Auth: &runtimeapi.AuthConfig{Auth: secret}}, codes.InvalidArgument},
		"bad auth 2": {&runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: node.lab.Image("web")}, Auth: &runtimeapi.AuthConfig{Auth: "aHVudGVyMg=="}}, codes.InvalidArgument},
	} {
		err := c.try(imageService+"PullImage", r.req)
		if status.Code(err) != r.code {
			t.Errorf("%s: %v, want %s", name, err, r.code)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the password is in the error", name)
		}
	}
}

// TestInfraImage: the configured one is neither there nor to be pulled.
func TestInfraImage(t *testing.T) {
	c := kubelet(t)
	c.run(pod(t))
	img := c.image("crimux.invalid/pause:1")
	if img == nil || !img.Pinned {
		t.Errorf("built-in image %v", img)
	}
}

func TestEngineAway(t *testing.T) {
	b, err := newBackendAt("/nonexistent/docker.sock", node.lab.CNIConfDir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Probe(t.Context()); status.Code(err) != codes.Unavailable {
		t.Errorf("probe: %v", err)
	}
	err = invoke(t, b, runtimeService+"ListContainers", backends.NoJournal, &runtimeapi.ListContainersRequest{}, discard())
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "/nonexistent/docker.sock") {
		t.Errorf("list: %v", err)
	}
	var st runtimeapi.StatusResponse
	if err := invoke(t, b, runtimeService+"Status", backends.NoJournal, &runtimeapi.StatusRequest{}, &st); err != nil {
		t.Fatal(err)
	}
	if ready := st.Status.Conditions[0]; ready.Type != "RuntimeReady" || ready.Status || ready.Reason != "EngineUnreachable" {
		t.Errorf("condition %v", ready)
	}
}
