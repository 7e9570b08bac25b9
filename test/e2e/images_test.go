package e2e

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/test/lab"
	"github.com/crimux/crimux/test/node"
)

// nowhere is an image's name whose registry nothing can reach: what is found
// under it has come from this node.
const nowhere = "crimux.invalid/app:1"

// onBothVersions runs a test over the lab's containerd and over containerd 2.
func onBothVersions(t *testing.T, test func(t *testing.T, l *lab.Lab)) {
	t.Run("debian", func(t *testing.T) { test(t, shared) })
	t.Run("v2", func(t *testing.T) {
		l, err := lab.Start(t.Context(), lab.Options{Containerd: lab.V2, Log: os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Stop(); err != nil {
				t.Error(err)
			}
		})
		test(t, l)
	})
}

// onDocker pulls an image into the Engine, gives it a name of nowhere, and
// returns its id.
func onDocker(t *testing.T, l *lab.Lab, ref string) string {
	t.Helper()
	ctx := t.Context()
	progress, err := l.Docker().ImagePull(ctx, ref, image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer progress.Close()
	if _, err := io.Copy(io.Discard, progress); err != nil {
		t.Fatal(err)
	}
	if err := l.Docker().ImageTag(ctx, ref, nowhere); err != nil {
		t.Fatal(err)
	}
	img, err := l.Docker().ImageInspect(ctx, nowhere)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { offDocker(t, l, img.ID) })
	return img.ID
}

func offDocker(t *testing.T, l *lab.Lab, id string) {
	t.Helper()
	// Its tests are over, and with them t.Context.
	if _, err := l.Docker().ImageRemove(context.Background(), id, image.RemoveOptions{Force: true, PruneChildren: true}); err != nil {
		t.Logf("remove the image from docker: %v", err)
	}
}

func offContainerd(t *testing.T, l *lab.Lab, id string) {
	t.Helper()
	if _, err := l.CRIImages().RemoveImage(context.Background(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: id}}); err != nil {
		t.Errorf("remove the image from containerd: %v", err)
	}
}

// criImage is what containerd itself says of an image.
func criImage(t *testing.T, l *lab.Lab, ref string) *runtimeapi.Image {
	t.Helper()
	r, err := l.CRIImages().ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Image
}

// runWith runs a container of an image that nobody pulls.
func runWith(t *testing.T, n *node.Node, handler, name, asked, named string) (*node.Pod, string) {
	t.Helper()
	p := &node.Pod{Config: node.PodConfig(name, logs(t))}
	sb, err := n.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: p.Config, RuntimeHandler: handler})
	if err != nil {
		t.Fatal(err)
	}
	p.Sandbox = sb.PodSandboxId
	ctr := node.ContainerConfig("main", asked, "sleep", "1000000")
	ctr.Image.UserSpecifiedImage = named
	made, err := n.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: p.Sandbox, Config: ctr, SandboxConfig: p.Config})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	p.Container = made.ContainerId
	if _, err := n.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: p.Container}); err != nil {
		t.Fatalf("start: %v", err)
	}
	r, err := n.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: p.Container, Cmd: []string{"id", "-u"}, Timeout: 10})
	if err != nil || strings.TrimSpace(string(r.Stdout)) != "1000" {
		t.Errorf("the image's user is %q, %v", r.GetStdout(), err)
	}
	st, err := n.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: p.Container})
	if err != nil || st.Status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("its status is %v, %v", st, err)
	}
	// containerd 1.6 leaves the id out and gives a name that leads to it.
	used, err := n.Images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: st.GetStatus().GetImageRef(), RuntimeHandler: handler}})
	if err != nil {
		t.Fatal(err)
	}
	return p, used.GetImage().GetId()
}

// copied checks that the log tells where the image came from.
func copied(t *testing.T, n *node.Node, pod, from string) {
	t.Helper()
	for _, args := range [][]string{{"timeline", pod}, {"events", "--json"}} {
		out, err := n.Run(t.Context(), args...)
		if err != nil || !strings.Contains(out, "image.copied") || !strings.Contains(out, nowhere+" from "+from) {
			t.Errorf("%v does not tell of the copy from %s:\n%s%v", args, from, out, err)
		}
	}
}

// TestImageOnlyInDocker: a pod on containerd gets the image that is only in
// the Engine, under the id that containerd itself would give it.
func TestImageOnlyInDocker(t *testing.T) {
	onBothVersions(t, func(t *testing.T, l *lab.Lab) {
		ref := l.Image("alt")
		pulled, err := l.CRIImages().PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
		if err != nil {
			t.Fatal(err)
		}
		fresh := criImage(t, l, ref)
		offContainerd(t, l, pulled.ImageRef)
		if img := criImage(t, l, ref); img != nil {
			t.Fatalf("containerd still has %v", img)
		}
		id := onDocker(t, l, ref)
		// A name that is another image's on the other side.
		taken := l.Image("web")
		if _, err := l.CRIImages().PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: taken}}); err != nil {
			t.Fatal(err)
		}
		web := criImage(t, l, taken)
		if err := l.Docker().ImageTag(t.Context(), id, taken); err != nil {
			t.Fatal(err)
		}
		n := startOn(t, l, node.Options{})
		t.Cleanup(func() { offContainerd(t, l, fresh.Id) })
		_, got := runWith(t, n, "containerd", "from-docker", id, nowhere)
		if got != fresh.Id {
			t.Errorf("the container's image is %s, after a pull it was %s", got, fresh.Id)
		}
		img := criImage(t, l, nowhere)
		if img.GetId() != fresh.Id || !slices.Contains(img.RepoTags, nowhere) || !slices.Contains(img.RepoTags, ref) {
			t.Errorf("the copy is %v", img)
		}
		for _, d := range fresh.RepoDigests {
			if by := criImage(t, l, d); by.GetId() != fresh.Id {
				t.Errorf("by the digest of a pull, %s, the copy is %v", d, by)
			}
		}
		if now := criImage(t, l, taken); now.GetId() != web.Id {
			t.Errorf("%s was %s and is %s", taken, web.Id, now.GetId())
		}
		copied(t, n, "from-docker", "docker")
	})
}

// TestImageOnlyInContainerd is the other way round.
func TestImageOnlyInContainerd(t *testing.T) {
	onBothVersions(t, func(t *testing.T, l *lab.Lab) {
		// containerd's CRI names nothing by itself: the image gets there by the
		// way that the test above proves.
		id := onDocker(t, l, l.Image("alt"))
		n := startOn(t, l, node.Options{})
		first, own := runWith(t, n, "containerd", "there", id, nowhere)
		t.Cleanup(func() { offContainerd(t, l, own) })
		offDocker(t, l, id)
		if _, err := l.Docker().ImageInspect(t.Context(), nowhere); err == nil {
			t.Fatal("docker still has the image")
		}
		_, back := runWith(t, n, "docker", "and-back", own, nowhere)
		if back != id {
			t.Errorf("the container's image is %s, docker's own was %s", back, id)
		}
		copied(t, n, "and-back", "containerd")
		if err := n.RemovePod(t.Context(), first.Sandbox); err != nil {
			t.Error(err)
		}
	})
}

// TestRemoveImageInUse: what a kubelet's garbage collector asks for. containerd
// itself would remove an image under its containers.
func TestRemoveImageInUse(t *testing.T) {
	n := start(t, node.Options{})
	p, err := n.RunPod(t.Context(), "containerd", node.PodConfig("user-of-it", logs(t)), node.ContainerConfig("main", shared.Image("alt"), "sleep", "1000000"))
	if err != nil {
		t.Fatal(err)
	}
	id := onDocker(t, shared, shared.Image("alt"))
	remove := func() error {
		_, err := n.Images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: id}})
		return err
	}
	inDocker := func() bool {
		_, err := shared.Docker().ImageInspect(t.Context(), id)
		return err == nil
	}
	if err := remove(); err != nil || inDocker() || criImage(t, shared, id) == nil {
		t.Errorf("used on containerd, unused on docker: %v; docker has it: %v, containerd: %v", err, inDocker(), criImage(t, shared, id))
	}
	if err := remove(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), p.Container) {
		t.Errorf("used where it alone is: %v", err)
	}
	if err := n.RemovePod(t.Context(), p.Sandbox); err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil || criImage(t, shared, id) != nil {
		t.Errorf("when nobody uses it: %v", err)
	}
	if err := remove(); err != nil {
		t.Errorf("when it is gone: %v", err)
	}
}

// TestMetricsAndDisks: the answers of both engines make one.
func TestMetricsAndDisks(t *testing.T) {
	onBothVersions(t, func(t *testing.T, l *lab.Lab) {
		n := startOn(t, l, node.Options{})
		pods := make(map[string]bool)
		for _, handler := range []string{"docker", "containerd"} {
			p, err := n.RunPod(t.Context(), handler, node.PodConfig("metrics-"+handler, logs(t)), node.ContainerConfig("main", l.Image("busybox"), "sleep", "1000000"))
			if err != nil {
				t.Fatal(err)
			}
			pods[p.Sandbox] = false
		}
		d, err := n.ListMetricDescriptors(t.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		keys := make(map[string]int)
		for _, m := range d.Descriptors {
			if _, twice := keys[m.Name]; twice {
				t.Errorf("%s is announced twice", m.Name)
			}
			keys[m.Name] = len(m.LabelKeys)
		}
		r, err := n.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, p := range r.PodMetrics {
			pods[p.PodSandboxId] = true
			all := p.Metrics
			for _, c := range p.ContainerMetrics {
				all = append(all, c.Metrics...)
			}
			for _, m := range all {
				seen++
				if want, known := keys[m.Name]; known && len(m.LabelValues) != want {
					t.Errorf("%s of pod %s has %d labels, announced are %d", m.Name, p.PodSandboxId, len(m.LabelValues), want)
				}
			}
		}
		own, err := l.CRI().ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
		for id, told := range pods {
			if lacks := err != nil && slices.ContainsFunc(criSandboxes(t, l), func(s string) bool { return s == id }); !told && !lacks {
				t.Errorf("pod %s has no metrics (containerd's own: %v, %v)", id, own, err)
			}
		}
		if seen == 0 {
			t.Error("there are no metrics")
		}
		fs, err := n.Images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{})
		if err != nil || len(fs.ImageFilesystems) != 2 || fs.ImageFilesystems[0].FsId.Mountpoint == fs.ImageFilesystems[1].FsId.Mountpoint {
			t.Errorf("the disks are %v, %v", fs, err)
		}
	})
}

// criSandboxes are the ids of containerd's own.
func criSandboxes(t *testing.T, l *lab.Lab) []string {
	t.Helper()
	list, err := l.CRI().ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, sb := range list.Items {
		ids = append(ids, sb.Id)
	}
	return ids
}
