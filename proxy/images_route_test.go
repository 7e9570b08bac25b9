package proxy

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/policy"
)

// has asks the front for an image and returns the id it is told, "" for none.
func (n *node) has(t *testing.T, spec *runtimeapi.ImageSpec) string {
	t.Helper()
	r, err := n.images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetImage().GetId()
}

const seen = "kubernetes.io/config.seen"

// TestWhichRuntimeAnImageIsFor: every way in which a request can say, and
// what is answered when none of them does.
func TestWhichRuntimeAnImageIsFor(t *testing.T) {
	onA, onB := map[string]bool{"a": true}, map[string]bool{"b": true}
	both, none := map[string]bool{"a": true, "b": true}, map[string]bool{}
	const move = "migration: {to: b, percent: 50}\n"
	for _, row := range []struct {
		name  string
		extra string
		on    map[string]bool
		spec  *runtimeapi.ImageSpec
		want  string
	}{
		{"the handler of b, on b", "", onB, &runtimeapi.ImageSpec{RuntimeHandler: "front-b"}, "of-b"},
		{"the handler of b, on a", "", onA, &runtimeapi.ImageSpec{RuntimeHandler: "front-b"}, ""},
		{"the handler of b before the annotations of a pod on a", "", both, &runtimeapi.ImageSpec{RuntimeHandler: "front-b", Annotations: map[string]string{seen: "pod-a"}}, "of-b"},
		{"annotations of a pod on b, on b", "", onB, &runtimeapi.ImageSpec{Annotations: map[string]string{seen: "pod-b", "x": "y"}}, "of-b"},
		{"annotations of a pod on b, on a", "", onA, &runtimeapi.ImageSpec{Annotations: map[string]string{seen: "pod-b"}}, ""},
		{"annotations of a pod on a, on b", move, onB, &runtimeapi.ImageSpec{Annotations: map[string]string{seen: "pod-a"}}, ""},
		{"the hash of a static pod on b", "", both, &runtimeapi.ImageSpec{Annotations: map[string]string{seen: "stamped anew", "kubernetes.io/config.hash": "static-b"}}, "of-b"},
		{"annotations of nobody, on the default", "", onA, &runtimeapi.ImageSpec{Annotations: map[string]string{seen: "?"}}, "of-a"},
		{"annotations of nobody, elsewhere", "", onB, &runtimeapi.ImageSpec{Annotations: map[string]string{seen: "?"}}, ""},
		{"annotations of nobody in a migration, on the target", move, onB, &runtimeapi.ImageSpec{Annotations: map[string]string{seen: "?"}}, "of-b"},
		{"annotations of nobody in a migration, on both", move, both, &runtimeapi.ImageSpec{Annotations: map[string]string{seen: "?"}}, "of-a"},
		{"annotations of nobody, migration of none", "migration: {to: b, percent: 0}\n", onB, &runtimeapi.ImageSpec{Annotations: map[string]string{seen: "?"}}, ""},
		{"bare, on the default", "", onA, &runtimeapi.ImageSpec{}, "of-a"},
		{"bare, where a pod is", "", onB, &runtimeapi.ImageSpec{}, "of-b"},
		{"bare, nowhere", "", none, &runtimeapi.ImageSpec{}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := nodeOf(t, row.extra, nil)
			for name, front := range map[string]string{"pod-a": "front-a", "pod-b": "front-b"} {
				r := runRequest(name, front)
				r.Config.Annotations = map[string]string{seen: name, "kubernetes.io/config.hash": "static-" + name[4:]}
				if _, err := n.RunPodSandbox(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			for name, f := range map[string]*fakeRuntime{"a": n.a, "b": n.b} {
				if row.on[name] {
					f.edit(func() { f.images["i"] = &runtimeapi.Image{Id: "of-" + name} })
				}
			}
			row.spec.Image = "i"
			if got := n.has(t, row.spec); got != row.want {
				t.Errorf("the image is %q, want %q", got, row.want)
			}
		})
	}
}

// TestUserOfAnImageThatDiffers: two runtimes may have two images of one name.
// The one that a pod was just told of is the one whose user is looked up.
func TestUserOfAnImageThatDiffers(t *testing.T) {
	n := newNode(t)
	r := runRequest("pod-b", "front-b")
	r.Config.Annotations = map[string]string{seen: "pod-b"}
	if _, err := n.RunPodSandbox(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	n.a.edit(func() { n.a.images["i"] = &runtimeapi.Image{Id: "of-a"} })
	n.b.edit(func() { n.b.images["i"] = &runtimeapi.Image{Id: "of-b"} })
	if got := n.has(t, &runtimeapi.ImageSpec{Image: "i", Annotations: r.Config.Annotations}); got != "of-b" {
		t.Fatalf("for the pod the image is %q", got)
	}
	if got := n.has(t, &runtimeapi.ImageSpec{Image: "i"}); got != "of-b" {
		t.Errorf("its user is looked up on image %q", got)
	}
}

// TestPullGoesToThePod by its uid, and by the policy where it is new.
func TestPullGoesToThePod(t *testing.T) {
	n := nodeOf(t, "migration: {to: b, percent: 50}\n", nil)
	n.run(t, "on-b", "front-b")
	pull := func(spec *runtimeapi.ImageSpec, pod string) {
		t.Helper()
		req := &runtimeapi.PullImageRequest{Image: spec}
		if pod != "" {
			req.SandboxConfig = runRequest(pod, "").Config
		}
		if _, err := n.images.PullImage(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	moves, stays := uidWhere(t, true), uidWhere(t, false)
	for _, row := range []struct {
		handler, pod string
		a, b         int
	}{{"", "on-b", 0, 1}, {"front-a", "on-b", 1, 0}, {"front-b", "", 0, 1}, {"", "", 1, 0}, {"", stays, 1, 0}, {"", moves, 0, 1}} {
		a, b := n.a.called("PullImage"), n.b.called("PullImage")
		pull(&runtimeapi.ImageSpec{Image: "i", RuntimeHandler: row.handler}, row.pod)
		if a, b := n.a.called("PullImage")-a, n.b.called("PullImage")-b; a != row.a || b != row.b {
			t.Errorf("handler %q, pod %q: a pulled %d times and b %d", row.handler, row.pod, a, b)
		}
	}
}

// uidWhere is the name of a pod that half a migration moves, or does not.
func uidWhere(t *testing.T, moves bool) string {
	t.Helper()
	for _, name := range []string{"p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"} {
		if (policy.Bucket("uid-"+name) < 50) == moves {
			return name
		}
	}
	t.Fatal("no such pod")
	return ""
}

// TestRemoveImageWhereItIsNotUsed: what a kubelet's garbage collector asks
// for, with an image on both runtimes.
func TestRemoveImageWhereItIsNotUsed(t *testing.T) {
	type where map[string]bool
	for _, row := range []struct {
		name      string
		on, used  where
		refuses   where // the runtime itself says that it is in use
		away      string
		code      codes.Code
		removedBy where
	}{
		{name: "unused", on: where{"a": true, "b": true}, removedBy: where{"a": true, "b": true}},
		{name: "used on the one", on: where{"a": true, "b": true}, used: where{"b": true}, removedBy: where{"a": true}},
		{name: "used on both", on: where{"a": true, "b": true}, used: where{"a": true, "b": true}, code: codes.FailedPrecondition},
		{name: "used where it alone is", on: where{"b": true}, used: where{"b": true}, code: codes.FailedPrecondition},
		{name: "refused by the one", on: where{"a": true, "b": true}, refuses: where{"a": true}, removedBy: where{"b": true}},
		{name: "refused by both", on: where{"a": true, "b": true}, refuses: where{"a": true, "b": true}, code: codes.FailedPrecondition},
		{name: "there is none", on: where{}},
		{name: "one is away", on: where{"b": true}, away: "a", removedBy: where{"b": true}},
		{name: "who has it is away", on: where{}, away: "a", code: codes.Unavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := newNode(t)
			for name, f := range map[string]*fakeRuntime{"a": n.a, "b": n.b} {
				if row.on[name] {
					give(f, "sha256:1", "reg/app:1")
				}
				if row.used[name] {
					sb := n.run(t, "on-"+name, "front-"+name)
					r := createRequest(sb, "c")
					r.Config.Image.Image = "sha256:1"
					if _, err := n.CreateContainer(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				if row.refuses[name] {
					f.setBefore(func(_ context.Context, method string, _ any) error {
						if method == "RemoveImage" {
							return status.Error(codes.FailedPrecondition, "used by something that crimux does not know")
						}
						return nil
					})
				}
			}
			if row.away != "" {
				n.a.stop()
				eventually(t, "a is away", func() bool { return n.server.set.Get("a").Check() != nil })
			}
			_, err := n.images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "sha256:1"}})
			if status.Code(err) != row.code {
				t.Errorf("the answer is %v, want %s", err, row.code)
			}
			for name, f := range map[string]*fakeRuntime{"a": n.a, "b": n.b} {
				if gone := row.on[name] && f.images["sha256:1"] == nil; gone != row.removedBy[name] {
					t.Errorf("%s has removed it: %v", name, gone)
				}
			}
		})
	}
}

// TestImagesInOneList: of what both have there is one, whole.
func TestImagesInOneList(t *testing.T) {
	n := nodeOf(t, "", nil)
	list := func() []*runtimeapi.Image {
		t.Helper()
		r, err := n.images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(r.Images, func(a, b *runtimeapi.Image) int { return len(a.Id) - len(b.Id) })
		return r.Images
	}
	n.a.edit(func() {
		n.a.images["1"] = &runtimeapi.Image{Id: "both", RepoTags: []string{"x:1", "x:2"}, RepoDigests: []string{"x@d"}, Size: 10, Username: "me"}
		n.a.images["2"] = &runtimeapi.Image{Id: "only-on-a", Size: 3, Spec: &runtimeapi.ImageSpec{RuntimeHandler: "own-a"}}
	})
	n.b.edit(func() {
		n.b.images["1"] = &runtimeapi.Image{Id: "both", RepoTags: []string{"x:2", "x:3"}, RepoDigests: []string{"x@d", "x@e"}, Size: 7, Pinned: true}
	})
	got := list()
	if len(got) != 2 {
		t.Fatalf("the list is %v", got)
	}
	img := got[0]
	if !slices.Equal(img.RepoTags, []string{"x:1", "x:2", "x:3"}) || !slices.Equal(img.RepoDigests, []string{"x@d", "x@e"}) ||
		img.Size != 17 || !img.Pinned || img.Username != "me" {
		t.Errorf("what both have is %v", img)
	}
	if h := got[1].GetSpec().GetRuntimeHandler(); h != "front-a" {
		t.Errorf("the image of a's handler is of %q", h)
	}
	st, err := n.images.StreamImages(t.Context(), &runtimeapi.StreamImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	streamed := 0
	for r, err := st.Recv(); err == nil; r, err = st.Recv() {
		streamed += len(r.Images)
	}
	if streamed != 2 {
		t.Errorf("%d images are streamed", streamed)
	}
	n.b.edit(func() { n.b.images["1"].Id = "no-more-both" })
	if got := list(); len(got) != 3 || got[0].Size != 10 || got[0].Pinned {
		t.Errorf("without duplicates the list is %v", got)
	}
	// Each alone.
	n.b.edit(func() { clear(n.b.images) })
	if got := list(); len(got) != 2 || got[1].GetSpec().GetRuntimeHandler() != "front-a" {
		t.Errorf("of one runtime the list is %v", got)
	}
}
