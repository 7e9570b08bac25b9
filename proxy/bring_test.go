package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store/eventpb"
)

// nodeOf is newNode with more configuration, and with backends as wrap
// returns them.
func nodeOf(t testing.TB, extra string, wrap func(*fakeRuntime, backends.Backend) backends.Backend) *node {
	t.Helper()
	n := &node{a: newFake(t, "a"), b: newFake(t, "b"), dir: t.TempDir(), extra: extra, wrap: wrap}
	n.begin(t)
	return n
}

// needsImage has a fake make containers only of images that it has, and pull
// none.
func needsImage(f *fakeRuntime) {
	f.setBefore(func(_ context.Context, method string, req any) error {
		if method == "PullImage" {
			return status.Error(codes.NotFound, "no registry")
		}
		r, ok := req.(*runtimeapi.CreateContainerRequest)
		if !ok {
			return nil
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.images[r.Config.Image.Image] == nil {
			return status.Errorf(codes.NotFound, "%s has no image %s", f.name, r.Config.Image.Image)
		}
		return nil
	})
}

// store is a backend whose images can be copied.
type imageStore struct {
	backends.Backend
	f *fakeRuntime
	// exports counts, failing fails, renames gives a copy another id.
	exports atomic.Int32
	failing error
	renames string
	// nameless has a copy get no name, as where all are another's.
	nameless bool
	// held keeps an import waiting.
	held chan struct{}
}

func (i *imageStore) ExportImage(_ context.Context, ref string) (io.ReadCloser, backends.ImageInfo, error) {
	i.exports.Add(1)
	i.f.mu.Lock()
	defer i.f.mu.Unlock()
	img := i.f.images[ref]
	if img == nil {
		return nil, backends.ImageInfo{}, status.Error(codes.NotFound, "none")
	}
	return io.NopCloser(strings.NewReader("archive of " + img.Id)), backends.ImageInfo{ID: img.Id, Names: append(img.RepoTags, img.RepoDigests...)}, nil
}

func (i *imageStore) ImportImage(ctx context.Context, archive io.Reader, info backends.ImageInfo) error {
	if i.held != nil {
		select {
		case <-i.held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b, err := io.ReadAll(archive)
	if i.failing != nil || err != nil {
		return errors.Join(i.failing, err)
	}
	id := strings.TrimPrefix(string(b), "archive of ")
	if i.renames != "" {
		id = i.renames
	}
	i.f.edit(func() {
		img := &runtimeapi.Image{Id: id}
		i.f.images[id] = img
		for _, name := range info.Names {
			if !i.nameless {
				i.f.images[name] = img
			}
		}
	})
	return nil
}

// copying is a node whose backends can copy images; a and b are their stores.
func copying(t *testing.T) (n *node, a, b *imageStore) {
	stores := make(map[string]*imageStore)
	n = nodeOf(t, "", func(f *fakeRuntime, back backends.Backend) backends.Backend {
		stores[f.name] = &imageStore{Backend: back, f: f}
		return stores[f.name]
	})
	needsImage(n.a)
	needsImage(n.b)
	return n, stores["a"], stores["b"]
}

// give puts an image on a fake under its id, its name and its digest.
func give(f *fakeRuntime, id, name string) {
	f.edit(func() {
		img := &runtimeapi.Image{Id: id, RepoTags: []string{name}, RepoDigests: []string{name + "@sha256:d"}}
		for _, ref := range []string{id, name, name + "@sha256:d"} {
			f.images[ref] = img
		}
	})
}

func withImageNamed(sandbox, pod, asked, named string) *runtimeapi.CreateContainerRequest {
	r := createRequest(sandbox, "c")
	r.Config.Image = &runtimeapi.ImageSpec{Image: asked, UserSpecifiedImage: named}
	r.SandboxConfig = runRequest(pod, "").Config
	return r
}

// steps are the image steps in the log.
func steps(t *testing.T, n *node) []string {
	t.Helper()
	var all []string
	for _, e := range n.events(t) {
		if st := e.GetStep(); strings.HasPrefix(st.GetName(), "image.") {
			all = append(all, st.GetName()+" "+st.GetId())
		}
	}
	return all
}

// TestImageIsCopied: a container is made although its runtime lacked the
// image, of the image that the other one has, and the log says so.
func TestImageIsCopied(t *testing.T) {
	n, a, _ := copying(t)
	give(n.a, "sha256:1", "reg/app:1")
	sb := n.run(t, "web", "front-b")
	if _, err := n.CreateContainer(t.Context(), withImageNamed(sb, "web", "sha256:1", "reg/app:1")); err != nil {
		t.Fatal(err)
	}
	if got := steps(t, n); len(got) != 1 || got[0] != "image.copied reg/app:1 from a" {
		t.Errorf("the log has steps %q", got)
	}
	if n.b.called("PullImage") != 0 {
		t.Error("the image was pulled as well")
	}
	// The second container finds it there.
	r := withImageNamed(sb, "web", "sha256:1", "reg/app:1")
	r.Config.Metadata.Name = "second"
	if _, err := n.CreateContainer(t.Context(), r); err != nil || a.exports.Load() != 1 {
		t.Errorf("the second container: %v, after %d copies", err, a.exports.Load())
	}
}

// TestImageHasAnotherIDThere: the copy, or an image that is there already, is
// known to the runtime by another id. It is asked for by what it knows.
func TestImageHasAnotherIDThere(t *testing.T) {
	n, a, b := copying(t)
	b.renames = "sha256:other"
	give(n.a, "sha256:1", "reg/app:1")
	sb := n.run(t, "web", "front-b")
	for i := range 2 {
		r := withImageNamed(sb, "web", "sha256:1", "reg/app:1")
		r.Config.Metadata.Attempt = uint32(i)
		if _, err := n.CreateContainer(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if a.exports.Load() != 1 {
		t.Errorf("it was copied %d times", a.exports.Load())
	}
}

// TestAnotherImageOfItsName: a container is not made of whatever has the name
// that its image has elsewhere.
func TestAnotherImageOfItsName(t *testing.T) {
	n, _, b := copying(t)
	n.a.edit(func() { n.a.images["sha256:1"] = &runtimeapi.Image{Id: "sha256:1", RepoTags: []string{"reg/app:1"}} })
	give(n.b, "sha256:2", "reg/app:1")
	sb := n.run(t, "web", "front-b")
	b.nameless = true
	b.renames = "sha256:other"
	_, err := n.CreateContainer(t.Context(), withImageNamed(sb, "web", "sha256:1", "reg/app:1"))
	wantCode(t, err, codes.NotFound, "is not there afterwards")
	b.renames = ""
	if _, err := n.CreateContainer(t.Context(), withImageNamed(sb, "web", "sha256:1", "reg/app:1")); err != nil {
		t.Error(err)
	}
	for _, c := range n.b.containers {
		if c.Image.Image != "sha256:1" {
			t.Errorf("the container is made of %s", c.Image.Image)
		}
	}
}

// TestImageIsCopiedOnce however many containers wait for it.
func TestImageIsCopiedOnce(t *testing.T) {
	n, a, b := copying(t)
	b.held = make(chan struct{})
	give(n.a, "sha256:1", "reg/app:1")
	var wg sync.WaitGroup
	var failures atomic.Int32
	for i := range 8 {
		sb := n.run(t, fmt.Sprint("p", i), "front-b")
		wg.Go(func() {
			if _, err := n.CreateContainer(t.Context(), withImageNamed(sb, fmt.Sprint("p", i), "sha256:1", "reg/app:1")); err != nil {
				failures.Add(1)
				t.Error(err)
			}
		})
	}
	eventually(t, "all have failed once", func() bool { return n.b.called("CreateContainer") >= 8 })
	eventually(t, "the copy has begun", func() bool { return a.exports.Load() > 0 })
	time.Sleep(50 * time.Millisecond)
	close(b.held)
	wg.Wait()
	if a.exports.Load() != 1 {
		t.Errorf("it was copied %d times", a.exports.Load())
	}
}

// TestCopyOutlivesItsCaller: a kubelet that gives up waiting finds the image
// on its way when it asks again.
func TestCopyOutlivesItsCaller(t *testing.T) {
	n, a, b := copying(t)
	b.held = make(chan struct{})
	give(n.a, "sha256:1", "reg/app:1")
	sb := n.run(t, "web", "front-b")
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		n.CreateContainer(ctx, withImageNamed(sb, "web", "sha256:1", "reg/app:1"))
	}()
	eventually(t, "the copy has begun", func() bool { return a.exports.Load() > 0 })
	cancel()
	<-gone
	eventually(t, "the first attempt is over", func() bool {
		return slices.ContainsFunc(n.events(t), func(e *eventpb.Event) bool { return e.GetOutcome().GetCode() == uint32(codes.Unavailable) })
	})
	close(b.held)
	eventually(t, "the container is made", func() bool {
		_, err := n.CreateContainer(t.Context(), withImageNamed(sb, "web", "sha256:1", "reg/app:1"))
		return err == nil
	})
	if a.exports.Load() != 1 {
		t.Errorf("it was copied %d times", a.exports.Load())
	}
}

const canary = "canary-registry-password"

// TestImageIsPulledAgain where it cannot be copied, with what this pod's last
// pull brought, which nobody gets to see.
func TestImageIsPulledAgain(t *testing.T) {
	n := nodeOf(t, "", nil) // nobody's images can be copied
	sb := n.run(t, "web", "front-b")
	pull := &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: "reg/app:1"}, SandboxConfig: runRequest("web", "front-b").Config,
		Auth: &runtimeapi.AuthConfig{Username: "u", Password: canary},
	}
	if _, err := n.images.PullImage(t.Context(), pull); err != nil {
		t.Fatal(err)
	}
	n.b.edit(func() { clear(n.b.images) }) // as a garbage collector would
	auth := make(chan *runtimeapi.PullImageRequest, 9)
	refuse := atomic.Bool{}
	n.b.setBefore(func(_ context.Context, method string, req any) error {
		n.b.mu.Lock()
		defer n.b.mu.Unlock()
		switch r := req.(type) {
		case *runtimeapi.PullImageRequest:
			auth <- r
			if refuse.Load() {
				return status.Errorf(codes.PermissionDenied, "no entry with %s", r.Auth.GetPassword())
			}
		case *runtimeapi.CreateContainerRequest:
			if n.b.images[r.Config.Image.Image] == nil {
				return status.Error(codes.Unknown, "some words")
			}
		}
		return nil
	})
	refuse.Store(true)
	_, err := n.CreateContainer(t.Context(), withImageNamed(sb, "web", "reg/app:1", ""))
	wantCode(t, err, codes.Unknown, "some words", "pulling it", "no entry")
	if strings.Contains(err.Error(), canary) {
		t.Errorf("the error has the password: %v", err)
	}
	<-auth
	refuse.Store(false)
	if _, err := n.CreateContainer(t.Context(), withImageNamed(sb, "web", "reg/app:1", "")); err != nil {
		t.Fatal(err)
	}
	if r := <-auth; r.Auth.GetPassword() != canary || r.Image.Image != "reg/app:1" || r.SandboxConfig.GetMetadata().GetUid() != "uid-web" {
		t.Errorf("the pull was %v", r.Image)
	}
	if got := steps(t, n); len(got) != 1 || got[0] != "image.pulled reg/app:1" {
		t.Errorf("the log has steps %q", got)
	}
	n.stop()
	b, err := os.ReadFile(filepath.Join(n.dir, "events.db"))
	if err != nil || strings.Contains(string(b), canary) {
		t.Errorf("the log has the password, %v", err)
	}
}

// TestAnothersCredentials are not used, and what nobody has is not pulled for
// a pod that has not pulled it: it may be one that must not.
func TestAnothersCredentials(t *testing.T) {
	n := nodeOf(t, "", nil)
	pull := &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: "reg/app:1"}, SandboxConfig: runRequest("one", "front-b").Config,
		Auth: &runtimeapi.AuthConfig{Password: canary},
	}
	n.run(t, "one", "front-b")
	if _, err := n.images.PullImage(t.Context(), pull); err != nil {
		t.Fatal(err)
	}
	needsImage(n.b)
	n.b.edit(func() { clear(n.b.images) })
	other := n.run(t, "two", "front-b")
	_, err := n.CreateContainer(t.Context(), withImageNamed(other, "two", "reg/app:1", ""))
	wantCode(t, err, codes.NotFound, "b has no image", "no other runtime", "imagePullPolicy")
	if n.b.called("PullImage") != 1 {
		t.Error("it was pulled")
	}
	// Where the node has it, the pod was told that it is there: it is pulled
	// without anybody's credentials.
	give(n.a, "sha256:1", "reg/app:1")
	pulls := make(chan *runtimeapi.PullImageRequest, 1)
	n.b.setBefore(func(_ context.Context, _ string, req any) error {
		if r, ok := req.(*runtimeapi.PullImageRequest); ok {
			pulls <- r
			return status.Error(codes.NotFound, "no such repository")
		}
		if _, ok := req.(*runtimeapi.CreateContainerRequest); ok {
			return status.Error(codes.NotFound, "b has no image")
		}
		return nil
	})
	_, err = n.CreateContainer(t.Context(), withImageNamed(other, "two", "reg/app:1", ""))
	wantCode(t, err, codes.NotFound, "b has no image", "copying it from a", "can only be pulled", "no such repository")
	if r := <-pulls; r.Auth != nil {
		t.Error("it was pulled with credentials")
	}
}

// TestOtherFailuresOfACreate are passed on as they are, and nothing is copied
// or pulled.
func TestOtherFailuresOfACreate(t *testing.T) {
	n, a, b := copying(t)
	give(n.a, "sha256:1", "reg/app:1")
	give(n.b, "sha256:1", "reg/app:1")
	sb := n.run(t, "web", "front-b")
	for _, code := range []codes.Code{codes.NotFound, codes.Unknown, codes.AlreadyExists, codes.ResourceExhausted} {
		n.b.setBefore(func(_ context.Context, method string, _ any) error {
			if method == "CreateContainer" {
				return status.Error(code, "its own words")
			}
			return nil
		})
		before := n.b.called("CreateContainer")
		_, err := n.CreateContainer(t.Context(), withImageNamed(sb, "web", "sha256:1", "reg/app:1"))
		if status.Code(err) != code || status.Convert(err).Message() != "its own words" {
			t.Errorf("%s became %v", code, err)
		}
		if n.b.called("CreateContainer") != before+1 {
			t.Errorf("%s was tried again", code)
		}
	}
	// A copy that fails leaves the create's own error, and says so.
	needsImage(n.b)
	n.b.edit(func() { clear(n.b.images) })
	b.failing = errors.New("no space left on device")
	n.b.edit(func() {})
	_, err := n.CreateContainer(t.Context(), withImageNamed(sb, "web", "sha256:1", ""))
	wantCode(t, err, codes.NotFound, "b has no image sha256:1", "copying it from a", "no space left on device", "only its id is known")
	if a.exports.Load() != 1 {
		t.Errorf("%d copies", a.exports.Load())
	}
}

// TestCredentialsAreBounded in number and in age.
func TestCredentialsAreBounded(t *testing.T) {
	now := time.Now()
	c := newCredentials()
	c.now = func() time.Time { return now }
	for i := range credentialsKept + 10 {
		c.remember("u", fmt.Sprint("i", i), []byte("x"))
	}
	if c.order.Len() != credentialsKept || len(c.byPull) != credentialsKept {
		t.Errorf("%d are kept", c.order.Len())
	}
	if _, ok := c.of("u", "i9"); ok {
		t.Error("an old one is kept")
	}
	c.remember("u", "i10", []byte("newer"))
	if auth, ok := c.of("u", "i10"); !ok || string(auth) != "newer" {
		t.Errorf("the last pull brought %q", auth)
	}
	now = now.Add(credentialsAge)
	if _, ok := c.of("u", "i10"); ok || c.order.Len() != 0 {
		t.Error("they are kept for ever")
	}
	if c.remember("", "i", nil); c.order.Len() != 0 {
		t.Error("a pull for no pod is remembered")
	}
}

// TestALoneRuntimeSaysItItself: where there is no other runtime, and nothing to
// pull with, a create's error is the runtime's own, details included.
func TestALoneRuntimeSaysItItself(t *testing.T) {
	n := &node{a: newFake(t, "a"), b: newFake(t, "b"), dir: t.TempDir()}
	n.adjust = func(cfg *policy.Config) {
		cfg.Backends = slices.DeleteFunc(cfg.Backends, func(b policy.Backend) bool { return b.Name == "b" })
		cfg.Routes = slices.DeleteFunc(cfg.Routes, func(r policy.RouteRule) bool { return r.Backend == "b" })
	}
	n.begin(t)
	sb := n.run(t, "web", "front-a")
	want := someStatus(int(codes.NotFound), "a has no such image", []byte("a detail"), true)
	n.a.setBefore(func(_ context.Context, method string, _ any) error {
		if method == "CreateContainer" {
			return want.Err()
		}
		return nil
	})
	_, err := n.CreateContainer(t.Context(), withImageNamed(sb, "c", "reg/app:1", ""))
	if got := status.Convert(err); !proto.Equal(got.Proto(), want.Proto()) {
		t.Errorf("got %v, want %v", got.Proto(), want.Proto())
	}
}
